//! IQ3_XXS: 256 weights in points of 4 from a grid of 256, with signs, in 8 groups of 32, each with a 4-bit scale;
//! 3.0625 bits a weight.
//!
//! ```text
//! bytes 0..2      d: f16
//! bytes 2..66     qs[64]       point p = 0 .. 63: its index in the grid
//! bytes 66..98    signs[8]: u32   group g = 0 .. 7:
//!                   bits 7 l .. 7 l + 7   signs of points 8 g + 2 l and 8 g + 2 l + 1 but the eighth,
//!                                         which makes their number even,   l = 0 .. 3
//!                   bits 28 .. 32         sc[g]
//!
//! w[i] = (d * (0.5 + sc[i / 32]) * 0.5) * (+- grid[index][i % 4])
//! ```

use super::fast::{Groups, Scale};
use super::iq2_xxs::{from_points, pack_even_signs};
use super::{Block, Codes, GgmlType, Superblock, bits, grids};
use crate::simd::Isa;

/// Eight coordinates from two points of four.
#[inline(always)]
pub(crate) fn two_points(a: &[i8; 4], b: &[i8; 4]) -> [i8; 8] {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (*a, *b);
    [a0, a1, a2, a3, b0, b1, b2, b3]
}

/// 256 weights of type `iq3_xxs`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Iq3Xxs {
    d: [u8; 2],
    qs: [u8; 64],
    signs: [[u8; 4]; 8],
}

impl Iq3Xxs {
    /// A block with this scale; `group` gives each group's points, their signs, and the code of its scale.
    pub(crate) fn pack<'a>(d: [u8; 2], group: impl Fn(usize) -> (&'a [u16; 8], &'a [u8; 4], u8)) -> Self {
        let qs = core::array::from_fn(|p| group(p / 8).0[p % 8] as u8);
        let signs = core::array::from_fn(|g| {
            let (_, signs, scale) = group(g);
            pack_even_signs(signs, scale)
        });
        Self { d, qs, signs }
    }

    /// The points of each group, four in an integer.
    #[inline(always)]
    fn points(&self) -> [[u32; 2]; 8] {
        bytemuck::cast::<_, [[[u8; 4]; 2]; 8]>(self.qs).map(|group| group.map(u32::from_le_bytes))
    }

    /// The weights of group `g` (0 to 7) in units of its scale, -62 to 62, and `sc`, 0 to 15.
    pub(crate) fn group(&self, g: usize) -> ([i8; 32], u8) {
        let signs = u32::from_le_bytes(self.signs[g]);
        let point = |p: usize| &grids::IQ3_XXS[usize::from(self.qs[p])];
        let levels = from_points(|l| {
            let p = 8 * g + 2 * l;
            grids::signed(&two_points(point(p), point(p + 1)), grids::even_signs(signs >> (7 * l)))
        });
        (levels, (signs >> 28) as u8)
    }
}

impl Block for Iq3Xxs {
    const TYPE: GgmlType = GgmlType::IQ3_XXS;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            let (levels, scale) = self.group(g);
            let scale = d * (0.5 + f32::from(scale)) * 0.5;
            for (w, level) in out.iter_mut().zip(levels) {
                *w = scale * f32::from(level);
            }
        }
    }
}

impl Superblock for Iq3Xxs {
    const CODES: Codes = Codes::Unsigned(126);
    const OFFSET: i16 = 64;
    const SIGNS: bool = true;
    const GROUP: usize = 32;
    const CROSSED: bool = true;
    const UNIT: f32 = 0.25;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        isa.fours_of_bytes(&grids::IQ3_XXS, self.points()[part])
    }
    #[inline(always)]
    fn load_two<I: Isa>(&self, isa: I, pair: usize) -> [I::Bytes; 2] {
        let [[a0, a1], [b0, b1]] = self.points().as_chunks::<2>().0[pair];
        [isa.fours_of_bytes(&grids::IQ3_XXS, [a0, b0]), isa.fours_of_bytes(&grids::IQ3_XXS, [a1, b1])]
    }
    #[inline(always)]
    fn signs<I: Isa>(&self, isa: I) -> I::Bytes {
        grids::even_signs_of(isa, isa.sevens(isa.bytes(&bytemuck::cast(self.signs))))
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of32(self.signs.map(|[_, _, _, last]| 2 * (last >> 4) as i8 + 1))
    }
    #[inline(always)]
    fn load_scales<I: Isa>(&self, isa: I) -> I::Shorts {
        isa.odd_uppermost(isa.bytes(&bytemuck::cast(self.signs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOURS: Iq3Xxs = Iq3Xxs { d: [0x00, 0x44], qs: [0; 64], signs: [[0; 4]; 8] };

    #[test]
    fn signs_span_two_points() {
        // d = 4, scale 1; in group 1, sign bits 0b001_0001 of weights 24 to 31: the first and the fifth.
        let mut block = FOURS;
        block.signs[1] = (0b001_0001_u32 << 21).to_le_bytes();
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [4.0; 256];
        (expected[56], expected[60]) = (-4.0, -4.0);
        assert_eq!(out, expected);
    }

    #[test]
    fn points_are_four_weights() {
        // Point 63 has index 1: (20, 4, 4, 4); its group has scale (0.5 + 1) * 0.5 * 4 = 3.
        let mut block = FOURS;
        (block.qs[63], block.signs[7][3]) = (1, 0x10);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        assert_eq!(out[..224], [4.0; 224]);
        assert_eq!(out[224..252], [12.0; 28]);
        assert_eq!(out[252..], [60.0, 12.0, 12.0, 12.0]);
    }
}
