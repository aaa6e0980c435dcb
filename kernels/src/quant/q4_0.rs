//! Q4_0: 32 weights of 4 bits with one scale; 4.5 bits a weight.
//!
//! ```text
//! bytes 0..2     d: f16
//! bytes 2..18    qs[16]   qs[j][0..4] = q[j]      codes 0 to 15
//!                         qs[j][4..8] = q[j + 16]
//!
//! w[i] = (q[i] - 8) * d
//! ```

use super::fast::Scale;
use super::{Block, Codes, GgmlType, Scaled, bits};
use crate::simd::Isa;

/// 32 weights of type `q4_0`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q4_0 {
    d: [u8; 2],
    qs: [u8; 16],
}

impl Q4_0 {
    /// A block with this scale and these codes.
    pub(crate) fn pack(d: [u8; 2], codes: &[u8; 32]) -> Self {
        Self { d, qs: bits::pack_nibbles(codes) }
    }

    /// The codes `q`, 0 to 15.
    pub(crate) fn codes(&self) -> [u8; 32] {
        bits::nibbles(&self.qs)
    }
}

impl Block for Q4_0 {
    const TYPE: GgmlType = GgmlType::Q4_0;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (w, q) in out.iter_mut().zip(self.codes()) {
            *w = (f32::from(q) - 8.0) * d;
        }
    }
}

impl Scaled for Q4_0 {
    const CODES: Codes = Codes::Unsigned(15);
    const OFFSET: i32 = 8;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, _part: usize) -> I::Bytes {
        isa.nibbles(&self.qs)
    }
    #[inline(always)]
    fn load_two<I: Isa>(isa: I, (a, _): (&Self, usize), (b, _): (&Self, usize)) -> [I::Bytes; 2] {
        isa.nibbles_of_two(&a.qs, &b.qs)
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
    fn low_nibbles_are_the_first_half() {
        // d = 0.5; byte 0 holds codes 15 (weight 0) and 0 (weight 16), all others 8.
        let mut block = Q4_0 { d: [0x00, 0x38], qs: [0x88; 16] };
        block.qs[0] = 0x0f;
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        let mut expected = [0.0; 32];
        (expected[0], expected[16]) = (3.5, -4.0);
        assert_eq!(out, expected);
    }

    #[test]
    fn infinite_scale_makes_the_middle_code_nan() {
        let block = Q4_0 { d: [0x00, 0x7c], qs: [0x80; 16] };
        let mut out = [0.0; 32];
        block.dequantize(&mut out);
        assert!(out[..16].iter().all(|&w| w == f32::NEG_INFINITY));
        assert!(out[16..].iter().all(|w| w.is_nan()));
    }
}
