//! F32: the weight itself.
//!
//! ```text
//! bytes 0..4   w: f32
//! ```

use crate::simd::Isa;

use super::fast::unpack_eights;
use super::{Block, GgmlType};

/// One weight of type `f32`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct F32 {
    w: [u8; 4],
}

impl F32 {
    /// A weight from its bytes.
    #[inline(always)]
    pub(crate) fn pack(w: [u8; 4]) -> Self {
        Self { w }
    }
}

impl Block for F32 {
    const TYPE: GgmlType = GgmlType::F32;

    #[inline]
    fn dequantize(&self, out: &mut [f32]) {
        if let Some(w) = out.first_mut() {
            *w = f32::from_le_bytes(self.w);
        }
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, blocks: &[Self], out: &mut [f32]) {
        unpack_eights!(isa, blocks, out, |eight| isa.floats(&eight.map(|w| f32::from_le_bytes(w.w))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::dequantize_row;

    #[test]
    fn reads_little_endian() {
        let mut out = [0.0; 2];
        let bytes = [0x00, 0x00, 0x80, 0x3f, 0x00, 0x00, 0x20, 0xc0];
        dequantize_row(GgmlType::F32, &bytes, &mut out).unwrap();
        assert_eq!(out, [1.0, -2.5]);
    }

    #[test]
    fn keeps_every_bit() {
        for bits in [0x8000_0000_u32, 0x0000_0001, 0xff80_0000, 0x7fc0_1234] {
            let mut out = [0.0];
            dequantize_row(GgmlType::F32, &bits.to_le_bytes(), &mut out).unwrap();
            assert_eq!(out[0].to_bits(), bits);
        }
    }
}
