//! Q2_K: 256 weights of 2 bits in 16 groups of 16, each with a 4-bit scale and a 4-bit minimum; 2.625 bits a weight.
//!
//! ```text
//! bytes 0..16     scales[16]  scales[g][0..4] = sc[g], scales[g][4..8] = m[g]
//! bytes 16..80    qs[64]      for each half h = 0, 1, quarter k = 0 .. 3 and j = 0 .. 31:
//!                               qs[32 h + j][2 k .. 2 k + 2] = q[128 h + 32 k + j]
//! bytes 80..82    d: f16      scale of the scales
//! bytes 82..84    dmin: f16   scale of the minimums
//!
//! w[i] = (d * sc[g]) * q[i] - (dmin * m[g]),   g = i / 16
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits};
use crate::simd::Isa;

/// The 32 two-bit codes from weight `32 * g` on, in the order of Q2_K, Q3_K and TQ2_0: a byte holds the codes of
/// four weights that lie 32 apart.
pub(crate) fn two_bit_codes(qs: &[u8; 64], g: usize) -> [u8; 32] {
    core::array::from_fn(|j| (qs[g / 4 * 32 + j] >> (g % 4 * 2)) & 0x03)
}

/// The lower two bits of all codes, as [`two_bit_codes`] finds them.
pub(crate) fn pack_two_bits(codes: &[u8; 256]) -> [u8; 64] {
    let mut qs = [0; 64];
    for (half, qs) in codes.as_chunks::<128>().0.iter().zip(qs.as_chunks_mut::<32>().0) {
        for j in 0..32 {
            qs[j] = (0..4).fold(0, |byte, k| byte | (half[32 * k + j] & 0x03) << (2 * k));
        }
    }
    qs
}

/// [`two_bit_codes`] in the words of an instruction set.
#[inline(always)]
pub(super) fn load_two_bits<I: Isa>(isa: I, qs: &[u8; 64], g: usize) -> I::Bytes {
    let four = isa.bytes(&qs.as_chunks::<32>().0[g / 4]);
    match g % 4 {
        0 => isa.field::<0, 0x03>(four),
        1 => isa.field::<2, 0x03>(four),
        2 => isa.field::<4, 0x03>(four),
        _ => isa.field::<6, 0x03>(four),
    }
}

/// 256 weights of type `q2_K`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q2K {
    scales: [u8; 16],
    qs: [u8; 64],
    d: [u8; 2],
    dmin: [u8; 2],
}

impl Q2K {
    /// A block with these scales of scales and of minimums, packed group scales, and codes.
    pub(crate) fn pack(d: [u8; 2], dmin: [u8; 2], scales: [u8; 16], codes: &[u8; 256]) -> Self {
        Self { scales, qs: pack_two_bits(codes), d, dmin }
    }

    /// The codes `q`, 0 to 3, of the 32 weights from `32 * g` on (`g` from 0 to 7).
    pub(crate) fn codes(&self, g: usize) -> [u8; 32] {
        two_bit_codes(&self.qs, g)
    }
}

impl Block for Q2K {
    const TYPE: GgmlType = GgmlType::Q2_K;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, dmin) = (bits::f16(self.d), bits::f16(self.dmin));
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            let scales = [self.scales[2 * g], self.scales[2 * g + 1]]
                .map(|packed| (d * f32::from(packed & 0x0f), dmin * f32::from(packed >> 4)));
            for ((j, w), q) in out.iter_mut().enumerate().zip(self.codes(g)) {
                let (scale, min) = scales[j / 16];
                *w = scale * f32::from(q) - min;
            }
        }
    }
}

impl Superblock for Q2K {
    const CODES: Codes = Codes::Unsigned(3);
    const MINS: bool = true;
    const GROUP: usize = 16;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        load_two_bits(isa, &self.qs, part)
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of16(self.scales.map(|packed| (packed & 0x0f) as i8))
    }
    #[inline(always)]
    fn min_scale(&self) -> Scale<'_> {
        Scale::Half(&self.dmin)
    }
    #[inline(always)]
    fn group_mins(&self) -> Groups {
        Groups::Of16(self.scales.map(|packed| (packed >> 4) as i8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_feeds_weights_32_apart() {
        // d = 1, dmin = 0; all scales 1; qs[32 + 4] = 0b11_10_01_00
        let mut block = Q2K { scales: [1; 16], qs: [0; 64], d: [0x00, 0x3c], dmin: [0; 2] };
        block.qs[36] = 0b11_10_01_00;
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [0.0; 256];
        (expected[164], expected[196], expected[228]) = (1.0, 2.0, 3.0);
        assert_eq!(out, expected);
    }

    #[test]
    fn upper_nibble_is_the_minimum() {
        // d = 0.5, dmin = 0.25; group 3 (weights 48 to 63) has scale 15 and minimum 2; all codes 3.
        let mut block = Q2K { scales: [0; 16], qs: [0xff; 64], d: [0x00, 0x38], dmin: [0x00, 0x34] };
        block.scales[3] = 0x2f;
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [0.0; 256];
        expected[48..64].fill(22.0);
        assert_eq!(out, expected);
    }
}
