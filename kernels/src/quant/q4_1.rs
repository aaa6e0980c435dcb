//! Q4_1: 32 weights of 4 bits with one scale and one minimum; 5 bits a weight.
//!
//! ```text
//! bytes 0..2     d: f16
//! bytes 2..4     m: f16   the smallest weight
//! bytes 4..20    qs[16]   qs[j][0..4] = q[j]      codes 0 to 15
//!                         qs[j][4..8] = q[j + 16]
//!
//! w[i] = q[i] * d + m
//! ```

use super::fast::Scale;
use super::{Block, Codes, GgmlType, Scaled, bits};
use crate::simd::Isa;

/// 32 weights of type `q4_1`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q4_1 {
    d: [u8; 2],
    m: [u8; 2],
    qs: [u8; 16],
}

impl Q4_1 {
    /// A block with this scale, this minimum and these codes.
    pub(crate) fn pack(d: [u8; 2], m: [u8; 2], codes: &[u8; 32]) -> Self {
        Self { d, m, qs: bits::pack_nibbles(codes) }
    }

    /// The codes `q`, 0 to 15.
    pub(crate) fn codes(&self) -> [u8; 32] {
        bits::nibbles(&self.qs)
    }
}

impl Block for Q4_1 {
    const TYPE: GgmlType = GgmlType::Q4_1;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, m) = (bits::f16(self.d), bits::f16(self.m));
        for (w, q) in out.iter_mut().zip(self.codes()) {
            *w = f32::from(q) * d + m;
        }
    }
}

impl Scaled for Q4_1 {
    const CODES: Codes = Codes::Unsigned(15);
    const MINS: bool = true;

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
    #[inline(always)]
    fn min(&self) -> Scale<'_> {
        Scale::Half(&self.m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_zero_is_the_minimum() {
        // d = 2, m = -1.5
        let mut block = Q4_1 { d: [0x00, 0x40], m: [0x00, 0xbe], qs: [0; 16] };
        block.qs[15] = 0xf1;
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        let mut expected = [-1.5; 32];
        (expected[15], expected[31]) = (0.5, 28.5);
        assert_eq!(out, expected);
    }

    #[test]
    fn product_is_rounded_before_the_minimum_is_added() {
        // 3 * 1365/4096 - 1 = -1/4096 in f32; both steps are exact, and so is their sum.
        let block = Q4_1 { d: [0x55, 0x35], m: [0x00, 0xbc], qs: [0x33; 16] };
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        assert_eq!(out, [-1.0 / 4096.0; 32]);
    }
}
