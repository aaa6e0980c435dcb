//! F16: the weight in half precision.
//!
//! ```text
//! bytes 0..2   w: f16 = 1 bit of sign, 5 of exponent (bias 15), 10 of mantissa
//! ```

use crate::simd::Isa;

use super::fast::unpack_eights;
use super::{Block, GgmlType, bits};

/// One weight of type `f16`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct F16 {
    w: [u8; 2],
}

impl F16 {
    /// A weight from its bytes.
    #[inline(always)]
    pub(crate) fn pack(w: [u8; 2]) -> Self {
        Self { w }
    }
}

impl Block for F16 {
    const TYPE: GgmlType = GgmlType::F16;

    #[inline]
    fn dequantize(&self, out: &mut [f32]) {
        if let Some(w) = out.first_mut() {
            *w = bits::f16(self.w);
        }
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, blocks: &[Self], out: &mut [f32]) {
        unpack_eights!(isa, blocks, out, |eight| isa.halves(bytemuck::cast_ref(eight)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::dequantize_row;

    #[test]
    fn reads_normals_subnormals_and_infinity() {
        let mut out = [0.0; 4];
        let bytes = [0x00, 0x3c, 0x00, 0xc1, 0x01, 0x00, 0x00, 0x7c];
        dequantize_row(GgmlType::F16, &bytes, &mut out).unwrap();
        assert_eq!(out, [1.0, -2.5, 1.0 / 16_777_216.0, f32::INFINITY]);
    }

    #[test]
    fn makes_nans_quiet_and_keeps_their_payload() {
        let mut out = [0.0];
        dequantize_row(GgmlType::F16, &0xfc01_u16.to_le_bytes(), &mut out).unwrap();
        assert_eq!(out[0].to_bits(), 0xffc0_2000);
    }
}
