//! IQ3_S: 256 weights in points of 4 from a grid of 512, with signs, in 8 groups of 32, each with a 4-bit scale;
//! 3.4375 bits a weight.
//!
//! ```text
//! bytes 0..2        d: f16
//! bytes 2..66       qs[64]      point p = 0 .. 63: lower 8 bits of its index in the grid
//! bytes 66..74      qh[8]       qh[p / 8][p % 8] = ninth bit of the index
//! bytes 74..106     signs[32]   signs[j][k] set makes weight 8 j + k negative
//! bytes 106..110    scales[4]   scales[j][0..4] = sc[2 j], scales[j][4..8] = sc[2 j + 1]
//!
//! w[i] = (d * (1 + 2 sc[i / 32])) * (+- grid[index][i % 4])
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits, grids, iq2_xxs::from_points, iq3_xxs::two_points};
use crate::simd::Isa;

/// 256 weights of type `iq3_s`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Iq3S {
    d: [u8; 2],
    qs: [u8; 64],
    qh: [u8; 8],
    signs: [u8; 32],
    scales: [u8; 4],
}

impl Iq3S {
    /// A block with this scale and these codes of the groups' scales; `group` gives each group's points and their
    /// signs, `ninth` the points whose indices' ninth bits it has (the same, but where ggml loses its place).
    pub(crate) fn pack<'a>(
        d: [u8; 2],
        scales: &[u8; 8],
        group: impl Fn(usize) -> (&'a [u16; 8], &'a [u8; 4]),
        ninth: impl Fn(usize) -> &'a [u16; 8],
    ) -> Self {
        Self {
            d,
            qs: core::array::from_fn(|p| group(p / 8).0[p % 8] as u8),
            qh: core::array::from_fn(|g| {
                (0..8).fold(0, |bits, p| bits | ((ninth(g)[p] >> 8 & 1) as u8) << p)
            }),
            signs: core::array::from_fn(|j| group(j / 4).1[j % 4]),
            scales: bits::pack_pairs(scales),
        }
    }

    /// The weights of group `g` (0 to 7) in units of its scale, -15 to 15.
    pub(crate) fn levels(&self, g: usize) -> [i8; 32] {
        let point = |p: usize| {
            let ninth = usize::from(self.qh[g] >> p & 1);
            &grids::IQ3_S[usize::from(self.qs[8 * g + p]) | ninth << 8]
        };
        from_points(|l| grids::signed(&two_points(point(2 * l), point(2 * l + 1)), self.signs[4 * g + l]))
    }

    /// The scales of the groups, 1 to 31 and odd.
    #[inline(always)]
    pub(crate) fn scales(&self) -> [u8; 8] {
        core::array::from_fn(|g| 1 + 2 * (self.scales[g / 2] >> (g % 2 * 4) & 0x0f))
    }
}

impl Block for Iq3S {
    const TYPE: GgmlType = GgmlType::IQ3_S;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for ((g, scale), out) in self.scales().into_iter().enumerate().zip(out.chunks_mut(32)) {
            let scale = d * f32::from(scale);
            for (w, level) in out.iter_mut().zip(self.levels(g)) {
                *w = scale * f32::from(level);
            }
        }
    }
}

impl Superblock for Iq3S {
    const CODES: Codes = Codes::Unsigned(31);
    const OFFSET: i16 = 16;
    const SIGNS: bool = true;
    const GROUP: usize = 32;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        // Four points at once, in integers of 16 bits; the ninth bits come to their places by a multiplication.
        let (low, high) = (u64::from_le_bytes(self.qs.as_chunks().0[part]), u64::from(self.qh[part]));
        let high = high * (1 << 8 | 1 << 22 | 1 << 36 | 1 << 50);
        let points = |low: u64, high: u64| low & 0x00ff_00ff_00ff_00ff | high & 0x0100_0100_0100_0100;
        isa.fours_of_shorts(&grids::IQ3_S, [points(low, high), points(low >> 8, high >> 1)])
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
        Groups::Of32(bytemuck::cast(self.scales()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONES: Iq3S = Iq3S { d: [0x00, 0x3c], qs: [0; 64], qh: [0; 8], signs: [0; 32], scales: [0; 4] };

    #[test]
    fn ninth_bits_lie_in_the_order_of_the_points() {
        // Point 21 (group 2, its point 5; weights 84 to 87) has index 0x1ff.
        let mut block = ONES;
        (block.qs[21], block.qh[2]) = (0xff, 0x20);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [1.0; 256];
        expected[84..88].copy_from_slice(&grids::IQ3_S[511].map(f32::from));
        assert_eq!(out, expected);
    }

    #[test]
    fn scales_are_odd() {
        // Group 5 has scale 31, and weight 167 (bit 7 of byte 20) is negative.
        let mut block = ONES;
        (block.scales[2], block.signs[20]) = (0xf0, 0x80);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [1.0; 256];
        expected[160..192].fill(31.0);
        expected[167] = -31.0;
        assert_eq!(out, expected);
    }
}
