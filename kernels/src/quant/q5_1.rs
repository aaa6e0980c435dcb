//! Q5_1: 32 weights of 5 bits with one scale and one minimum; 6 bits a weight.
//!
//! ```text
//! bytes 0..2     d: f16
//! bytes 2..4     m: f16   the smallest weight
//! bytes 4..8     qh: u32  qh[i] = q[i][4]              the fifth bits
//! bytes 8..24    qs[16]   qs[j][0..4] = q[j][0..4]     the lower four
//!                         qs[j][4..8] = q[j + 16][0..4]
//!
//! w[i] = q[i] * d + m
//! ```

use super::fast::Scale;
use super::{Block, Codes, GgmlType, Scaled, bits, q5_0};
use crate::simd::Isa;

/// 32 weights of type `q5_1`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q5_1 {
    d: [u8; 2],
    m: [u8; 2],
    qh: [u8; 4],
    qs: [u8; 16],
}

impl Q5_1 {
    /// A block with this scale, this minimum and these codes.
    pub(crate) fn pack(d: [u8; 2], m: [u8; 2], codes: &[u8; 32]) -> Self {
        Self { d, m, qh: q5_0::fifth_bits(codes), qs: bits::pack_nibbles(codes) }
    }

    /// The codes `q`, 0 to 31.
    pub(crate) fn codes(&self) -> [u8; 32] {
        q5_0::with_fifth_bits(bits::nibbles(&self.qs), self.qh)
    }
}

impl Block for Q5_1 {
    const TYPE: GgmlType = GgmlType::Q5_1;

    fn dequantize(&self, out: &mut [f32]) {
        let (d, m) = (bits::f16(self.d), bits::f16(self.m));
        for (w, q) in out.iter_mut().zip(self.codes()) {
            *w = f32::from(q) * d + m;
        }
    }
}

impl Scaled for Q5_1 {
    const CODES: Codes = Codes::Unsigned(31);
    const MINS: bool = true;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, _part: usize) -> I::Bytes {
        q5_0::load_codes(isa, &self.qs, self.qh)
    }
    #[inline(always)]
    fn load_two<I: Isa>(isa: I, (a, _): (&Self, usize), (b, _): (&Self, usize)) -> [I::Bytes; 2] {
        q5_0::load_two(isa, (&a.qs, a.qh), (&b.qs, b.qh))
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
    fn weights_stand_above_the_minimum() {
        // d = 0.5, m = -4; weight 0 has code 31, weight 16 code 2, weight 23 code 16, the others code 0.
        let mut block = Q5_1 { d: [0x00, 0x38], m: [0x00, 0xc4], qh: [0x01, 0, 0x80, 0], qs: [0; 16] };
        block.qs[0] = 0x2f;
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        let mut expected = [-4.0; 32];
        (expected[0], expected[16], expected[23]) = (11.5, -3.0, 4.0);
        assert_eq!(out, expected);
    }

    #[test]
    fn infinite_minimum_covers_all_but_nan() {
        let block = Q5_1 { d: [0x00, 0x3c], m: [0x00, 0xfc], qh: [0xff; 4], qs: [0; 16] };
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        assert_eq!(out, [f32::NEG_INFINITY; 32]);
    }
}
