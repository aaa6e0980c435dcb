//! Q8_K: 256 weights of 8 bits with one scale and the sums of groups of 16; 9.125 bits a weight.
//!
//! ggml makes such blocks of activations, to multiply them with K-quants, and stores none in files.
//!
//! ```text
//! bytes 0..4       d: f32
//! bytes 4..260     qs[256]: i8      qs[i] = q[i]
//! bytes 260..292   bsums[16]: i16   bsums[g] = q[16 g] + ... + q[16 g + 15], not needed for the weights
//!
//! w[i] = d * q[i]
//! ```

use super::{Block, GgmlType};

/// 256 weights of type `q8_K`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q8K {
    d: [u8; 4],
    qs: [i8; 256],
    bsums: [[u8; 2]; 16],
}

impl Block for Q8K {
    const TYPE: GgmlType = GgmlType::Q8_K;

    fn dequantize(&self, out: &mut [f32]) {
        let d = f32::from_le_bytes(self.d);
        for (w, q) in out.iter_mut().zip(self.qs) {
            *w = d * f32::from(q);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_is_a_full_float() {
        let scale = 1.0e-30_f32;
        let mut block = Q8K { d: scale.to_le_bytes(), qs: [0; 256], bsums: [[0; 2]; 16] };
        (block.qs[0], block.qs[255]) = (-128, 1);
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        let mut expected = [0.0; 256];
        (expected[0], expected[255]) = (-1.28e-28, 1.0e-30);
        assert_eq!(out, expected);
    }

    #[test]
    fn sums_do_not_touch_the_weights() {
        let block = Q8K { d: 0.5_f32.to_le_bytes(), qs: [3; 256], bsums: [[0xff; 2]; 16] };
        let mut out = [f32::NAN; 256];
        block.dequantize(&mut out);
        assert_eq!(out, [1.5; 256]);
    }
}
