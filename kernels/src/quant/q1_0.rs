//! Q1_0: 128 weights of 1 bit, plus or minus one scale; 1.125 bits a weight.
//!
//! ```text
//! bytes 0..2     d: f16
//! bytes 2..18    qs[16]   qs[j][k] = q[8 j + k],   k = 0 .. 7
//!
//! w[i] = d where q[i] = 1, else -d
//! ```

use super::fast::Scale;
use super::{Block, Codes, GgmlType, Scaled, bits};
use crate::simd::Isa;

/// 128 weights of type `q1_0`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q1_0 {
    d: [u8; 2],
    qs: [u8; 16],
}

impl Q1_0 {
    /// A block with this scale and these codes.
    pub(crate) fn pack(d: [u8; 2], codes: &[u8; 128]) -> Self {
        let mut qs = [0; 16];
        for (i, code) in codes.iter().enumerate() {
            qs[i / 8] |= (code & 1) << (i % 8);
        }
        Self { d, qs }
    }

    /// The codes `q`, 0 or 1, of the 32 weights from `32 * g` on (`g` from 0 to 3).
    pub(crate) fn codes(&self, g: usize) -> [u8; 32] {
        core::array::from_fn(|j| self.qs[g * 4 + j / 8] >> (j % 8) & 1)
    }
}

impl Block for Q1_0 {
    const TYPE: GgmlType = GgmlType::Q1_0;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (g, out) in (0..4).zip(out.chunks_mut(32)) {
            for (w, q) in out.iter_mut().zip(self.codes(g)) {
                *w = if q == 1 { d } else { -d };
            }
        }
    }
}

impl Scaled for Q1_0 {
    /// 0 or 2: twice `q`.
    const CODES: Codes = Codes::Unsigned(2);
    const OFFSET: i32 = 1;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        let mask = u32::from_le_bytes(self.qs.as_chunks().0[part]);
        isa.and(isa.spread_bits(mask), isa.splat_byte(2))
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
    fn a_bit_is_a_sign() {
        // d = 0.5; the set bits are those of weights 3 and 127.
        let mut block = Q1_0 { d: [0x00, 0x38], qs: [0; 16] };
        (block.qs[0], block.qs[15]) = (0x08, 0x80);
        let mut out = [f32::NAN; 128];
        block.dequantize(&mut out);
        let mut expected = [-0.5; 128];
        (expected[3], expected[127]) = (0.5, 0.5);
        assert_eq!(out, expected);
    }

    #[test]
    fn zero_scale_keeps_its_signs() {
        let block = Q1_0 { d: [0; 2], qs: [0x01; 16] };
        let mut out = [f32::NAN; 128];
        block.dequantize(&mut out);
        assert!(out.iter().enumerate().all(|(i, w)| *w == 0.0 && w.is_sign_positive() == (i % 8 == 0)));
    }
}
