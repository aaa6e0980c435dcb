//! NVFP4: 64 weights of 4 bits, each a tiny float (E2M1), in 4 groups of 16, each with a small float (UE4M3) as scale;
//! 4.5 bits a weight.
//!
//! ```text
//! bytes 0..4     d[4]       scales: 1 bit ignored, 4 of exponent (bias 7), 3 of mantissa
//! bytes 4..36    qs[4][8]   qs[g][j][0..4] = q[16 g + j]      codes as in MXFP4
//!                           qs[g][j][4..8] = q[16 g + 8 + j]
//!
//! w[i] = DOUBLED[q[i]] * (UE4M3(d[i / 16]) / 2)
//! ```

use super::fast::Scale;
use super::mxfp4::{DOUBLED, RAISED};
use super::{Block, Codes, GgmlType, Scaled};
use crate::simd::Isa;

/// Half of the UE4M3 scale, to go with [`DOUBLED`]. As in ggml, bit 7 counts for nothing and 0x7f is zero.
pub(crate) const fn half_ue4m3(scale: u8) -> f32 {
    let (exponent, mantissa) = ((scale >> 3 & 0x0f) as u32, (scale & 0x07) as f32);
    if scale == 0x7f {
        0.0
    } else if exponent == 0 {
        mantissa / 1024.0
    } else {
        // (1 + mantissa / 8) * 2^(exponent - 7) / 2: the power of two is a float of exponent field alone.
        (1.0 + mantissa / 8.0) * f32::from_bits((exponent + 127 - 8) << 23)
    }
}

/// [`half_ue4m3`] of every byte.
static HALF_SCALES: [f32; 256] = {
    let mut scales = [0.0; 256];
    let mut scale = 0;
    while scale < scales.len() {
        scales[scale] = half_ue4m3(scale as u8);
        scale += 1;
    }
    scales
};

/// 64 weights of type `nvfp4`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Nvfp4 {
    d: [u8; 4],
    qs: [[u8; 8]; 4],
}

impl Nvfp4 {
    /// A block with these scales and the codes of each group.
    pub(crate) fn pack(d: [u8; 4], codes: &[[u8; 16]; 4]) -> Self {
        let qs = core::array::from_fn(|g| core::array::from_fn(|j| codes[g][j] | codes[g][j + 8] << 4));
        Self { d, qs }
    }

    /// The weights of group `g` (0 to 3) in units of half its scale, -12 to 12.
    pub(crate) fn doubled(&self, g: usize) -> [i8; 16] {
        core::array::from_fn(|j| DOUBLED[usize::from(self.qs[g][j % 8] >> (j / 8 * 4) & 0x0f)])
    }
}

impl Block for Nvfp4 {
    const TYPE: GgmlType = GgmlType::NVFP4;

    fn dequantize(&self, out: &mut [f32]) {
        for (g, out) in (0..4).zip(out.chunks_mut(16)) {
            let d = half_ue4m3(self.d[g]);
            for (w, q) in out.iter_mut().zip(self.doubled(g)) {
                *w = f32::from(q) * d;
            }
        }
    }
}

impl Scaled for Nvfp4 {
    const CODES: Codes = Codes::Unsigned(28);
    const OFFSET: i32 = 16;
    const GROUP: usize = 16;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes {
        // The first eights of two groups, then their last.
        let mut eights = [0; 32];
        isa.store_bytes(isa.nibbles(bytemuck::cast_ref(&self.qs.as_chunks::<2>().0[part])), &mut eights);
        let [a, b, c, d]: [[u8; 8]; 4] = bytemuck::cast(eights);
        isa.lookup(&RAISED, isa.bytes(&bytemuck::cast([a, c, b, d])))
    }
    #[inline(always)]
    fn load_two<I: Isa>(isa: I, (block, _): (&Self, usize), _: (&Self, usize)) -> [I::Bytes; 2] {
        let qs = isa.bytes(bytemuck::cast_ref(&block.qs));
        [isa.lookup(&RAISED, isa.field::<0, 0x0f>(qs)), isa.lookup(&RAISED, isa.field::<4, 0x0f>(qs))]
    }
    #[inline(always)]
    fn scale(&self, group: usize) -> Scale<'_> {
        Scale::Float(HALF_SCALES[usize::from(self.d[group])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_ue4m3() {
        // 1, the smallest subnormal, the largest subnormal, the smallest normal, the largest, all halved.
        let scales = [0x38, 0x01, 0x07, 0x08, 0x7e].map(half_ue4m3);
        assert_eq!(scales, [0.5, 1.0 / 1024.0, 7.0 / 1024.0, 8.0 / 1024.0, 224.0]);
    }

    #[test]
    fn ggmls_oddities_of_scales_are_kept() {
        // 0x7f would be NaN and is 0; the sign bit is ignored, which makes 0xff 480.
        assert_eq!([0x00, 0x7f, 0x80, 0xb8, 0xff].map(half_ue4m3), [0.0, 0.0, 0.0, 0.5, 240.0]);
    }

    #[test]
    fn groups_of_16_take_8_bytes() {
        // Scale 2 in group 2 only, whose byte 3 holds codes 7 (weight 35: 6) and 10 (weight 43: -1).
        let mut block = Nvfp4 { d: [0, 0, 0x40, 0], qs: [[0; 8]; 4] };
        block.qs[2][3] = 0xa7;
        let mut out = [f32::NAN; 64];
        block.dequantize(&mut out);
        let mut expected = [0.0; 64];
        (expected[35], expected[43]) = (12.0, -2.0);
        assert_eq!(out, expected);
    }
}
