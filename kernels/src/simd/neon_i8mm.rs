//! NEON with dot products and the matrix product of bytes (ARMv8.6; Apple since M2): `smmla` multiplies eight codes of
//! two rows with those of two columns.

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::{
    Bytes, Floats, Ints, Shorts, add_scaled, both, load, narrow_to_halves, neon_words, pairs, signed,
    transpose, widen_halves,
};
use super::neon_dotprod::{dotprod_words, sdot};
use super::{Isa, rows_of_two_registers, words};

/// NEON with dot products and matrix products.
#[derive(Clone, Copy)]
pub struct NeonI8mm(());

impl NeonI8mm {
    /// # Safety
    /// The processor must have NEON, its dot product and its matrix product.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        NeonI8mm(())
    }
}

/// Adds the products of two rows of eight signed bytes and two columns of as many:
/// `[row 0 column 0, row 0 column 1, row 1 column 0, row 1 column 1]`. The intrinsic is not stable yet.
///
/// # Safety
/// The processor must have the matrix product.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn smmla(to: int32x4_t, rows: uint8x16_t, columns: uint8x16_t) -> int32x4_t {
    let mut sum = to;
    // SAFETY: the caller promises the instruction; it reads and writes registers only.
    unsafe {
        asm!(
            "smmla {sum:v}.4s, {rows:v}.16b, {columns:v}.16b",
            sum = inout(vreg) sum,
            rows = in(vreg) rows,
            columns = in(vreg) columns,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// From the fours of `a` and of `b`, alternately: eights of their first two fours, and of their last two.
///
/// # Safety
/// The processor must have NEON.
#[inline(always)]
unsafe fn eights(a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
    // SAFETY: the caller promises NEON.
    unsafe {
        let (a, b) = (vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b));
        [vreinterpretq_u8_u32(vzip1q_u32(a, b)), vreinterpretq_u8_u32(vzip2q_u32(a, b))]
    }
}

impl Isa for NeonI8mm {
    neon_words!();
    dotprod_words!();

    /// Two steps at a time: zipping their fours gives rows, and columns, of eight.
    #[inline(always)]
    fn products<const STEPS: usize, const F: usize>(
        self,
        w: &[[[u8; 4]; 16]; STEPS],
        x: &[&[[[i8; 4]; 4]; STEPS]; F],
    ) -> [[[Ints; 2]; 4]; F] {
        const { assert!(STEPS < 4 || STEPS.is_multiple_of(2), "levels with dots take four or eight steps") };
        let mut sums = [[self.no_sums(); 4]; F];
        // SAFETY: a value of this type proves that the processor has the matrix product; sixteen bytes are read from
        // arrays of as many.
        unsafe {
            // By pairs of columns, by pairs of rows.
            let mut acc = [[[vdupq_n_s32(0); 8]; 2]; F];
            for step in 0..STEPS / 2 {
                let (a, b) = (self.row_codes(&w[2 * step]), self.row_codes(&w[2 * step + 1]));
                for f in 0..F {
                    let x0 = vld1q_u8(x[f][2 * step].as_ptr().cast());
                    let x1 = vld1q_u8(x[f][2 * step + 1].as_ptr().cast());
                    let columns = eights(x0, x1);
                    for four in 0..4 {
                        let rows = eights(a[four], b[four]);
                        for (at, rows) in (2 * four..).zip(rows) {
                            acc[f][0][at] = smmla(acc[f][0][at], rows, columns[0]);
                            acc[f][1][at] = smmla(acc[f][1][at], rows, columns[1]);
                        }
                    }
                }
            }
            for f in 0..F {
                for columns in 0..2 {
                    for four in 0..4 {
                        let (a, b) = (acc[f][columns][2 * four], acc[f][columns][2 * four + 1]);
                        sums[f][2 * columns][four / 2][four % 2] = vuzp1q_s32(a, b);
                        sums[f][2 * columns + 1][four / 2][four % 2] = vuzp2q_s32(a, b);
                    }
                }
            }
        }
        sums
    }
}
