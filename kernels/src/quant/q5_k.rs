//! Q5_K: 256 weights of 5 bits in 8 groups of 32, each with a 6-bit scale and a 6-bit minimum; 5.5 bits a weight.
//!
//! ```text
//! bytes 0..2      d: f16      scale of the scales
//! bytes 2..4      dmin: f16   scale of the minimums
//! bytes 4..16     scales[12]  8 scales sc and 8 minimums m, packed as in Q4_K
//! bytes 16..48    qh[32]      fifth bits: qh[j][g] = q[32 g + j][4],   g = 0 .. 7
//! bytes 48..176   qs[128]     the lower four, packed as in Q4_K
//!
//! w[i] = (d * sc[g]) * q[i] - (dmin * m[g]),   g = i / 32
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits, q4_k};
use crate::simd::Isa;

/// 256 weights of type `q5_K`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q5K {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: [u8; 12],
    qh: [u8; 32],
    qs: [u8; 128],
}

impl Q5K {
    /// A block with these scales of scales and of minimums, packed group scales, and codes.
    pub(crate) fn pack(d: [u8; 2], dmin: [u8; 2], scales: [u8; 12], codes: &[u8; 256]) -> Self {
        let mut qh = [0; 32];
        for (i, code) in codes.iter().enumerate() {
            qh[i % 32] |= (code >> 4 & 1) << (i / 32);
        }
        Self { d, dmin, scales, qh, qs: q4_k::pack_four_bits(codes) }
    }

    /// The codes `q`, 0 to 31, of group `g` (0 to 7).
    pub(crate) fn codes(&self, g: usize) -> [u8; 32] {
        let low = q4_k::four_bit_codes(&self.qs, g);
        core::array::from_fn(|j| low[j] | (self.qh[j] >> g & 1) << 4)
    }
}

impl Block for Q5K {
    const TYPE: GgmlType = GgmlType::Q5_K;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, dmin) = (bits::f16(self.d), bits::f16(self.dmin));
        let (scales, mins) = q4_k::scales_and_mins(&self.scales);
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            let (scale, min) = (d * f32::from(scales[g]), dmin * f32::from(mins[g]));
            for (w, q) in out.iter_mut().zip(self.codes(g)) {
                *w = scale * f32::from(q) - min;
            }
        }
    }
}

impl Superblock for Q5K {
    const CODES: Codes = Codes::Unsigned(31);
    const MINS: bool = true;
    const GROUP: usize = 32;
    const CROSSED: bool = true;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        let low = q4_k::load_four_bits(isa, &self.qs, part);
        let fifth = isa.bytes(&self.qh);
        let fifth = match part {
            0 => isa.raise::<4>(isa.field::<0, 0x01>(fifth)),
            1 => isa.raise::<3>(isa.field::<0, 0x02>(fifth)),
            2 => isa.raise::<2>(isa.field::<0, 0x04>(fifth)),
            3 => isa.raise::<1>(isa.field::<0, 0x08>(fifth)),
            4 => isa.field::<0, 0x10>(fifth),
            5 => isa.field::<1, 0x10>(fifth),
            6 => isa.field::<2, 0x10>(fifth),
            _ => isa.field::<3, 0x10>(fifth),
        };
        isa.or(low, fifth)
    }
    #[inline(always)]
    fn load_two<I: Isa>(&self, isa: I, pair: usize) -> [I::Bytes; 2] {
        let mut codes = q4_k::load_four_bits_crossed(isa, &self.qs, pair);
        for (codes, fifth) in codes.iter_mut().zip(self.qh.as_chunks().0) {
            let fifth = isa.twice(fifth);
            let fifth = match pair {
                0 => isa.fields_of_halves::<-4, -3, 0x10>(fifth),
                1 => isa.fields_of_halves::<-2, -1, 0x10>(fifth),
                2 => isa.fields_of_halves::<0, 1, 0x10>(fifth),
                _ => isa.fields_of_halves::<2, 3, 0x10>(fifth),
            };
            *codes = isa.or(*codes, fifth);
        }
        codes
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of32(bytemuck::cast(q4_k::scales_and_mins(&self.scales).0))
    }
    #[inline(always)]
    fn min_scale(&self) -> Scale<'_> {
        Scale::Half(&self.dmin)
    }
    #[inline(always)]
    fn group_mins(&self) -> Groups {
        Groups::Of32(bytemuck::cast(q4_k::scales_and_mins(&self.scales).1))
    }
    #[inline(always)]
    fn load_groups<I: Isa>(&self, isa: I) -> [I::Shorts; 2] {
        [isa.eight_scales_and_mins(&self.scales); 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifth_bits_of_a_byte_lie_32_apart() {
        let mut block = Q5K { d: [0; 2], dmin: [0; 2], scales: [0; 12], qh: [0; 32], qs: [0; 128] };
        (block.qh[7], block.qs[96 + 7]) = (0b1100_0000, 0x2f);
        assert_eq!((block.codes(6)[7], block.codes(7)[7], block.codes(5)[7]), (31, 18, 0));
    }

    #[test]
    fn weights_are_scaled_and_shifted_by_their_group() {
        // d = 2, dmin = 1; group 0 has scale 3 and minimum 5; all codes 16.
        let mut block =
            Q5K { d: [0x00, 0x40], dmin: [0x00, 0x3c], scales: [0; 12], qh: [0xff; 32], qs: [0; 128] };
        (block.scales[0], block.scales[4]) = (3, 5);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [0.0; 256];
        expected[..32].fill(91.0);
        assert_eq!(out, expected);
    }
}
