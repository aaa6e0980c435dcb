//! IQ4_NL: 32 weights of 4 bits that choose from 16 uneven levels, with one scale; 4.5 bits a weight.
//!
//! ```text
//! bytes 0..2     d: f16
//! bytes 2..18    qs[16]   qs[j][0..4] = q[j]
//!                         qs[j][4..8] = q[j + 16]
//!
//! w[i] = d * LEVELS[q[i]]
//! ```

use super::fast::Scale;
use super::{Block, Codes, GgmlType, Scaled, bits};
use crate::simd::Isa;

/// The levels of IQ4_NL and IQ4_XS (ggml's `kvalues_iq4nl`).
pub(crate) const LEVELS: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The levels of 32 weights whose codes are the nibbles of `qs`.
pub(crate) fn levels(qs: &[u8; 16]) -> [i8; 32] {
    bits::nibbles(qs).map(|q| LEVELS[usize::from(q & 0x0f)])
}

/// 32 weights of type `iq4_nl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Iq4Nl {
    d: [u8; 2],
    qs: [u8; 16],
}

impl Iq4Nl {
    /// A block with this scale and these codes.
    pub(crate) fn pack(d: [u8; 2], codes: &[u8; 32]) -> Self {
        Self { d, qs: bits::pack_nibbles(codes) }
    }

    /// The weights in units of the scale, -127 to 113.
    pub(crate) fn levels(&self) -> [i8; 32] {
        levels(&self.qs)
    }
}

impl Block for Iq4Nl {
    const TYPE: GgmlType = GgmlType::IQ4_NL;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (w, level) in out.iter_mut().zip(self.levels()) {
            *w = d * f32::from(level);
        }
    }
}

impl Scaled for Iq4Nl {
    const CODES: Codes = Codes::Signed;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, _part: usize) -> I::Bytes {
        isa.lookup(&LEVELS, isa.nibbles(&self.qs))
    }
    #[inline(always)]
    fn load_two<I: Isa>(isa: I, (a, _): (&Self, usize), (b, _): (&Self, usize)) -> [I::Bytes; 2] {
        let [low, high] = isa.nibbles_of_two(&a.qs, &b.qs);
        [isa.lookup(&LEVELS, low), isa.lookup(&LEVELS, high)]
    }
    #[inline(always)]
    fn scale(&self, _: usize) -> Scale<'_> {
        Scale::Half(&self.d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_choose_levels() {
        // d = 1; code 0 (-127) but for weight 2 (code 15) and weight 18 (code 8).
        let mut block = Iq4Nl { d: [0x00, 0x3c], qs: [0; 16] };
        block.qs[2] = 0x8f;
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        let mut expected = [-127.0; 32];
        (expected[2], expected[18]) = (113.0, 1.0);
        assert_eq!(out, expected);
    }

    #[test]
    fn levels_rise_and_lie_closer_about_zero() {
        let steps: Vec<i16> = LEVELS.windows(2).map(|pair| i16::from(pair[1]) - i16::from(pair[0])).collect();
        assert!(steps.iter().all(|&step| (11..=24).contains(&step)), "{steps:?}");
        assert_eq!(steps.iter().sum::<i16>(), 240);
    }
}
