//! MXFP4: 32 weights of 4 bits, each a tiny float (E2M1), with one power of two as scale; 4.25 bits a weight.
//!
//! After the Open Compute Project's Microscaling Formats specification 1.0.
//!
//! ```text
//! byte  0        e        scale 2^(e - 127)
//! bytes 1..17    qs[16]   qs[j][0..4] = q[j]      1 bit of sign, 2 of exponent, 1 of mantissa
//!                         qs[j][4..8] = q[j + 16]
//!
//! w[i] = DOUBLED[q[i]] * 2^(e - 128)
//! ```

use super::fast::Scale;
use super::{Block, Codes, GgmlType, Scaled, bits};
use crate::simd::Isa;

/// Twice the values of the sixteen E2M1 codes, for MXFP4 and NVFP4 (ggml's `kvalues_mxfp4`). Code 8, minus zero,
/// is plain zero.
pub(crate) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of the E8M0 scale `e`: 2^(e - 128), to go with [`DOUBLED`]. As in ggml, 255 is no NaN.
#[inline(always)]
pub(crate) fn half_e8m0(e: u8) -> f32 {
    // The two smallest are subnormal.
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// 32 weights of type `mxfp4`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Mxfp4 {
    e: u8,
    qs: [u8; 16],
}

impl Mxfp4 {
    /// A block with this exponent and these codes.
    pub(crate) fn pack(e: u8, codes: &[u8; 32]) -> Self {
        Self { e, qs: bits::pack_nibbles(codes) }
    }

    /// The weights in units of half the scale, -12 to 12.
    pub(crate) fn doubled(&self) -> [i8; 32] {
        bits::nibbles(&self.qs).map(|q| DOUBLED[usize::from(q & 0x0f)])
    }
}

impl Block for Mxfp4 {
    const TYPE: GgmlType = GgmlType::MXFP4;

    fn dequantize(&self, out: &mut [f32]) {
        let d = half_e8m0(self.e);
        for (w, q) in out.iter_mut().zip(self.doubled()) {
            *w = f32::from(q) * d;
        }
    }
}

/// The levels, doubled and raised by 16.
pub(super) const RAISED: [i8; 16] = [16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4];

impl Scaled for Mxfp4 {
    const CODES: Codes = Codes::Unsigned(28);
    const OFFSET: i32 = 16;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, _part: usize) -> I::Bytes {
        isa.lookup(&RAISED, isa.nibbles(&self.qs))
    }
    #[inline(always)]
    fn load_two<I: Isa>(isa: I, (a, _): (&Self, usize), (b, _): (&Self, usize)) -> [I::Bytes; 2] {
        let [low, high] = isa.nibbles_of_two(&a.qs, &b.qs);
        [isa.lookup(&RAISED, low), isa.lookup(&RAISED, high)]
    }
    #[inline(always)]
    fn scale(&self, _: usize) -> Scale<'_> {
        Scale::Float(half_e8m0(self.e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scale_is_a_power_of_two() {
        for e in 0..=u8::MAX {
            assert_eq!(f64::from(half_e8m0(e)), 2_f64.powi(i32::from(e) - 128), "{e}");
        }
    }

    #[test]
    fn codes_are_e2m1() {
        // e = 127: scale 1. The 16 codes are 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
        let mut block = Mxfp4 { e: 127, qs: [0; 16] };
        for (j, byte) in (0_u8..).zip(&mut block.qs) {
            *byte = j << 4 | j;
        }
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        let half = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
        assert_eq!(out[..16], half);
        assert_eq!(out[16..], half);
    }

    #[test]
    fn exponent_255_is_no_nan() {
        let block = Mxfp4 { e: 255, qs: [0x92; 16] };
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        assert_eq!(out[0], f32::INFINITY);
        assert_eq!(out[16], -(2_f32.powi(127)));
    }
}
