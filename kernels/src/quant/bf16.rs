//! BF16: the upper half of an `f32`.
//!
//! ```text
//! bytes 0..2   w: the upper 16 bits of the weight as f32; its lower 16 bits are 0
//! ```

use crate::simd::Isa;

use super::fast::unpack_eights;
use super::{Block, GgmlType};

/// One weight of type `bf16`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Bf16 {
    w: [u8; 2],
}

impl Bf16 {
    /// A weight from its bytes.
    #[inline(always)]
    pub(crate) fn pack(w: [u8; 2]) -> Self {
        Self { w }
    }
}

impl Block for Bf16 {
    const TYPE: GgmlType = GgmlType::BF16;

    /// A shift of bits, as in ggml: a signalling NaN stays one.
    #[inline]
    fn dequantize(&self, out: &mut [f32]) {
        if let Some(w) = out.first_mut() {
            *w = f32::from_bits(u32::from(u16::from_le_bytes(self.w)) << 16);
        }
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, blocks: &[Self], out: &mut [f32]) {
        unpack_eights!(isa, blocks, out, |eight| isa.brains(bytemuck::cast_ref(eight)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::dequantize_row;

    #[test]
    fn reads_the_upper_half() {
        let mut out = [0.0; 3];
        let bytes = [0x80, 0x3f, 0x20, 0xc0, 0x80, 0xff];
        dequantize_row(GgmlType::BF16, &bytes, &mut out).unwrap();
        assert_eq!(out, [1.0, -2.5, f32::NEG_INFINITY]);
    }

    #[test]
    fn every_value_is_its_bits_shifted() {
        for h in 0..=u16::MAX {
            let mut out = [0.0];
            dequantize_row(GgmlType::BF16, &h.to_le_bytes(), &mut out).unwrap();
            assert_eq!(out[0].to_bits(), u32::from(h) * 0x1_0000);
        }
    }
}
