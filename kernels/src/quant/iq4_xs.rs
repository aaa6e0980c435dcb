//! IQ4_XS: 256 weights of 4 bits that choose from the levels of IQ4_NL, in 8 groups of 32, each with a 6-bit scale;
//! 4.25 bits a weight.
//!
//! ```text
//! bytes 0..2      d: f16
//! bytes 2..4      scales_h: u16   scales_h[2 g .. 2 g + 2] = sc[g][4..6],   g = 0 .. 7
//! bytes 4..8      scales_l[4]     scales_l[g / 2] = sc[g][0..4], lower nibble for even g, upper for odd g
//! bytes 8..136    qs[8][16]       qs[g][j][0..4] = q[32 g + j],   j = 0 .. 15
//!                                 qs[g][j][4..8] = q[32 g + 16 + j]
//!
//! w[i] = (d * (sc[i / 32] - 32)) * LEVELS[q[i]]
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits, iq4_nl};
use crate::simd::Isa;

/// 256 weights of type `iq4_xs`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Iq4Xs {
    d: [u8; 2],
    scales_h: [u8; 2],
    scales_l: [u8; 4],
    qs: [[u8; 16]; 8],
}

impl Iq4Xs {
    /// A block with this scale, these group scales (raised by 32: 0 to 63) and codes.
    pub(crate) fn pack(d: [u8; 2], scales: &[u8; 8], codes: &[[u8; 32]; 8]) -> Self {
        let (mut high, mut scales_l) = (0, [0; 4]);
        for (g, &scale) in scales.iter().enumerate() {
            scales_l[g / 2] |= (scale & 0x0f) << (g % 2 * 4);
            high |= u16::from(scale >> 4) << (2 * g);
        }
        let qs = codes.each_ref().map(bits::pack_nibbles);
        Self { d, scales_h: high.to_le_bytes(), scales_l, qs }
    }

    fn head(&self) -> &[u8; 8] {
        bytemuck::bytes_of(self).first_chunk().unwrap_or(&[0; 8])
    }
}

/// The scales of the groups, already less 32: -32 to 31, from the bytes before the codes.
#[inline(always)]
pub(crate) fn scales(head: &[u8; 8]) -> [i8; 8] {
    let [_, _, high_0, high_1, low @ ..] = *head;
    // Each group's bits move to a byte of its own, half the way at each step.
    let mut low = u64::from(u32::from_le_bytes(low));
    low = (low | low << 16) & 0x0000_ffff_0000_ffff;
    low = (low | low << 8) & 0x00ff_00ff_00ff_00ff;
    low = (low | low << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let mut high = u64::from(u16::from_le_bytes([high_0, high_1]));
    high = (high | high << 24) & 0x0000_00ff_0000_00ff;
    high = (high | high << 12) & 0x000f_000f_000f_000f;
    high = (high | high << 6) & 0x0303_0303_0303_0303;
    // All bytes at once, which the compiler would take apart: 32 less is 96 more with another sign.
    let less_32 = ((low | high << 4) + 0x6060_6060_6060_6060) ^ 0x8080_8080_8080_8080;
    less_32.to_le_bytes().map(|scale| scale as i8)
}

impl Block for Iq4Xs {
    const TYPE: GgmlType = GgmlType::IQ4_XS;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        let groups = scales(self.head()).into_iter().zip(&self.qs);
        for ((scale, qs), out) in groups.zip(out.chunks_mut(32)) {
            let scale = d * f32::from(scale);
            for (w, level) in out.iter_mut().zip(iq4_nl::levels(qs)) {
                *w = scale * f32::from(level);
            }
        }
    }
}

impl Superblock for Iq4Xs {
    const CODES: Codes = Codes::Signed;
    const GROUP: usize = 32;
    const CROSSED: bool = true;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        isa.lookup(&iq4_nl::LEVELS, isa.nibbles(&self.qs[part]))
    }
    #[inline(always)]
    fn load_two<I: Isa>(&self, isa: I, pair: usize) -> [I::Bytes; 2] {
        let both = isa.bytes(bytemuck::cast_ref(&self.qs.as_chunks::<2>().0[pair]));
        let (first, last) = (isa.field::<0, 0x0f>(both), isa.field::<4, 0x0f>(both));
        [isa.lookup(&iq4_nl::LEVELS, first), isa.lookup(&iq4_nl::LEVELS, last)]
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of32(scales(self.head()))
    }
    #[inline(always)]
    fn load_scales<I: Isa>(&self, isa: I) -> I::Shorts {
        isa.eight_scales(self.head())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NULL: Iq4Xs = Iq4Xs { d: [0x00, 0x3c], scales_h: [0xaa; 2], scales_l: [0; 4], qs: [[0x88; 16]; 8] };

    #[test]
    fn scales_are_put_together_from_two_fields() {
        // sc[3] = 0b11_0101, sc[6] = 0b00_0001, the others 32
        let mut block = NULL;
        block.scales_h = 0b10_00_10_10_11_10_10_10_u16.to_le_bytes();
        (block.scales_l[1], block.scales_l[3]) = (0x50, 0x01);
        assert_eq!(scales(block.head()), [0, 0, 0, 21, 0, 0, -31, 0]);
    }

    #[test]
    fn groups_scale_levels() {
        // Group 1 has scale 2, and in byte 4 codes 0 (weight 36, -127) and 15 (weight 52, 113); else code 8 (1).
        let mut block = NULL;
        (block.scales_l[0], block.qs[1][4]) = (0x20, 0xf0);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [0.0; 256];
        expected[32..64].fill(2.0);
        (expected[36], expected[52]) = (-254.0, 226.0);
        assert_eq!(out, expected);
    }
}
