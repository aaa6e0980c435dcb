//! I8, I16, I32 and I64: whole numbers, rounded to the nearest `f32` (ties to even). No scale goes with them.
//!
//! ```text
//! bytes 0..n   w: integer of n bytes with sign, n = 1, 2, 4, 8
//! ```
//!
//! ggml has no `to_float` for these types; this is C's conversion.

use super::{Block, GgmlType};

macro_rules! ints {
    ($($block:ident, $int:ty, $name:literal;)*) => {$(
        #[doc = concat!("One weight of type `", $name, "`.")]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        pub struct $block {
            w: [u8; size_of::<$int>()],
        }

        impl Block for $block {
            const TYPE: GgmlType = GgmlType::$block;

            #[inline]
            fn dequantize(&self, out: &mut [f32]) {
                if let Some(w) = out.first_mut() {
                    *w = <$int>::from_le_bytes(self.w) as f32;
                }
            }
        }
    )*};
}

ints! {
    I8, i8, "i8";
    I16, i16, "i16";
    I32, i32, "i32";
    I64, i64, "i64";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::dequantize_row;

    #[test]
    fn are_signed_and_little_endian() {
        let bytes = [0x00, 0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        let mut out = [0.0; 8];
        dequantize_row(GgmlType::I8, &bytes, &mut out).unwrap();
        assert_eq!(out, [0.0, -128.0, -1.0, -1.0, -1.0, -1.0, -1.0, 127.0]);
        dequantize_row(GgmlType::I16, &bytes, &mut out[..4]).unwrap();
        assert_eq!(out[..4], [-32_768.0, -1.0, -1.0, 32_767.0]);
        dequantize_row(GgmlType::I32, &bytes, &mut out[..2]).unwrap();
        assert_eq!(out[..2], [-32_768.0, 2_147_483_648.0]);
        dequantize_row(GgmlType::I64, &bytes, &mut out[..1]).unwrap();
        assert_eq!(out[0], 2_f32.powi(63));
    }

    #[test]
    fn round_ties_to_even() {
        let mut out = [0.0; 2];
        let bytes: Vec<u8> = [16_777_217_i32, 16_777_219].iter().flat_map(|w| w.to_le_bytes()).collect();
        dequantize_row(GgmlType::I32, &bytes, &mut out).unwrap();
        assert_eq!(out, [16_777_216.0, 16_777_220.0]);
    }
}
