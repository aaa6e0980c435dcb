//! Several groups of weights at once, a lane each.
//!
//! The order in which ggml adds up a group's floats is part of its answer, so a group alone cannot be summed any faster.
//! But groups do not depend on each other: where `L` of them are searched side by side, each step is a word of the
//! processor's, and each lane sees just the operations that ggml does, in their order.
#![forbid(unsafe_code)]

use core::ops::{Add, Div, Mul, Neg, Sub};

use super::numbers;

/// A number for each of `L` groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes<const L: usize>(pub [f32; L]);

/// All ones where something holds, else zero, for each of `L` groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask<const L: usize>([u32; L]);

macro_rules! operator {
    ($trait:ident, $name:ident, $operator:tt) => {
        impl<const L: usize> $trait for Lanes<L> {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                let mut out = self;
                for l in 0..L {
                    out.0[l] = self.0[l] $operator other.0[l];
                }
                out
            }
        }
    };
}
operator!(Add, add, +);
operator!(Sub, sub, -);
operator!(Mul, mul, *);
operator!(Div, div, /);

impl<const L: usize> Neg for Lanes<L> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        let mut out = self;
        for l in 0..L {
            out.0[l] = -self.0[l];
        }
        out
    }
}

impl<const L: usize> Lanes<L> {
    pub(super) const ZERO: Self = Self([0.0; L]);

    #[inline(always)]
    pub(super) fn splat(x: f32) -> Self {
        Self([x; L])
    }

    #[inline(always)]
    pub(super) fn abs(self) -> Self {
        let mut out = self;
        for l in 0..L {
            out.0[l] = self.0[l].abs();
        }
        out
    }

    /// `if a < b { a } else { b }`.
    #[inline(always)]
    pub(super) fn min(self, other: Self) -> Self {
        let mut out = self;
        for l in 0..L {
            out.0[l] = if self.0[l] < other.0[l] { self.0[l] } else { other.0[l] };
        }
        out
    }

    /// `if a > b { a } else { b }`.
    #[inline(always)]
    pub(super) fn max(self, other: Self) -> Self {
        let mut out = self;
        for l in 0..L {
            out.0[l] = if self.0[l] > other.0[l] { self.0[l] } else { other.0[l] };
        }
        out
    }

    #[inline(always)]
    pub(super) fn less(self, other: Self) -> Mask<L> {
        let mut out = Mask([0; L]);
        for l in 0..L {
            out.0[l] = if self.0[l] < other.0[l] { u32::MAX } else { 0 };
        }
        out
    }

    #[inline(always)]
    pub(super) fn same(self, other: Self) -> Mask<L> {
        let mut out = Mask([0; L]);
        for l in 0..L {
            out.0[l] = if self.0[l] == other.0[l] { u32::MAX } else { 0 };
        }
        out
    }

    /// [`numbers::nearest`], kept between `low` and `high`.
    #[inline(always)]
    pub(super) fn nearest(self, low: i32, high: i32) -> Self {
        let mut out = self;
        for l in 0..L {
            let code = numbers::nearest(self.0[l]);
            let code = if code < high { code } else { high };
            out.0[l] = (if code > low { code } else { low }) as f32;
        }
        out
    }
}

impl<const L: usize> Lanes<L> {
    /// Whole numbers, wrapped to a byte as C does it: 0 to 255.
    #[inline(always)]
    pub(super) fn byte(self) -> Self {
        let mut out = self;
        for l in 0..L {
            out.0[l] = (self.0[l] as i32 & 0xff) as f32;
        }
        out
    }
}

impl<const L: usize> Mask<L> {
    pub(super) const NONE: Self = Self([0; L]);

    #[inline(always)]
    pub(super) fn select(self, yes: Lanes<L>, no: Lanes<L>) -> Lanes<L> {
        let mut out = no;
        for l in 0..L {
            out.0[l] = f32::from_bits((yes.0[l].to_bits() & self.0[l]) | (no.0[l].to_bits() & !self.0[l]));
        }
        out
    }

    #[inline(always)]
    pub(super) fn and(self, other: Self) -> Self {
        let mut out = self;
        for l in 0..L {
            out.0[l] &= other.0[l];
        }
        out
    }

    #[inline(always)]
    pub(super) fn or(self, other: Self) -> Self {
        let mut out = self;
        for l in 0..L {
            out.0[l] |= other.0[l];
        }
        out
    }

    #[inline(always)]
    pub(super) fn not(self) -> Self {
        let mut out = self;
        for l in 0..L {
            out.0[l] = !out.0[l];
        }
        out
    }

    #[inline(always)]
    pub(super) fn any(self) -> bool {
        let mut any = 0;
        for l in 0..L {
            any |= self.0[l];
        }
        any != 0
    }
}

impl Lanes<32> {
    /// The first sixteen lanes, or the last.
    #[inline(always)]
    pub(super) fn half(self, i: usize) -> Lanes<16> {
        Lanes(self.0.as_chunks().0[i])
    }
}

/// `L` groups of `N` numbers, turned so that the groups lie side by side.
#[inline(always)]
pub(super) fn turn<const L: usize, const N: usize>(groups: &[[f32; N]]) -> [Lanes<L>; N] {
    let mut lanes = [Lanes::ZERO; N];
    for (l, group) in groups.iter().take(L).enumerate() {
        for i in 0..N {
            lanes[i].0[l] = group[i];
        }
    }
    lanes
}

/// The codes of `L` groups, turned back.
#[inline(always)]
pub(super) fn turn_codes<const L: usize, const N: usize>(codes: &[Lanes<L>; N]) -> [[u8; N]; L] {
    let mut groups = [[0; N]; L];
    for (l, group) in groups.iter_mut().enumerate() {
        for i in 0..N {
            group[i] = codes[i].0[l] as i32 as u8;
        }
    }
    groups
}
