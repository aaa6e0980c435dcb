//! TQ2_0: 256 ternary weights in 2 bits each with one scale; 2.0625 bits a weight.
//!
//! ```text
//! bytes 0..64    qs[64]   for each half h = 0, 1, quarter k = 0 .. 3 and j = 0 .. 31:
//!                           qs[32 h + j][2 k .. 2 k + 2] = q[128 h + 32 k + j]
//! bytes 64..66   d: f16
//!
//! w[i] = (q[i] - 1) * d      code 3, which ggml never writes, is 2 d
//! ```

use super::fast::{Groups, Scale};
use super::{Block, Codes, GgmlType, Superblock, bits, q2_k};
use crate::simd::Isa;

/// 256 weights of type `tq2_0`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Tq2_0 {
    qs: [u8; 64],
    d: [u8; 2],
}

impl Tq2_0 {
    /// A block with this scale and these codes.
    pub(crate) fn pack(d: [u8; 2], codes: &[u8; 256]) -> Self {
        Self { qs: q2_k::pack_two_bits(codes), d }
    }

    /// The codes `q`, 0 to 3, of the 32 weights from `32 * g` on (`g` from 0 to 7).
    pub(crate) fn codes(&self, g: usize) -> [u8; 32] {
        q2_k::two_bit_codes(&self.qs, g)
    }
}

impl Block for Tq2_0 {
    const TYPE: GgmlType = GgmlType::TQ2_0;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (g, out) in (0..8).zip(out.chunks_mut(32)) {
            for (w, q) in out.iter_mut().zip(self.codes(g)) {
                *w = (f32::from(q) - 1.0) * d;
            }
        }
    }
}

impl Superblock for Tq2_0 {
    const CODES: Codes = Codes::Unsigned(3);
    const OFFSET: i16 = 1;
    const GROUP: usize = 32;
    const SCALES: bool = false;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        q2_k::load_two_bits(isa, &self.qs, part)
    }
    #[inline(always)]
    fn scale(&self) -> Scale<'_> {
        Scale::Half(&self.d)
    }
    #[inline(always)]
    fn group_scales(&self) -> Groups {
        Groups::Of32([1; 8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_feeds_weights_32_apart() {
        // d = 1; byte 63 holds codes 0, 1, 2, 3 of weights 159, 191, 223, 255; all others have code 1.
        let mut block = Tq2_0 { qs: [0x55; 64], d: [0x00, 0x3c] };
        block.qs[63] = 0b11_10_01_00;
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [0.0; 256];
        (expected[159], expected[223], expected[255]) = (-1.0, 1.0, 2.0);
        assert_eq!(out, expected);
    }

    #[test]
    fn scale_comes_last() {
        let mut bytes = [0_u8; 66];
        bytes[65] = 0xc0;
        let mut out = [f32::NAN; 256];
        bytemuck::from_bytes::<Tq2_0>(&bytes).dequantize(&mut out);
        assert_eq!(out, [2.0; 256]);
    }
}
