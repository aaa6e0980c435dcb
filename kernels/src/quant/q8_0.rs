//! Q8_0: 32 weights of 8 bits with one scale; 8.5 bits a weight.
//!
//! ```text
//! bytes 0..2     d: f16
//! bytes 2..34    qs[32]: i8   qs[i] = q[i], codes -128 to 127
//!
//! w[i] = q[i] * d
//! ```

use super::fast::Scale;
use super::{Block, Codes, GgmlType, Scaled, bits};
use crate::simd::Isa;

/// 32 weights of type `q8_0`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q8_0 {
    d: [u8; 2],
    qs: [i8; 32],
}

impl Q8_0 {
    /// A block with this scale and these codes.
    pub(crate) fn pack(d: [u8; 2], qs: [i8; 32]) -> Self {
        Self { d, qs }
    }
}

impl Block for Q8_0 {
    const TYPE: GgmlType = GgmlType::Q8_0;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (w, q) in out.iter_mut().zip(self.qs) {
            *w = f32::from(q) * d;
        }
    }
}

impl Scaled for Q8_0 {
    const CODES: Codes = Codes::Signed;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, _part: usize) -> I::Bytes {
        isa.signed_bytes(&self.qs)
    }
    #[inline(always)]
    fn scale(&self, _: usize) -> Scale<'_> {
        Scale::Half(&self.d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_signed() {
        // d = 0.25
        let mut block = Q8_0 { d: [0x00, 0x34], qs: [0; 32] };
        (block.qs[1], block.qs[30], block.qs[31]) = (-128, 127, -1);
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        let mut expected = [0.0; 32];
        (expected[1], expected[30], expected[31]) = (-32.0, 31.75, -0.25);
        assert_eq!(out, expected);
    }

    #[test]
    fn negative_scale_turns_the_sign() {
        let block = Q8_0 { d: [0x00, 0xc0], qs: [3; 32] };
        let mut out = [0.0; 32];
        block.dequantize(&mut out);
        assert_eq!(out, [-6.0; 32]);
    }
}
