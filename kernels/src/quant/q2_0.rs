//! Q2_0: 64 weights of 2 bits with one scale; 2.25 bits a weight.
//!
//! ```text
//! bytes 0..2     d: f16
//! bytes 2..18    qs[16]   qs[j][2 k .. 2 k + 2] = q[4 j + k],   k = 0 .. 3
//!
//! w[i] = (q[i] - 1) * d
//! ```

use super::fast::Scale;
use super::{Block, Codes, GgmlType, Scaled, bits};
use crate::simd::Isa;

/// 64 weights of type `q2_0`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q2_0 {
    d: [u8; 2],
    qs: [u8; 16],
}

impl Q2_0 {
    /// A block with this scale and these codes.
    pub(crate) fn pack(d: [u8; 2], codes: &[u8; 64]) -> Self {
        let mut qs = [0; 16];
        for (i, code) in codes.iter().enumerate() {
            qs[i / 4] |= (code & 0x03) << (i % 4 * 2);
        }
        Self { d, qs }
    }

    /// The codes `q`, 0 to 3, of the 32 weights from `32 * g` on (`g` 0 or 1).
    pub(crate) fn codes(&self, g: usize) -> [u8; 32] {
        core::array::from_fn(|j| self.qs[g * 8 + j / 4] >> (j % 4 * 2) & 0x03)
    }
}

impl Block for Q2_0 {
    const TYPE: GgmlType = GgmlType::Q2_0;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (g, out) in (0..2).zip(out.chunks_mut(32)) {
            for (w, q) in out.iter_mut().zip(self.codes(g)) {
                *w = (f32::from(q) - 1.0) * d;
            }
        }
    }
}

impl Scaled for Q2_0 {
    const CODES: Codes = Codes::Unsigned(3);
    const OFFSET: i32 = 1;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        isa.quarters(&self.qs.as_chunks().0[part])
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
    fn four_neighbours_share_a_byte() {
        // d = 4; byte 9 holds codes 0, 1, 2, 3 of weights 36 to 39; all others have code 1.
        let mut block = Q2_0 { d: [0x00, 0x44], qs: [0x55; 16] };
        block.qs[9] = 0b11_10_01_00;
        let mut out = [f32::NAN; 64];
        block.dequantize(&mut out);
        let mut expected = [0.0; 64];
        expected[36..40].copy_from_slice(&[-4.0, 0.0, 4.0, 8.0]);
        assert_eq!(out, expected);
    }

    #[test]
    fn nan_scale_makes_all_nan() {
        let block = Q2_0 { d: [0xff, 0x7f], qs: [0x1b; 16] };
        let mut out = [0.0; 64];
        block.dequantize(&mut out);
        assert!(out.iter().all(|w| w.is_nan()));
    }
}
