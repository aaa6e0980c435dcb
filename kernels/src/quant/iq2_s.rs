//! IQ2_S: 256 weights in points of 8 from a grid of 1024, with signs, in 16 groups of 16, each with a 4-bit scale;
//! 2.5625 bits a weight.
//!
//! ```text
//! bytes 0..2      d: f16
//! bytes 2..34     qs[32]      point p = 0 .. 31: lower 8 bits of its index in the grid
//! bytes 34..66    signs[32]   point p: bit j set makes weight 8 p + j negative
//! bytes 66..74    qh[8]       qh[p / 4][2 (p % 4) .. 2 (p % 4) + 2] = upper 2 bits of the index
//! bytes 74..82    scales[8]   scales[j][0..4] = sc[2 j], scales[j][4..8] = sc[2 j + 1]
//!
//! w[i] = (d * (0.5 + sc[i / 16]) * 0.25) * (+- grid[index][i % 8])
//! ```

use super::fast::{Groups, Scale};
use super::iq2_xs::{odd_scales, two_scales};
use super::{Block, Codes, GgmlType, Superblock, bits, grids, iq2_xxs::from_points};
use crate::simd::Isa;

/// 256 weights of type `iq2_s`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Iq2S {
    d: [u8; 2],
    qs: [u8; 32],
    signs: [u8; 32],
    qh: [u8; 8],
    scales: [u8; 8],
}

impl Iq2S {
    /// A block with this scale and these codes of the groups' scales; `point` gives each point and its signs.
    pub(crate) fn pack(d: [u8; 2], scales: &[u8; 16], point: impl Fn(usize) -> (u16, u8)) -> Self {
        let (mut qs, mut signs, mut qh) = ([0; 32], [0; 32], [0; 8]);
        for p in 0..32 {
            let index;
            (index, signs[p]) = point(p);
            qs[p] = index as u8;
            qh[p / 4] |= ((index >> 8 & 0x03) as u8) << (p % 4 * 2);
        }
        Self { d, qs, signs, qh, scales: bits::pack_pairs(scales) }
    }

    /// The 32 weights from `32 * g` on (`g` from 0 to 7) in units of their scales, -43 to 43.
    pub(crate) fn levels(&self, g: usize) -> [i8; 32] {
        from_points(|l| {
            let high = usize::from(self.qh[g] >> (2 * l) & 0x03);
            let index = usize::from(self.qs[4 * g + l]) | high << 8;
            grids::signed(&grids::IQ2_S[index], self.signs[4 * g + l])
        })
    }
}

impl Block for Iq2S {
    const TYPE: GgmlType = GgmlType::IQ2_S;

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

impl Superblock for Iq2S {
    const CODES: Codes = Codes::Unsigned(107);
    const OFFSET: i16 = 64;
    const SIGNS: bool = true;
    const GROUP: usize = 16;
    const UNIT: f32 = 0.125;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        let (qs, high) = (&self.qs.as_chunks::<4>().0[part], usize::from(self.qh[part]));
        let mut points = [0; 4];
        for (l, (point, &low)) in points.iter_mut().zip(qs).enumerate() {
            *point = usize::from(low) | high << (8 - 2 * l) & 0x300;
        }
        isa.eights(&grids::IQ2_S, points)
    }
    #[inline(always)]
    fn signs<I: Isa>(&self, isa: I) -> I::Bytes {
        isa.bytes(&self.signs)
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

    const EIGHTS: Iq2S = Iq2S { d: [0x00, 0x48], qs: [0; 32], signs: [0; 32], qh: [0; 8], scales: [0; 8] };

    #[test]
    fn index_takes_two_upper_bits() {
        // d = 8, scale 1; point 14 (group 3) has index 0x3ff.
        let mut block = EIGHTS;
        (block.qs[14], block.qh[3]) = (0xff, 0b00_11_00_00);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [8.0; 256];
        expected[112..120].copy_from_slice(&grids::IQ2_S[1023].map(f32::from));
        assert_eq!(out, expected);
    }

    #[test]
    fn signs_are_eight_free_bits() {
        // An odd number of signs, and scale 8 * (0.5 + 3) / 4 = 7 for weights 16 to 31.
        let mut block = EIGHTS;
        (block.signs[3], block.scales[0]) = (0x01, 0x30);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [8.0; 256];
        expected[16..32].fill(56.0);
        expected[24] = -56.0;
        assert_eq!(out, expected);
    }
}
