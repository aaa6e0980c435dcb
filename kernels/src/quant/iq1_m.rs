//! IQ1_M: 256 weights in ternary points of 8 from the grid of IQ1_S, in 16 groups of 16 with a 3-bit scale; each point
//! is shifted up or down by 1/8; 1.75 bits a weight.
//!
//! ```text
//! bytes 0..32     qs[32]           point p = 0 .. 31: lower 8 bits of its index in the grid
//! bytes 32..48    qh[16]           nibble p, lower first: bits 0..3 upper 3 bits of the index
//!                                                         bit 3     set: shift[p] = -1/8, else 1/8
//! bytes 48..56    scales[4]: u16   bits 3 t .. 3 t + 3 of scales[s] = sc[4 s + t],   t = 0 .. 3
//!                                  bits 12 .. 16 of scales[s] = bits 4 s .. 4 s + 4 of d: f16
//!
//! w[i] = (d * (2 sc[i / 16] + 1)) * (grid[index][i % 8] + shift[i / 8])
//! ```

use super::fast::{Groups, Scale};
use super::iq1_s::{SHIFT, shifts_of};
use super::{Block, Codes, GgmlType, Superblock, bits, grids, iq2_xxs::from_points};
use crate::simd::Isa;

/// 256 weights of type `iq1_m`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Iq1M {
    qs: [u8; 32],
    qh: [u8; 16],
    scales: [[u8; 2]; 4],
}

impl Iq1M {
    /// A block with this scale and these codes of the groups' scales; `point` gives each point, and whether it is shifted down.
    pub(crate) fn pack(d: [u8; 2], scales: &[u8; 16], point: impl Fn(usize) -> (u16, bool)) -> Self {
        let (mut qs, mut qh) = ([0; 32], [0; 16]);
        for p in 0..32 {
            let (index, down) = point(p);
            qs[p] = index as u8;
            qh[p / 2] |= ((index >> 8 & 0x07) as u8 | u8::from(down) << 3) << (p % 2 * 4);
        }
        let d = u16::from_le_bytes(d);
        let scales = core::array::from_fn(|s| {
            let above = (d >> (4 * s) & 0x0f) << 12;
            (0..4).fold(above, |all, t| all | u16::from(scales[4 * s + t] & 0x07) << (3 * t)).to_le_bytes()
        });
        Self { qs, qh, scales }
    }

    /// Nibble `p` (0 to 31) of `qh`.
    fn high(&self, p: usize) -> u8 {
        self.qh[p / 2] >> (p % 2 * 4) & 0x0f
    }

    /// The coordinates, -1 to 1, of the 32 weights from `32 * g` on (`g` from 0 to 7).
    pub(crate) fn levels(&self, g: usize) -> [i8; 32] {
        from_points(|l| {
            let p = 4 * g + l;
            grids::IQ1[usize::from(self.qs[p]) | usize::from(self.high(p) & 0x07) << 8]
        })
    }

    /// The shift of point `p` (0 to 31).
    pub(crate) fn shift(&self, p: usize) -> f32 {
        if self.high(p) & 0x08 == 0 { SHIFT } else { -SHIFT }
    }

    /// The scale of the scales, and the scales of the groups of 16, 1 to 15 and odd.
    #[inline(always)]
    pub(crate) fn scales(&self) -> (f32, [u8; 16]) {
        let packed = self.scales.map(u16::from_le_bytes);
        let d = (0..4).fold(0, |d, s| d | packed[s] >> 12 << (4 * s));
        let mut scales = [[0; 4]; 4];
        for (scales, packed) in scales.iter_mut().zip(packed) {
            // Fields of six bits in halves, then of three in bytes.
            let four = u32::from(packed);
            let two = four & 0x3f | four << 10 & 0x003f_0000;
            *scales = (2 * (two & 0x0007_0007 | two << 5 & 0x0700_0700) + 0x0101_0101).to_le_bytes();
        }
        (bits::f16(d.to_le_bytes()), bytemuck::cast(scales))
    }
}

impl Block for Iq1M {
    const TYPE: GgmlType = GgmlType::IQ1_M;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, scales) = self.scales();
        let scales = scales.map(|scale| d * f32::from(scale));
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            for ((j, w), level) in out.iter_mut().enumerate().zip(self.levels(g)) {
                *w = scales[2 * g + j / 16] * (f32::from(level) + self.shift(4 * g + j / 8));
            }
        }
    }
}

impl Superblock for Iq1M {
    const CODES: Codes = Codes::Unsigned(25);
    const OFFSET: i16 = 16;
    const SHIFTS: bool = true;
    const GROUP: usize = 16;
    const UNIT: f32 = SHIFT;

    #[inline(always)]
    fn shifts<I: Isa>(&self, isa: I) -> I::Bytes {
        // Bit 3 of each nibble, in bytes of their own.
        let fours = self.qh.as_chunks::<4>().0;
        let mut down = [0; 4];
        for i in 0..4 {
            let nibbles = bits::widen_four(fours[i]);
            down[i] = (nibbles << 4 | nibbles << 8 & 0xff00_ff00_ff00_ff00).to_le();
        }
        shifts_of(isa, isa.bytes(&bytemuck::cast(down)))
    }
    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        let high = u32::from(u16::from_le_bytes(self.qh.as_chunks().0[part]));
        let mut points = [0; 4];
        for (l, (point, &low)) in points.iter_mut().zip(&self.qs.as_chunks::<4>().0[part]).enumerate() {
            *point = usize::from(low) | ((high >> (4 * l) & 7) as usize) << 8;
        }
        isa.eights(&grids::IQ1_EIGHTHS, points)
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Float(self.scales().0)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of16(self.scales().1.map(|scale| scale as i8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// d = 1.5 (0x3e00), all scales 1, all points -1 and shifted up.
    const LOW: Iq1M = Iq1M { qs: [0; 32], qh: [0; 16], scales: [[0, 0], [0, 0], [0, 0xe0], [0, 0x30]] };

    #[test]
    fn scale_lies_in_four_nibbles() {
        let mut block = LOW;
        // sc[6] = 7
        block.scales[1] = 0b0_111_000_000_u16.to_le_bytes();
        let (d, scales) = block.scales();
        let mut expected = [1; 16];
        expected[6] = 15;
        assert_eq!((d, scales), (1.5, expected));
    }

    #[test]
    fn points_shift_by_themselves() {
        // Point 9 (weights 72 to 79) has index 0x7ff, all ones, and is shifted down.
        let mut block = LOW;
        (block.qs[9], block.qh[4]) = (0xff, 0xf0);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [-1.3125; 256];
        expected[72..80].fill(1.3125);
        assert_eq!(out, expected);
    }
}
