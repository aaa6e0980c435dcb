//! IQ1_S: 256 weights in ternary points of 8 from a grid of 2048, in 8 groups of 32, each with a 3-bit scale and a
//! shift up or down by 1/8; 1.5625 bits a weight.
//!
//! ```text
//! bytes 0..2      d: f16
//! bytes 2..34     qs[32]       point p = 0 .. 31: lower 8 bits of its index in the grid
//! bytes 34..50    qh[8]: u16   group g = 0 .. 7, its points l = 0 .. 3:
//!                   bits 3 l .. 3 l + 3   upper 3 bits of the index of point 4 g + l
//!                   bits 12 .. 15         sc[g]
//!                   bit 15                set: shift -1/8, else 1/8
//!
//! w[i] = (d * (2 sc[i / 32] + 1)) * (grid[index][i % 8] + shift)
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits, grids, iq2_xxs::from_points};
use crate::simd::Isa;

/// By how much IQ1_S and IQ1_M shift the points.
pub(crate) const SHIFT: f32 = 0.125;

/// What is added to [`grids::IQ1_EIGHTHS`], with the offset: 9 for a shift up by an eighth; 7 for down, where bit 7 of the byte is set.
#[inline(always)]
pub(super) fn shifts_of<I: Isa>(isa: I, down: I::Bytes) -> I::Bytes {
    isa.sub_bytes(isa.splat_byte(9), isa.field::<6, 0x02>(down))
}

/// 256 weights of type `iq1_s`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Iq1S {
    d: [u8; 2],
    qs: [u8; 32],
    qh: [[u8; 2]; 8],
}

impl Iq1S {
    /// A block with this scale and these codes of the groups' scales; `group` gives each group's points, and whether they are
    /// shifted down.
    pub(crate) fn pack<'a>(
        d: [u8; 2],
        scales: &[u8; 8],
        group: impl Fn(usize) -> (&'a [u16; 4], bool),
    ) -> Self {
        let qs = core::array::from_fn(|p| group(p / 4).0[p % 4] as u8);
        let qh = core::array::from_fn(|g| {
            let (points, down) = group(g);
            let above = u16::from(down) << 15 | u16::from(scales[g] & 0x07) << 12;
            (0..4).fold(above, |qh, l| qh | (points[l] >> 8 & 0x07) << (3 * l)).to_le_bytes()
        });
        Self { d, qs, qh }
    }

    /// The coordinates, -1 to 1, of the weights of group `g` (0 to 7); its scale, 1 to 15 and odd; its shift.
    pub(crate) fn group(&self, g: usize) -> ([i8; 32], u8, f32) {
        let qh = u16::from_le_bytes(self.qh[g]);
        let levels = from_points(|l| {
            let high = usize::from(qh >> (3 * l) & 0x07);
            grids::IQ1[usize::from(self.qs[4 * g + l]) | high << 8]
        });
        (levels, 2 * (qh >> 12 & 0x07) as u8 + 1, if qh >> 15 == 1 { -SHIFT } else { SHIFT })
    }
}

impl Block for Iq1S {
    const TYPE: GgmlType = GgmlType::IQ1_S;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            let (levels, scale, shift) = self.group(g);
            let scale = d * f32::from(scale);
            for (w, level) in out.iter_mut().zip(levels) {
                *w = scale * (f32::from(level) + shift);
            }
        }
    }
}

impl Superblock for Iq1S {
    const CODES: Codes = Codes::Unsigned(25);
    const OFFSET: i16 = 16;
    const SHIFTS: bool = true;
    const GROUP: usize = 32;
    const UNIT: f32 = SHIFT;

    #[inline(always)]
    fn shifts<I: Isa>(&self, isa: I) -> I::Bytes {
        shifts_of(isa, isa.bytes(&bytemuck::cast(self.qh.map(|[_, upper]| [upper; 4]))))
    }
    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        let (qs, qh) = (&self.qs.as_chunks::<4>().0[part], u16::from_le_bytes(self.qh[part]));
        let high = usize::from(qh) << 8;
        let mut points = [0; 4];
        for (l, (point, &low)) in points.iter_mut().zip(qs).enumerate() {
            *point = usize::from(low) | high >> (3 * l) & 0x700;
        }
        isa.eights(&grids::IQ1_EIGHTHS, points)
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of32(self.qh.map(|[_, upper]| (upper >> 3 & 0x0e) as i8 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn point_zero_is_all_minus_one() {
        let block = Iq1S { d: [0x00, 0x3c], qs: [0; 32], qh: [[0; 2]; 8] };
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        assert_eq!(out, [-0.875; 256]);
    }

    #[test]
    fn upper_byte_holds_scale_and_shift() {
        // Group 3: all its points have index 0x7ff, all ones; scale 15, shift down.
        let mut block = Iq1S { d: [0x00, 0x3c], qs: [0; 32], qh: [[0; 2]; 8] };
        block.qs[12..16].fill(0xff);
        block.qh[3] = [0xff, 0xff];
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [-0.875; 256];
        expected[96..128].fill(13.125);
        assert_eq!(out, expected);
    }
}
