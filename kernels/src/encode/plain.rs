//! Floats without a scale: F32, F16 and BF16.
#![forbid(unsafe_code)]

use super::numbers::half;
use super::{Encode, Failed, Points};
use crate::quant::{Bf16, F16, F32};

macro_rules! floats {
    ($block:ident, $bytes:expr) => {
        impl Encode for $block {
            #[inline(always)]
            fn encode_row(x: &[f32], _: Option<&[f32]>, _: &Points, out: &mut [Self]) -> Result<(), Failed> {
                for (&x, out) in x.iter().zip(out) {
                    *out = Self::pack($bytes(x));
                }
                Ok(())
            }
        }
    };
}
floats!(F32, f32::to_le_bytes);
floats!(F16, half);
floats!(Bf16, brain);

/// The upper half of a number, rounded to nearest, ties to even.
#[inline(always)]
fn brain(x: f32) -> [u8; 2] {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let upper = if x.is_nan() { bits >> 16 | 0x40 } else { rounded >> 16 };
    (upper as u16).to_le_bytes()
}
