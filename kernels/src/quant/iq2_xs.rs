//! IQ2_XS: 256 weights in points of 8 from a grid of 512, with signs, in 16 groups of 16, each with a 4-bit scale;
//! 2.3125 bits a weight.
//!
//! ```text
//! bytes 0..2      d: f16
//! bytes 2..66     qs[32]: u16   point p = 0 .. 31:
//!                   bits 0..9     index of point p in the grid
//!                   bits 9..16    its signs but the eighth, which makes their number even
//! bytes 66..74    scales[8]     scales[j][0..4] = sc[2 j], scales[j][4..8] = sc[2 j + 1]
//!
//! w[i] = (d * (0.5 + sc[i / 16]) * 0.25) * (+- grid[index][i % 8])
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits, grids, iq2_xxs::from_points};
use crate::simd::Isa;

/// The scales of two groups of 16 of IQ2_XS and IQ2_S.
pub(crate) fn two_scales(d: f32, packed: u8) -> [f32; 2] {
    [packed & 0x0f, packed >> 4].map(|scale| d * (0.5 + f32::from(scale)) * 0.25)
}

/// One in each byte.
pub(super) const ONES: u64 = 0x0101_0101_0101_0101;

/// `2 sc + 1` for the scales of the 16 groups of IQ2_XS and IQ2_S.
#[inline(always)]
pub(super) fn odd_scales(packed: &[u8; 8]) -> [i8; 16] {
    // Eight nibbles to eight bytes, by halves: byte by byte takes three times as many instructions.
    let spread = |four: [u8; 4]| {
        let nibbles = bits::widen_four(four);
        let nibbles = (nibbles | nibbles << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        (2 * nibbles + ONES).to_le()
    };
    let [a, b, c, d, e, f, g, h] = *packed;
    bytemuck::cast([spread([a, b, c, d]), spread([e, f, g, h])])
}

/// 256 weights of type `iq2_xs`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Iq2Xs {
    d: [u8; 2],
    qs: [[u8; 2]; 32],
    scales: [u8; 8],
}

impl Iq2Xs {
    /// A block with this scale and these codes of the groups' scales; `point` gives each point and its signs.
    pub(crate) fn pack(d: [u8; 2], scales: &[u8; 16], point: impl Fn(usize) -> (u16, u8)) -> Self {
        let qs = core::array::from_fn(|p| {
            let (index, signs) = point(p);
            (index | u16::from(signs & 0x7f) << 9).to_le_bytes()
        });
        Self { d, qs, scales: bits::pack_pairs(scales) }
    }

    /// The 32 weights from `32 * g` on (`g` from 0 to 7) in units of their scales, -43 to 43.
    pub(crate) fn levels(&self, g: usize) -> [i8; 32] {
        from_points(|l| {
            let code = u16::from_le_bytes(self.qs[4 * g + l]);
            grids::signed(&grids::IQ2_XS[usize::from(code & 0x1ff)], grids::even_signs(u32::from(code >> 9)))
        })
    }
}

impl Block for Iq2Xs {
    const TYPE: GgmlType = GgmlType::IQ2_XS;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            let scales = two_scales(d, self.scales[g]);
            for ((j, w), level) in out.iter_mut().enumerate().zip(self.levels(g)) {
                *w = scales[j / 16] * f32::from(level);
            }
        }
    }
}

impl Superblock for Iq2Xs {
    const CODES: Codes = Codes::Unsigned(107);
    const OFFSET: i16 = 64;
    const SIGNS: bool = true;
    const GROUP: usize = 16;
    const UNIT: f32 = 0.125;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        let points = u64::from_le_bytes(bytemuck::cast(self.qs.as_chunks::<4>().0[part]));
        isa.eights_of_shorts(&grids::IQ2_XS, points)
    }
    #[inline(always)]
    fn signs<I: Isa>(&self, isa: I) -> I::Bytes {
        grids::even_signs_of(isa, isa.field::<1, 0x7f>(isa.second_bytes(&self.qs)))
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of16(odd_scales(&self.scales))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_takes_nine_bits() {
        // d = 8, scale 1; point 31 has index 511, all 43, and sign bits 0b111_1111.
        let mut block = Iq2Xs { d: [0x00, 0x48], qs: [[0; 2]; 32], scales: [0; 8] };
        block.qs[31] = [0xff, 0xff];
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [8.0; 256];
        expected[248..].copy_from_slice(&grids::IQ2_XS[511].map(|level| -f32::from(level)));
        assert_eq!(out, expected);
    }

    #[test]
    fn a_byte_holds_the_scales_of_32_weights() {
        // d = 1; scales 0.5 / 4 but (0.5 + 1) / 4 for weights 32 to 47 and (0.5 + 2) / 4 for 48 to 63; points of 8.
        let mut block = Iq2Xs { d: [0x00, 0x3c], qs: [[0; 2]; 32], scales: [0; 8] };
        block.scales[1] = 0x21;
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [1.0; 256];
        expected[32..48].fill(3.0);
        expected[48..64].fill(5.0);
        assert_eq!(out, expected);
    }
}
