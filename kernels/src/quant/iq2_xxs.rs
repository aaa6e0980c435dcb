//! IQ2_XXS: 256 weights in points of 8 from a grid of 256, with signs, in 8 groups of 32, each with a 4-bit scale;
//! 2.0625 bits a weight.
//!
//! ```text
//! bytes 0..2     d: f16
//! bytes 2..66    qs[8][8]   group g = 0 .. 7, its points l = 0 .. 3:
//!                  qs[g][l]              index of point l in the grid
//!                  u32 of qs[g][4..8]:
//!                  bits 7 l .. 7 l + 7   signs of point l but the eighth, which makes their number even
//!                  bits 28 .. 32         sc[g]
//!
//! w[i] = (d * (0.5 + sc[i / 32]) * 0.25) * (+- grid[index][i % 8])
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits, grids};
use crate::simd::Isa;

/// A group of 32 weights from four points of 8.
pub(crate) fn from_points(point: impl Fn(usize) -> [i8; 8]) -> [i8; 32] {
    let points: [[i8; 8]; 4] = core::array::from_fn(point);
    core::array::from_fn(|j| points[j / 8][j % 8])
}

/// Four times the first seven of eight signs, and four bits of a scale above them.
pub(crate) fn pack_even_signs(signs: &[u8; 4], scale: u8) -> [u8; 4] {
    let packed = (0..4).fold(u32::from(scale) << 28, |all, l| all | u32::from(signs[l] & 0x7f) << (7 * l));
    packed.to_le_bytes()
}

/// 256 weights of type `iq2_xxs`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Iq2Xxs {
    d: [u8; 2],
    qs: [[u8; 8]; 8],
}

impl Iq2Xxs {
    /// A block with this scale; `group` gives each group's points, their signs, and the code of its scale.
    pub(crate) fn pack<'a>(d: [u8; 2], group: impl Fn(usize) -> (&'a [u16; 8], &'a [u8; 4], u8)) -> Self {
        let qs = core::array::from_fn(|g| {
            let (points, signs, scale) = group(g);
            let [p0, p1, p2, p3, ..] = points.map(|point| point as u8);
            let [s0, s1, s2, s3] = pack_even_signs(signs, scale);
            [p0, p1, p2, p3, s0, s1, s2, s3]
        });
        Self { d, qs }
    }

    /// The points of group `g` (0 to 7), the first lowest.
    #[inline(always)]
    fn points(&self, g: usize) -> u32 {
        let [points, _]: [[u8; 4]; 2] = bytemuck::cast(self.qs[g]);
        u32::from_le_bytes(points)
    }

    /// The weights of group `g` (0 to 7) in units of its scale, -43 to 43, and `sc`, 0 to 15.
    pub(crate) fn group(&self, g: usize) -> ([i8; 32], u8) {
        let [p0, p1, p2, p3, s0, s1, s2, s3] = self.qs[g];
        let (points, signs) = ([p0, p1, p2, p3], u32::from_le_bytes([s0, s1, s2, s3]));
        let point = |l: usize| &grids::IQ2_XXS[usize::from(points[l])];
        let levels = from_points(|l| grids::signed(point(l), grids::even_signs(signs >> (7 * l))));
        (levels, (signs >> 28) as u8)
    }
}

impl Block for Iq2Xxs {
    const TYPE: GgmlType = GgmlType::IQ2_XXS;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            let (levels, scale) = self.group(g);
            let scale = d * (0.5 + f32::from(scale)) * 0.25;
            for (w, level) in out.iter_mut().zip(levels) {
                *w = scale * f32::from(level);
            }
        }
    }
}

impl Superblock for Iq2Xxs {
    const CODES: Codes = Codes::Unsigned(107);
    const OFFSET: i16 = 64;
    const SIGNS: bool = true;
    const GROUP: usize = 32;
    const CROSSED: bool = true;
    const UNIT: f32 = 0.125;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        let points = self.points(part);
        isa.eights_of_bytes(&grids::IQ2_XXS, [points, points >> 16])
    }
    #[inline(always)]
    fn load_two<I: Isa>(&self, isa: I, pair: usize) -> [I::Bytes; 2] {
        let [a, b] = [self.points(2 * pair), self.points(2 * pair + 1)];
        [
            isa.eights_of_bytes(&grids::IQ2_XXS, [a, b]),
            isa.eights_of_bytes(&grids::IQ2_XXS, [a >> 16, b >> 16]),
        ]
    }
    #[inline(always)]
    fn signs<I: Isa>(&self, isa: I) -> I::Bytes {
        grids::even_signs_of(isa, isa.sevens(isa.second_fours(&self.qs)))
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of32(self.qs.map(|[.., last]| 2 * (last >> 4) as i8 + 1))
    }
    #[inline(always)]
    fn load_scales<I: Isa>(&self, isa: I) -> I::Shorts {
        isa.odd_uppermost(isa.second_fours(&self.qs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_signs_make_eight() {
        // d = 8, scale 0.5 * 0.25 * 8 = 1; point 1 of group 2 has sign bits 0b000_0100, so weights
        // 2 and 7 turn.
        let mut block = Iq2Xxs { d: [0x00, 0x48], qs: [[0; 8]; 8] };
        block.qs[2][4..].copy_from_slice(&(0b000_0100_u32 << 7).to_le_bytes());
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [8.0; 256];
        (expected[74], expected[79]) = (-8.0, -8.0);
        assert_eq!(out, expected);
    }

    #[test]
    fn scale_is_the_upper_nibble() {
        // d = 1; group 7 has scale (0.5 + 15) / 4, all points index 1: (43, 8, 8, 8, 8, 8, 8, 8).
        let mut block = Iq2Xxs { d: [0x00, 0x3c], qs: [[0; 8]; 8] };
        block.qs[7] = [1, 1, 1, 1, 0, 0, 0, 0xf0];
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        assert_eq!(out[..224], [1.0; 224]);
        assert_eq!(out[224..234], [166.625, 31.0, 31.0, 31.0, 31.0, 31.0, 31.0, 31.0, 166.625, 31.0]);
    }
}
