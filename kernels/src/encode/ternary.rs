//! Ternary weights: TQ1_0 and TQ2_0.
#![forbid(unsafe_code)]

use super::numbers::{half, largest, rounded};
use super::{EncodeSuperblock, Failed, Points};
use crate::quant::{Tq1_0, Tq2_0};

/// The scale, and the codes 0 to 2.
#[inline(always)]
fn codes(x: &[f32; 256]) -> ([u8; 2], [u8; 256]) {
    let (d, _) = largest(x);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut codes = [0; 256];
    for i in 0..256 {
        codes[i] = rounded(x[i] * inverse).wrapping_add(1) as u8;
    }
    (half(d), codes)
}

macro_rules! ternary {
    ($block:ident) => {
        impl EncodeSuperblock for $block {
            #[inline(always)]
            fn encode(x: &[f32; 256], _: Option<&[f32; 256]>, _: &Points) -> Result<Self, Failed> {
                let (d, codes) = codes(x);
                Ok(Self::pack(d, &codes))
            }
        }
    };
}
ternary!(Tq1_0);
ternary!(Tq2_0);
