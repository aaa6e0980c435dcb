//! NEON with the dot product of bytes (ARMv8.2, and in every processor from ARMv8.4 on): `sdot` adds four products to
//! a lane of 32 bits.

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::{
    Bytes, Floats, Ints, Shorts, add_scaled, both, load, narrow_to_halves, neon_words, pairs, signed,
    transpose, widen_halves,
};
use super::{Isa, rows_of_two_registers, words};

/// NEON with dot products.
#[derive(Clone, Copy)]
pub struct NeonDotprod(());

impl NeonDotprod {
    /// # Safety
    /// The processor must have NEON and its dot product.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        NeonDotprod(())
    }
}

/// Adds to each lane of `to` the products of four neighbours of `w` and `s`. The intrinsic is not stable yet.
///
/// # Safety
/// The processor must have the dot product.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn sdot(to: int32x4_t, w: uint8x16_t, s: uint8x16_t) -> int32x4_t {
    let mut sum = to;
    // SAFETY: the caller promises the instruction; it reads and writes registers only.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {s:v}.16b",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            s = in(vreg) s,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Adds to each lane of `to` the products of four neighbours of `w` and the four bytes `LANE` of `s`.
///
/// # Safety
/// The processor must have the dot product.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot_lane<const LANE: i32>(to: int32x4_t, w: uint8x16_t, s: uint8x16_t) -> int32x4_t {
    let mut sum = to;
    // SAFETY: the caller promises the instruction; it reads and writes registers only.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {s:v}.4b[{lane}]",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            s = in(vreg) s,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Sixteen rows times the column `LANE` of `x`.
///
/// # Safety
/// The processor must have the dot product.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn column<const LANE: i32>(to: [Ints; 2], w: [uint8x16_t; 4], x: uint8x16_t) -> [Ints; 2] {
    let [[a, b], [c, d]] = to;
    // SAFETY: the caller promises the dot product.
    unsafe {
        [
            [sdot_lane::<LANE>(a, w[0], x), sdot_lane::<LANE>(b, w[1], x)],
            [sdot_lane::<LANE>(c, w[2], x), sdot_lane::<LANE>(d, w[3], x)],
        ]
    }
}

/// The words that the dot product betters, for this level and the one above it.
macro_rules! dotprod_words {
    () => {
        type RowSums = [Ints; 2];

        const DOTS: bool = true;
        const SIGNED_BIAS: i32 = 0;
        const COLUMNS: usize = 4;

        #[inline(always)]
        fn widen_sums(self, sums: [Ints; 2]) -> [Ints; 2] {
            sums
        }

        words! {
            fn dot_two_unsigned(u: [Bytes; 2], s: [Bytes; 2]) -> Ints {
                let ([a, b], [x, y]) = (u, s);
                both!(|a, b, x, y| sdot(sdot(vdupq_n_s32(0), a, x), b, y))
            }
            fn dot_two_signed(w: [Bytes; 2], s: [Bytes; 2]) -> Ints {
                let ([a, b], [x, y]) = (w, s);
                both!(|a, b, x, y| sdot(sdot(vdupq_n_s32(0), a, x), b, y))
            }
            fn no_sums() -> [Ints; 2] { [[vdupq_n_s32(0); 2]; 2] }
            fn add_products(to: [Ints; 2], w: [uint8x16_t; 4], x: [i8; 4]) -> [Ints; 2] {
                let x = vreinterpretq_u8_s32(vdupq_n_s32(bytemuck::cast(x)));
                let [[a, b], [c, d]] = to;
                [[sdot(a, w[0], x), sdot(b, w[1], x)], [sdot(c, w[2], x), sdot(d, w[3], x)]]
            }
            fn add_scaled_sums(to: [Ints; 2], sums: [Ints; 2], scales: &[[i16; 2]; 16]) -> [Ints; 2] {
                add_scaled(to, sums, scales)
            }
        }
    };
}
pub(super) use dotprod_words;

impl Isa for NeonDotprod {
    neon_words!();
    dotprod_words!();

    /// The codes of four columns are one register, a column one of its lanes.
    #[inline(always)]
    fn products<const STEPS: usize, const F: usize>(
        self,
        w: &[[[u8; 4]; 16]; STEPS],
        x: &[&[[[i8; 4]; 4]; STEPS]; F],
    ) -> [[[Ints; 2]; 4]; F] {
        let mut sums = [[self.no_sums(); 4]; F];
        for step in 0..STEPS {
            let w = self.row_codes(&w[step]);
            for f in 0..F {
                let [a, b, c, d] = sums[f];
                // SAFETY: a value of this type proves that the processor has the dot product; sixteen bytes are read
                // from an array of as many.
                sums[f] = unsafe {
                    let x = vld1q_u8(x[f][step].as_ptr().cast());
                    [column::<0>(a, w, x), column::<1>(b, w, x), column::<2>(c, w, x), column::<3>(d, w, x)]
                };
            }
        }
        sums
    }
}
