//! Q6_K: 256 weights of 6 bits in 16 groups of 16, each with an 8-bit scale; 6.5625 bits a weight.
//!
//! ```text
//! bytes 0..128     ql[128]     lower 4 bits of the codes; for each half h = 0, 1 and j = 0 .. 63:
//!                    ql[64 h + j][0..4] = q[128 h + j][0..4]
//!                    ql[64 h + j][4..8] = q[128 h + 64 + j][0..4]
//! bytes 128..192   qh[64]      upper 2 bits; for each half h, quarter k = 0 .. 3 and j = 0 .. 31:
//!                    qh[32 h + j][2 k .. 2 k + 2] = q[128 h + 32 k + j][4..6]
//! bytes 192..208   scales[16]: i8
//! bytes 208..210   d: f16
//!
//! w[i] = (d * scales[i / 16]) * (q[i] - 32)
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits};
use crate::simd::Isa;

/// 256 weights of type `q6_K`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q6K {
    ql: [u8; 128],
    qh: [u8; 64],
    scales: [i8; 16],
    d: [u8; 2],
}

impl Q6K {
    /// A block with this scale, these group scales and codes.
    pub(crate) fn pack(d: [u8; 2], scales: [i8; 16], codes: &[u8; 256]) -> Self {
        let (mut ql, mut qh) = ([0; 128], [0; 64]);
        for (i, code) in codes.iter().enumerate() {
            let (half, quarter, j) = (i / 128, i / 32 % 4, i % 32);
            ql[half * 64 + quarter % 2 * 32 + j] |= (code & 0x0f) << (quarter / 2 * 4);
            qh[half * 32 + j] |= (code >> 4 & 0x03) << (quarter * 2);
        }
        Self { ql, qh, scales, d }
    }

    /// The codes `q`, 0 to 63, of the 32 weights from `32 * g` on (`g` from 0 to 7).
    pub(crate) fn codes(&self, g: usize) -> [u8; 32] {
        let (half, quarter) = (g / 4, g % 4);
        core::array::from_fn(|j| {
            let low = self.ql[half * 64 + quarter % 2 * 32 + j] >> (quarter / 2 * 4);
            let high = self.qh[half * 32 + j] >> (quarter * 2);
            (low & 0x0f) | (high & 0x03) << 4
        })
    }
}

impl Block for Q6K {
    const TYPE: GgmlType = GgmlType::Q6_K;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            let scales = [d * f32::from(self.scales[2 * g]), d * f32::from(self.scales[2 * g + 1])];
            for ((j, w), q) in out.iter_mut().enumerate().zip(self.codes(g)) {
                *w = scales[j / 16] * (f32::from(q) - 32.0);
            }
        }
    }
}

impl Superblock for Q6K {
    const CODES: Codes = Codes::Unsigned(63);
    const OFFSET: i16 = 32;
    const GROUP: usize = 16;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        let (half, quarter) = (part / 4, part % 4);
        let low = isa.bytes(&self.ql.as_chunks::<32>().0[2 * half + quarter % 2]);
        let low = if quarter < 2 { isa.field::<0, 0x0f>(low) } else { isa.field::<4, 0x0f>(low) };
        let high = isa.bytes(&self.qh.as_chunks::<32>().0[half]);
        let high = match quarter {
            0 => isa.field::<0, 0x03>(high),
            1 => isa.field::<2, 0x03>(high),
            2 => isa.field::<4, 0x03>(high),
            _ => isa.field::<6, 0x03>(high),
        };
        isa.or(low, isa.raise::<4>(high))
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of16(self.scales)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NULL: Q6K = Q6K { ql: [0; 128], qh: [0xaa; 64], scales: [0; 16], d: [0x00, 0x3c] };

    #[test]
    fn upper_bits_alone_make_code_32_the_null() {
        let mut out = [f32::NAN; 256];
        Q6K { scales: [1; 16], ..NULL }.dequantize(&mut out);
        assert_eq!(out, [0.0; 256]);
    }

    #[test]
    fn one_byte_feeds_weights_64_apart() {
        // ql[64 + 35]: low nibble to weight 128 + 35, high nibble to weight 128 + 99, scales -2 and 3.
        let mut block = NULL;
        block.ql[99] = 0x71;
        (block.scales[10], block.scales[14]) = (-2, 3);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [0.0; 256];
        (expected[163], expected[227]) = (-2.0, 21.0);
        assert_eq!(out, expected);
    }

    #[test]
    fn scales_cover_16_weights() {
        // qh[5] = 0: weights 5, 37, 69, 101 have code 0, weight -32 times their scales 0, 2, 4, 6.
        let mut block = NULL;
        block.qh[5] = 0;
        (block.scales[0], block.scales[6]) = (1, -128);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        assert_eq!((out[5], out[37], out[69], out[101]), (-32.0, 0.0, 0.0, 4096.0));
    }
}
