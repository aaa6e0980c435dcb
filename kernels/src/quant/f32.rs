//! F32: the weight itself.
//!
//! ```text
//! bytes 0..4   w: f32
//! ```

use crate::simd::Isa;

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
    fn unpack<I: Isa>(_: I, blocks: &[Self], out: &mut [f32]) {
        let (eights, left) = blocks.as_chunks::<8>();
        let (out_eights, out_left) = out.split_at_mut(8 * eights.len());
        for (eight, out) in eights.iter().zip(out_eights.as_chunks_mut().0) {
            *out = eight.map(|w| f32::from_le_bytes(w.w));
        }
        for (block, out) in left.iter().zip(out_left.chunks_exact_mut(1)) {
            block.dequantize(out);
        }
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
