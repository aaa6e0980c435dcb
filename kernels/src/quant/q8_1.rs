//! Q8_1: 32 weights of 8 bits with one scale and their scaled sum; 9 bits a weight.
//!
//! ggml makes such blocks of activations, to multiply them with weights that have a minimum, and stores none in
//! files; it has no `to_float` for them, so the formula is that of its quantizer turned round.
//!
//! ```text
//! bytes 0..2     d: f16
//! bytes 2..4     s: f16       d * (q[0] + ... + q[31]), not needed for the weights
//! bytes 4..36    qs[32]: i8   qs[i] = q[i]
//!
//! w[i] = q[i] * d
//! ```

use super::{Block, GgmlType, bits};

/// 32 weights of type `q8_1`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q8_1 {
    d: [u8; 2],
    s: [u8; 2],
    qs: [i8; 32],
}

impl Block for Q8_1 {
    const TYPE: GgmlType = GgmlType::Q8_1;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (w, q) in out.iter_mut().zip(self.qs) {
            *w = f32::from(q) * d;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_signed() {
        // d = 0.125
        let mut block = Q8_1 { d: [0x00, 0x30], s: [0; 2], qs: [0; 32] };
        (block.qs[0], block.qs[31]) = (127, -128);
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        let mut expected = [0.0; 32];
        (expected[0], expected[31]) = (15.875, -16.0);
        assert_eq!(out, expected);
    }

    #[test]
    fn sum_does_not_touch_the_weights() {
        let block = Q8_1 { d: [0x00, 0x3c], s: [0xff, 0xff], qs: [-7; 32] };
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        assert_eq!(out, [-7.0; 32]);
    }
}
