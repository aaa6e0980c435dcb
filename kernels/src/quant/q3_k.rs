//! Q3_K: 256 weights of 3 bits in 16 groups of 16, each with a 6-bit scale; 3.4375 bits a weight.
//!
//! ```text
//! bytes 0..32      hmask[32]   third bits: hmask[j][g] = q[32 g + j][2],   g = 0 .. 7
//! bytes 32..96     qs[64]      for each half h = 0, 1, quarter k = 0 .. 3 and j = 0 .. 31:
//!                                qs[32 h + j][2 k .. 2 k + 2] = q[128 h + 32 k + j][0..2]
//! bytes 96..108    scales[12]  16 scales sc of 6 bits, t = 0 .. 15:
//!                                sc[t][0..4] in scales[t % 8], lower nibble for t < 8, else the upper
//!                                sc[t][4..6] in scales[8 + t % 4], from bit 2 (t / 4) on
//! bytes 108..110   d: f16
//!
//! w[i] = (d * (sc[i / 16] - 32)) * (q[i] - 4)
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits, q2_k};
use crate::simd::Isa;

/// 256 weights of type `q3_K`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q3K {
    hmask: [u8; 32],
    qs: [u8; 64],
    scales: [u8; 12],
    d: [u8; 2],
}

impl Q3K {
    /// A block with this scale, these group scales (raised by 32: 0 to 63) and codes.
    pub(crate) fn pack(d: [u8; 2], scales: &[u8; 16], codes: &[u8; 256]) -> Self {
        let mut packed = [0; 12];
        for (t, scale) in scales.iter().enumerate() {
            packed[t % 8] |= (scale & 0x0f) << (t / 8 * 4);
            packed[8 + t % 4] |= scale >> 4 << (t / 4 * 2);
        }
        let mut hmask = [0; 32];
        for (i, code) in codes.iter().enumerate() {
            hmask[i % 32] |= (code >> 2 & 1) << (i / 32);
        }
        Self { hmask, qs: q2_k::pack_two_bits(codes), scales: packed, d }
    }

    /// The codes `q`, 0 to 7, of the 32 weights from `32 * g` on (`g` from 0 to 7).
    pub(crate) fn codes(&self, g: usize) -> [u8; 32] {
        let low = q2_k::two_bit_codes(&self.qs, g);
        core::array::from_fn(|j| low[j] | (self.hmask[j] >> g & 1) << 2)
    }
}

/// The scales of the groups of 16, already less 32: -32 to 31.
#[inline(always)]
pub(crate) fn scales(packed: &[u8; 12]) -> [i8; 16] {
    // Four groups at a time, a byte each.
    let [a, b, upper] = bytemuck::cast::<_, [[u8; 4]; 3]>(*packed).map(u32::from_le_bytes);
    let scales: [u32; 4] = core::array::from_fn(|t| {
        let low = [a, b][t % 2] >> (t / 2 * 4) & 0x0f0f_0f0f;
        low | (upper >> (2 * t) & 0x0303_0303) << 4
    });
    bytemuck::cast::<_, [i8; 16]>(scales.map(u32::to_le_bytes)).map(|scale| scale - 32)
}

impl Block for Q3K {
    const TYPE: GgmlType = GgmlType::Q3_K;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        let scales = scales(&self.scales).map(|scale| d * f32::from(scale));
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            for ((j, w), q) in out.iter_mut().enumerate().zip(self.codes(g)) {
                *w = scales[2 * g + j / 16] * (f32::from(q) - 4.0);
            }
        }
    }
}

impl Superblock for Q3K {
    const CODES: Codes = Codes::Unsigned(7);
    const OFFSET: i16 = 4;
    const GROUP: usize = 16;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        let low = q2_k::load_two_bits(isa, &self.qs, part);
        let third = isa.bytes(&self.hmask);
        let third = match part {
            0 => isa.raise::<2>(isa.field::<0, 0x01>(third)),
            1 => isa.raise::<1>(isa.field::<0, 0x02>(third)),
            2 => isa.field::<0, 0x04>(third),
            3 => isa.field::<1, 0x04>(third),
            4 => isa.field::<2, 0x04>(third),
            5 => isa.field::<3, 0x04>(third),
            6 => isa.field::<4, 0x04>(third),
            _ => isa.field::<5, 0x04>(third),
        };
        isa.or(low, third)
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of16(scales(&self.scales))
    }
    #[inline(always)]
    fn load_groups<I: Isa>(&self, isa: I) -> [I::Shorts; 2] {
        isa.sixteen_scales(&self.scales)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NULL: Q3K = Q3K { hmask: [0xff; 32], qs: [0; 64], scales: [0; 12], d: [0x00, 0x3c] };

    #[test]
    fn scales_are_put_together_from_two_bytes() {
        let mut block = NULL;
        // sc[5] = 0b10_0011, sc[13] = 0b01_1001; the others 0
        (block.scales[5], block.scales[9]) = (0b1001_0011, 0b01_00_10_00);
        let mut expected = [-32; 16];
        (expected[5], expected[13]) = (0b10_0011 - 32, 0b01_1001 - 32);
        assert_eq!(scales(&block.scales), expected);
    }

    #[test]
    fn missing_third_bit_takes_four() {
        // All scales are -32. Weight 32 * 6 + 9 lacks its third bit and has low bits 3: code 3.
        let mut block = NULL;
        block.hmask[9] = 0b1011_1111;
        block.qs[32 + 9] = 0b11 << 4;
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [0.0; 256];
        expected[201] = 32.0;
        assert_eq!(out, expected);
    }
}
