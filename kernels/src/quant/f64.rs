//! F64: the weight in double precision, rounded to the nearest `f32`.
//!
//! ```text
//! bytes 0..8   w: f64
//! ```

use super::{Block, GgmlType};

/// One weight of type `f64`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct F64 {
    w: [u8; 8],
}

impl Block for F64 {
    const TYPE: GgmlType = GgmlType::F64;

    /// ggml has no `to_float` for this type; this is C's conversion.
    #[inline]
    fn dequantize(&self, out: &mut [f32]) {
        if let Some(w) = out.first_mut() {
            *w = f64::from_le_bytes(self.w) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(w: f64) -> f32 {
        let mut out = [0.0];
        F64 { w: w.to_le_bytes() }.dequantize(&mut out);
        out[0]
    }

    #[test]
    fn rounds_ties_to_even() {
        let ulp = f64::from(f32::EPSILON);
        assert_eq!(read(1.0 + ulp / 2.0), 1.0);
        assert_eq!(read(1.0 + ulp * 1.5), 1.0 + 2.0 * f32::EPSILON);
    }

    #[test]
    fn large_values_become_infinite() {
        assert_eq!(read(-1.0e300), f32::NEG_INFINITY);
        assert!(read(f64::NAN).is_nan());
    }
}
