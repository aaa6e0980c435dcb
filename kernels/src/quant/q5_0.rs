//! Q5_0: 32 weights of 5 bits with one scale; 5.5 bits a weight.
//!
//! ```text
//! bytes 0..2     d: f16
//! bytes 2..6     qh: u32  qh[i] = q[i][4]              the fifth bits
//! bytes 6..22    qs[16]   qs[j][0..4] = q[j][0..4]     the lower four
//!                         qs[j][4..8] = q[j + 16][0..4]
//!
//! w[i] = (q[i] - 16) * d
//! ```

use super::fast::Scale;
use super::{Block, Codes, GgmlType, Scaled, bits};
use crate::simd::Isa;

/// Sets bit 4 of code `i` to bit `i` of `qh`, for the formats with blocks of 32.
pub(crate) fn with_fifth_bits(low: [u8; 32], qh: [u8; 4]) -> [u8; 32] {
    let qh = u32::from_le_bytes(qh);
    core::array::from_fn(|i| low[i] | ((qh >> i & 1) as u8) << 4)
}

/// The fifth bits of the codes, as they are stored.
pub(crate) fn fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    let mut qh = 0;
    for (i, code) in codes.iter().enumerate() {
        qh |= u32::from(code >> 4 & 1) << i;
    }
    qh.to_le_bytes()
}

/// The codes of [`with_fifth_bits`] in the words of an instruction set.
#[inline(always)]
pub(super) fn load_codes<I: Isa>(isa: I, qs: &[u8; 16], qh: [u8; 4]) -> I::Bytes {
    let fifth = isa.and(isa.spread_bits(u32::from_le_bytes(qh)), isa.splat_byte(0x10));
    isa.or(isa.nibbles(qs), fifth)
}

/// [`load_codes`] of two blocks, by sixteens.
#[inline(always)]
pub(super) fn load_two<I: Isa>(
    isa: I,
    (a, a_high): (&[u8; 16], [u8; 4]),
    (b, b_high): (&[u8; 16], [u8; 4]),
) -> [I::Bytes; 2] {
    let (a_high, b_high) = (u32::from_le_bytes(a_high), u32::from_le_bytes(b_high));
    let [low, high] = isa.nibbles_of_two(a, b);
    let bit = isa.splat_byte(0x10);
    let fifths = [a_high & 0xffff | b_high << 16, a_high >> 16 | b_high & 0xffff_0000];
    [
        isa.or(low, isa.and(isa.spread_bits(fifths[0]), bit)),
        isa.or(high, isa.and(isa.spread_bits(fifths[1]), bit)),
    ]
}

/// 32 weights of type `q5_0`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Q5_0 {
    d: [u8; 2],
    qh: [u8; 4],
    qs: [u8; 16],
}

impl Q5_0 {
    /// A block with this scale and these codes.
    pub(crate) fn pack(d: [u8; 2], codes: &[u8; 32]) -> Self {
        Self { d, qh: fifth_bits(codes), qs: bits::pack_nibbles(codes) }
    }

    /// The codes `q`, 0 to 31.
    pub(crate) fn codes(&self) -> [u8; 32] {
        with_fifth_bits(bits::nibbles(&self.qs), self.qh)
    }
}

impl Block for Q5_0 {
    const TYPE: GgmlType = GgmlType::Q5_0;

    fn dequantize(&self, out: &mut [f32]) {
        let d = bits::f16(self.d);
        for (w, q) in out.iter_mut().zip(self.codes()) {
            *w = (f32::from(q) - 16.0) * d;
        }
    }
}

impl Scaled for Q5_0 {
    const CODES: Codes = Codes::Unsigned(31);
    const OFFSET: i32 = 16;

    #[inline(always)]
    fn load_codes<I: Isa>(&self, isa: I, _part: usize) -> I::Bytes {
        load_codes(isa, &self.qs, self.qh)
    }
    #[inline(always)]
    fn load_two<I: Isa>(isa: I, (a, _): (&Self, usize), (b, _): (&Self, usize)) -> [I::Bytes; 2] {
        load_two(isa, (&a.qs, a.qh), (&b.qs, b.qh))
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
    fn fifth_bits_lie_in_the_order_of_the_weights() {
        // d = 1; all codes 16 but for weight 3 (31), weight 19 (1) and weight 31 (0).
        let mut block = Q5_0 { d: [0x00, 0x3c], qh: [0xff, 0xff, 0xf7, 0x7f], qs: [0; 16] };
        block.qs[3] = 0x1f;
        let mut out = [f32::NAN; 32];
        block.dequantize(&mut out);
        let mut expected = [0.0; 32];
        (expected[3], expected[19], expected[31]) = (15.0, -15.0, -16.0);
        assert_eq!(out, expected);
    }

    #[test]
    fn codes_reach_31() {
        let block = Q5_0 { d: [0; 2], qh: [0xff; 4], qs: [0xff; 16] };
        assert_eq!(block.codes(), [31; 32]);
    }
}
