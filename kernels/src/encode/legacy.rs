//! Blocks with a scale of their own: Q4_0 to Q8_0, Q1_0 and Q2_0.
#![forbid(unsafe_code)]

use super::lanes::{Lanes, turn, turn_codes};
use super::numbers::{half, largest, nearest, rounded, sum_of_squares, weigh};
use super::search::{Found, Tries, symmetric, with_min};
use super::{Encode, Failed, Points};
use crate::quant::{Q1_0, Q2_0, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// Blocks of 32 that are searched side by side.
const L: usize = 8;

/// The inverse of a scale, 0 for 0.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// What C makes of `x + half`, toward zero, and what of it is at most `top`; for numbers that are not negative then. Where the
/// inverse of a scale is infinite, codes are NaN and infinities, which C makes 0.
#[inline(always)]
fn code(x: f32, half: f32, top: i32) -> u8 {
    let x = x + half;
    let code = nearest(x);
    let code = if code as f32 > x { code - 1 } else { code };
    (if code < top { code } else { top }) as u8
}

/// The number of the largest magnitude, the first where two have it.
#[inline(always)]
fn extreme(x: &[f32; 32]) -> f32 {
    let (mut max, mut min) = ([0.0; 8], [0.0; 8]);
    for x in x.as_chunks::<8>().0 {
        for i in 0..8 {
            max[i] = if x[i] > max[i] { x[i] } else { max[i] };
            min[i] = if x[i] < min[i] { x[i] } else { min[i] };
        }
    }
    let (mut high, mut low) = (0.0, 0.0);
    for i in 0..8 {
        high = if max[i] > high { max[i] } else { high };
        low = if min[i] < low { min[i] } else { low };
    }
    match (high > -low, high < -low) {
        (true, _) => high,
        (_, true) => low,
        _ => largest(x).1,
    }
}

/// Blocks with a scale that the largest magnitude sets: codes 0 to 2 `levels` - 1.
#[inline(always)]
fn plain<B>(x: &[f32], levels: i32, out: &mut [B], pack: fn([u8; 2], &[u8; 32]) -> B) {
    let middle = levels as f32 + 0.5;
    for (x, out) in x.as_chunks::<32>().0.iter().zip(out) {
        let d = extreme(x) / -(levels as f32);
        let inverse = inverse(d);
        let mut codes = [0; 32];
        if inverse.is_finite() {
            for i in 0..32 {
                codes[i] = code(x[i] * inverse, middle, 2 * levels - 1);
            }
        }
        *out = pack(half(d), &codes);
    }
}

/// The smallest and the largest number; of zeros, the first.
#[inline(always)]
fn bounds(x: &[f32; 32]) -> (f32, f32) {
    let (mut min, mut max) = (f32::MAX, -f32::MAX);
    let (mut mins, mut maxs) = ([f32::MAX; 8], [-f32::MAX; 8]);
    for x in x.as_chunks::<8>().0 {
        for i in 0..8 {
            mins[i] = if x[i] < mins[i] { x[i] } else { mins[i] };
            maxs[i] = if x[i] > maxs[i] { x[i] } else { maxs[i] };
        }
    }
    for i in 0..8 {
        min = if mins[i] < min { mins[i] } else { min };
        max = if maxs[i] > max { maxs[i] } else { max };
    }
    if min == 0.0 {
        // Its sign is stored.
        min = x.iter().copied().find(|&x| x == 0.0).unwrap_or(min);
    }
    (min, max)
}

/// Blocks with a scale and a minimum: the smallest and the largest weight set both.
#[inline(always)]
fn plain_with_min<B>(x: &[f32], levels: i32, out: &mut [B], pack: fn([u8; 2], [u8; 2], &[u8; 32]) -> B) {
    for (x, out) in x.as_chunks::<32>().0.iter().zip(out) {
        let (min, max) = bounds(x);
        let d = (max - min) / levels as f32;
        let inverse = inverse(d);
        let mut codes = [0; 32];
        if inverse.is_finite() {
            for i in 0..32 {
                codes[i] = code((x[i] - min) * inverse, 0.5, levels);
            }
        }
        *out = pack(half(d), half(min), &codes);
    }
}

/// Blocks whose scales are searched for, weighed by the columns' importance.
#[inline(always)]
fn searched<B>(
    x: &[f32],
    importance: &[f32],
    out: &mut [B],
    search: impl Fn(&[Lanes<L>; 32], &[Lanes<L>; 32]) -> Found<L, 32>,
    pack: impl Fn(f32, f32, &[u8; 32]) -> B,
) {
    let sigma2 = sum_of_squares(x) / x.len() as f32;
    let blocks = x.as_chunks::<32>().0.chunks(L).zip(importance.as_chunks::<32>().0.chunks(L));
    for ((x, importance), out) in blocks.zip(out.chunks_mut(L)) {
        let mut weights = [[0.0; 32]; L];
        for ((weights, x), importance) in weights.iter_mut().zip(x).zip(importance) {
            *weights = weigh(importance, sigma2, x);
        }
        let found = search(&turn(x), &turn(&weights));
        let codes: [_; L] = turn_codes(&found.codes);
        for (l, out) in out.iter_mut().enumerate() {
            *out = pack(found.scale.0[l], found.min.0[l], &codes[l]);
        }
    }
}

/// The tries of the formats with a minimum.
const fn tries(levels: i32) -> Tries {
    Tries { levels, from: -0.9, step: 0.05, count: 36, magnitudes: false, clamp_first: true }
}

macro_rules! symmetric {
    ($block:ident, $levels:literal) => {
        impl Encode for $block {
            #[inline(always)]
            fn encode_row(
                x: &[f32],
                importance: Option<&[f32]>,
                _: &Points,
                out: &mut [Self],
            ) -> Result<(), Failed> {
                match importance {
                    None => plain(x, $levels, out, Self::pack),
                    Some(importance) => searched(
                        x,
                        importance,
                        out,
                        #[inline(always)]
                        |x, weights| symmetric($levels, x, weights),
                        |d, _, codes| Self::pack(half(d), codes),
                    ),
                }
                Ok(())
            }
        }
    };
}
symmetric!(Q4_0, 8);
symmetric!(Q5_0, 16);

macro_rules! with_min {
    ($block:ident, $levels:literal) => {
        impl Encode for $block {
            #[inline(always)]
            fn encode_row(
                x: &[f32],
                importance: Option<&[f32]>,
                _: &Points,
                out: &mut [Self],
            ) -> Result<(), Failed> {
                match importance {
                    None => plain_with_min(x, $levels, out, Self::pack),
                    Some(importance) => searched(
                        x,
                        importance,
                        out,
                        #[inline(always)]
                        |x, weights| with_min(tries($levels), x, weights),
                        |d, min, codes| Self::pack(half(d), half(-min), codes),
                    ),
                }
                Ok(())
            }
        }
    };
}
with_min!(Q4_1, 15);
with_min!(Q5_1, 31);

impl Encode for Q8_0 {
    #[inline(always)]
    fn encode_row(x: &[f32], _: Option<&[f32]>, _: &Points, out: &mut [Self]) -> Result<(), Failed> {
        for (x, out) in x.as_chunks::<32>().0.iter().zip(out) {
            let d = largest(x).0 / 127.0;
            let inverse = inverse(d);
            let mut codes = [0; 32];
            for i in 0..32 {
                codes[i] = rounded(x[i] * inverse) as i8;
            }
            *out = Self::pack(half(d), codes);
        }
        Ok(())
    }
}

impl Encode for Q1_0 {
    #[inline(always)]
    fn encode_row(x: &[f32], _: Option<&[f32]>, _: &Points, out: &mut [Self]) -> Result<(), Failed> {
        for (x, out) in x.as_chunks::<128>().0.iter().zip(out) {
            let mut sum = 0.0;
            for x in x {
                sum += x.abs();
            }
            *out = Self::pack(half(sum / 128.0), &x.map(|x| u8::from(x >= 0.0)));
        }
        Ok(())
    }
}

impl Encode for Q2_0 {
    #[inline(always)]
    fn encode_row(x: &[f32], _: Option<&[f32]>, _: &Points, out: &mut [Self]) -> Result<(), Failed> {
        for (x, out) in x.as_chunks::<64>().0.iter().zip(out) {
            let d = largest(x).0;
            let inverse = inverse(d);
            let mut codes = [0; 64];
            for i in 0..64 {
                codes[i] = rounded(x[i] * inverse).wrapping_add(1).clamp(0, 3) as u8;
            }
            *out = Self::pack(half(d), &codes);
        }
        Ok(())
    }
}
