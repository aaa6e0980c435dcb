//! Q4_K: 256 weights of 4 bits in 8 groups of 32, each with a 6-bit scale and a 6-bit minimum; 4.5 bits a weight.
//!
//! ```text
//! bytes 0..2      d: f16      scale of the scales
//! bytes 2..4      dmin: f16   scale of the minimums
//! bytes 4..16     scales[12]  8 scales sc and 8 minimums m of 6 bits; g = 0, 1, 2, 3:
//!                   scales[g]:     sc[g]               in bits 0..6, sc[g + 4]'s upper 2 bits in 6..8
//!                   scales[g + 4]: m[g]                in bits 0..6, m[g + 4]'s upper 2 bits in 6..8
//!                   scales[g + 8]: sc[g + 4]'s lower 4 bits in 0..4, m[g + 4]'s lower 4 bits in 4..8
//! bytes 16..144   qs[128]     for each p = 0, 1, 2, 3 (a pair of groups), j = 0 .. 31:
//!                   qs[32 p + j][0..4] = q[64 p + j]        group 2 p
//!                   qs[32 p + j][4..8] = q[64 p + 32 + j]   group 2 p + 1
//!
//! w[i] = (d * sc[g]) * q[i] - (dmin * m[g]),   g = i / 32
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits};
use crate::simd::Isa;

/// 256 weights of type `q4_K`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q4K {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: [u8; 12],
    qs: [u8; 128],
}

/// The 8 scales and the 8 minimums, 0 to 63, of Q4_K and Q5_K.
#[inline(always)]
pub(crate) fn scales_and_mins(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    // Four bytes at a time: the first four groups, then the last four.
    let [scale, min, low] = [0, 1, 2].map(|i| u32::from_le_bytes(packed.as_chunks().0[i]));
    let eight = |first: u32, last: u32| (u64::from(first) | u64::from(last) << 32).to_le_bytes();
    let upper = |from: u32| from >> 2 & 0x3030_3030;
    (
        eight(scale & 0x3f3f_3f3f, low & 0x0f0f_0f0f | upper(scale)),
        eight(min & 0x3f3f_3f3f, low >> 4 & 0x0f0f_0f0f | upper(min)),
    )
}

/// The lower four bits of the codes of group `g` (0 to 7) of Q4_K and Q5_K.
pub(crate) fn four_bit_codes(qs: &[u8; 128], g: usize) -> [u8; 32] {
    core::array::from_fn(|j| qs[g / 2 * 32 + j] >> (g % 2 * 4) & 0x0f)
}

/// The lower four bits of all codes, as [`four_bit_codes`] finds them.
pub(crate) fn pack_four_bits(codes: &[u8; 256]) -> [u8; 128] {
    core::array::from_fn(|i| {
        let (low, high) = (codes[i / 32 * 64 + i % 32], codes[i / 32 * 64 + 32 + i % 32]);
        low & 0x0f | high << 4
    })
}

/// The scales and minimums of the groups, as [`scales_and_mins`] finds them. Numbers above 63, which only weights out of
/// all proportion give, spill over as they do in ggml.
pub(crate) fn pack_scales_and_mins(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for g in 0..4 {
        packed[g] = scales[g] | scales[g + 4] >> 4 << 6;
        packed[g + 4] = mins[g] | mins[g + 4] >> 4 << 6;
        packed[g + 8] = scales[g + 4] & 0x0f | mins[g + 4] << 4;
    }
    packed
}

/// [`four_bit_codes`] in the words of an instruction set.
#[inline(always)]
pub(super) fn load_four_bits<I: Isa>(isa: I, qs: &[u8; 128], g: usize) -> I::Bytes {
    let pair = isa.bytes(&qs.as_chunks::<32>().0[g / 2]);
    if g.is_multiple_of(2) { isa.field::<0, 0x0f>(pair) } else { isa.field::<4, 0x0f>(pair) }
}

/// The codes of groups `2 pair` and the next, crossed: they are the nibbles of the same bytes.
#[inline(always)]
pub(super) fn load_four_bits_crossed<I: Isa>(isa: I, qs: &[u8; 128], pair: usize) -> [I::Bytes; 2] {
    let [first, last] = &qs.as_chunks::<16>().0.as_chunks::<2>().0[pair];
    [isa.nibbles(first), isa.nibbles(last)]
}

impl Q4K {
    /// A block with these scales of scales and of minimums, packed group scales, and codes.
    pub(crate) fn pack(d: [u8; 2], dmin: [u8; 2], scales: [u8; 12], codes: &[u8; 256]) -> Self {
        Self { d, dmin, scales, qs: pack_four_bits(codes) }
    }

    /// The codes `q`, 0 to 15, of group `g` (0 to 7).
    pub(crate) fn codes(&self, g: usize) -> [u8; 32] {
        four_bit_codes(&self.qs, g)
    }
}

impl Block for Q4K {
    const TYPE: GgmlType = GgmlType::Q4_K;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, dmin) = (bits::f16(self.d), bits::f16(self.dmin));
        let (scales, mins) = scales_and_mins(&self.scales);
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            let (scale, min) = (d * f32::from(scales[g]), dmin * f32::from(mins[g]));
            for (w, q) in out.iter_mut().zip(self.codes(g)) {
                *w = scale * f32::from(q) - min;
            }
        }
    }
}

impl Superblock for Q4K {
    const CODES: Codes = Codes::Unsigned(15);
    const MINS: bool = true;
    const GROUP: usize = 32;
    const CROSSED: bool = true;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        load_four_bits(isa, &self.qs, part)
    }
    #[inline(always)]
    fn load_two<I: Isa>(&self, isa: I, pair: usize) -> [I::Bytes; 2] {
        load_four_bits_crossed(isa, &self.qs, pair)
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of32(bytemuck::cast(scales_and_mins(&self.scales).0))
    }
    #[inline(always)]
    fn min_scale(&self) -> Scale<'_> {
        Scale::Half(&self.dmin)
    }
    #[inline(always)]
    fn group_mins(&self) -> Groups {
        Groups::Of32(bytemuck::cast(scales_and_mins(&self.scales).1))
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
    fn scales_keep_their_upper_bits_elsewhere() {
        // g = 1: sc[1] = 5, m[1] = 63, sc[5] = 0b10_0111, m[5] = 0b01_1010
        let mut packed = [0; 12];
        (packed[1], packed[5], packed[9]) = (0b10_000101, 0b01_111111, 0b1010_0111);
        let (scales, mins) = scales_and_mins(&packed);
        assert_eq!(scales, [0, 5, 0, 0, 0, 0b10_0111, 0, 0]);
        assert_eq!(mins, [0, 63, 0, 0, 0, 0b01_1010, 0, 0]);
    }

    #[test]
    fn weights_are_scaled_and_shifted_by_their_group() {
        // d = 1, dmin = 0.5; group 6 has scale 16 (upper bits of scales[2]), group 2 minimum 3; byte 96 + 7 holds
        // code 9 of weight 199 (group 6, low nibble) and code 4 of weight 231 (group 7).
        let mut block = Q4K { d: [0x00, 0x3c], dmin: [0x00, 0x38], scales: [0; 12], qs: [0; 128] };
        (block.scales[2], block.scales[6], block.qs[103]) = (0x40, 3, 0x49);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [0.0; 256];
        expected[64..96].fill(-1.5);
        expected[199] = 144.0;
        assert_eq!(out, expected);
    }
}
