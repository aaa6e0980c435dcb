//! TQ1_0: 256 ternary weights, five in a byte, with one scale; 1.6875 bits a weight.
//!
//! A byte is a fraction of 256 whose first base-3 digits are codes: digit n of byte b is the whole part of
//! 3 * frac(b * 3^n / 256).
//!
//! ```text
//! bytes 0..32    qs[0..32]    digit n of qs[j] = q[32 n + j],              n = 0 .. 4, j = 0 .. 31
//! bytes 32..48   qs[32..48]   digit n of qs[32 + j] = q[160 + 16 n + j],   n = 0 .. 4, j = 0 .. 15
//! bytes 48..52   qh[4]        digit n of qh[j] = q[240 + 4 n + j],         n = 0 .. 3, j = 0 .. 3
//! bytes 52..54   d: f16
//!
//! w[i] = (q[i] - 1) * d
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits};
use crate::simd::Isa;

/// Base-3 digit `n` (0 to 4) of a byte.
fn digit(byte: u8, n: usize) -> u8 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let fraction = byte.wrapping_mul(POWERS[n]);
    ((u16::from(fraction) * 3) >> 8) as u8
}

/// The fractions three times, where the bits of `mask` are set: on by a digit.
#[inline(always)]
fn tripled<I: Isa>(isa: I, fractions: I::Bytes, mask: I::Bytes) -> I::Bytes {
    isa.add_bytes(fractions, isa.and(isa.add_bytes(fractions, fractions), mask))
}

/// 256 weights of type `tq1_0`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Tq1_0 {
    qs: [u8; 48],
    qh: [u8; 4],
    d: [u8; 2],
}

impl Tq1_0 {
    /// A block with this scale and these codes.
    pub(crate) fn pack(d: [u8; 2], codes: &[u8; 256]) -> Self {
        // The fraction of 256 is rounded up, so that the digits come back.
        let byte = |digits: u8| (u16::from(digits) * 256).div_ceil(243) as u8;
        let five = |at: usize, stride: usize| {
            byte((0..5).fold(0_u8, |all, n| all.wrapping_mul(3).wrapping_add(codes[at + n * stride])))
        };
        let four = |j: usize| {
            let digits = (0..4).fold(0_u8, |all, n| all.wrapping_mul(3).wrapping_add(codes[240 + j + 4 * n]));
            byte(digits.wrapping_mul(3))
        };
        let qs = core::array::from_fn(|j| if j < 32 { five(j, 32) } else { five(160 + j - 32, 16) });
        Self { qs, qh: core::array::from_fn(four), d }
    }

    /// The codes `q`, 0 to 2, of the 32 weights from `32 * g` on (`g` from 0 to 7).
    pub(crate) fn codes(&self, g: usize) -> [u8; 32] {
        core::array::from_fn(|j| match 32 * g + j {
            i @ 0..160 => digit(self.qs[i % 32], i / 32),
            i @ 160..240 => digit(self.qs[32 + i % 16], (i - 160) / 16),
            i => digit(self.qh[i % 4], (i - 240) / 4),
        })
    }
}

impl Block for Tq1_0 {
    const TYPE: GgmlType = GgmlType::TQ1_0;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            for (w, q) in out.iter_mut().zip(self.codes(g)) {
                *w = (f32::from(q) - 1.0) * d;
            }
        }
    }
}

impl Superblock for Tq1_0 {
    const CODES: Codes = Codes::Unsigned(2);
    const OFFSET: i16 = 1;
    const GROUP: usize = 32;
    const SCALES: bool = false;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        let sixteens = self.qs.as_chunks::<16>().0;
        let (lower, upper) = (isa.spread_bits(0x0000_ffff), isa.spread_bits(0xffff_0000));
        let mut fractions = if part < 5 {
            isa.bytes(&self.qs.as_chunks().0[0])
        } else {
            tripled(isa, isa.twice(&sixteens[2]), upper)
        };
        let digits = match part {
            0..5 => part,
            _ => 2 * (part - 5),
        };
        for _ in 0..digits {
            fractions = isa.triple_bytes(fractions);
        }
        if part == 7 {
            // The last sixteen weights are four bytes' digits one after the other.
            let mut last = isa.splat_four(self.qh);
            for from in [0xfff0_0000, 0xff00_0000, 0xf000_0000] {
                last = tripled(isa, last, isa.spread_bits(from));
            }
            fractions = isa.or(isa.and(fractions, lower), isa.and(last, upper));
        }
        // Two means of `f - 1` with nothing are 64 times the whole part of 3 f / 256, and less than 64 (all 256 tried).
        let less = isa.sub_bytes(fractions, isa.splat_byte(1));
        isa.field::<6, 0x03>(isa.mean_bytes(less, isa.mean_bytes(less, isa.splat_byte(0))))
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of32([1; 8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_every_number_of_five_digits() {
        // ggml writes the number v < 243 as the smallest byte whose fraction is not below v / 243.
        for v in 0..243_u32 {
            let byte = (v * 256).div_ceil(243) as u8;
            let digits = core::array::from_fn(|n| u32::from(digit(byte, n)));
            assert_eq!(digits, [v / 81, v / 27 % 3, v / 9 % 3, v / 3 % 3, v % 3]);
        }
    }

    #[test]
    fn three_fields_cover_the_weights() {
        // Byte 0xff has digits 2, byte 0 digits 0.
        let mut block = Tq1_0 { qs: [0; 48], qh: [0; 4], d: [0x00, 0x3c] };
        (block.qs[5], block.qs[32 + 7], block.qh[1]) = (0xff, 0xff, 0xff);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [-1.0; 256];
        for i in [5, 37, 69, 101, 133, 167, 183, 199, 215, 231, 241, 245, 249, 253] {
            expected[i] = 1.0;
        }
        assert_eq!(out, expected);
    }
}
