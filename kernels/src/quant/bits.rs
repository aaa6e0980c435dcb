//! How formats read numbers and nibbles out of bytes.

/// The half-precision number in two little-endian bytes. NaNs become quiet, their payload kept, as in ggml's
/// `GGML_FP16_TO_FP32`.
pub(crate) fn f16(bytes: [u8; 2]) -> f32 {
    half::f16::from_le_bytes(bytes).to_f32()
}

/// The 32 nibbles of 16 bytes in the order of the formats with blocks of 32: first all low ones, then all high.
pub(crate) fn nibbles(bytes: &[u8; 16]) -> [u8; 32] {
    core::array::from_fn(|i| (bytes[i % 16] >> (i / 16 * 4)) & 0x0f)
}

/// Four bytes as integers of 16 bits, the first lowest.
#[inline(always)]
pub(crate) fn widen_four(bytes: [u8; 4]) -> u64 {
    let wide = u64::from(u32::from_le_bytes(bytes));
    let wide = (wide | wide << 16) & 0x0000_ffff_0000_ffff;
    (wide | wide << 8) & 0x00ff_00ff_00ff_00ff
}

/// The bytes of which [`nibbles`] gives these codes, each below 16; fifth bits are left out.
#[inline(always)]
pub(crate) fn pack_nibbles(codes: &[u8; 32]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for j in 0..16 {
        bytes[j] = codes[j] & 0x0f | codes[j + 16] << 4;
    }
    bytes
}

/// Pairs of numbers below 16, a byte each: the first in the lower half.
pub(crate) fn pack_pairs<const N: usize, const HALF: usize>(numbers: &[u8; N]) -> [u8; HALF] {
    core::array::from_fn(|j| numbers[2 * j] & 0x0f | numbers[2 * j + 1] << 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ggml's own portable formula (`ggml_compute_fp16_to_fp32` of ggml-impl.h), which scales by multiplication.
    fn ggml_f16(h: u16) -> f32 {
        let w = u32::from(h) << 16;
        let sign = w & 0x8000_0000;
        let two_w = w.wrapping_add(w);
        let normal = f32::from_bits((two_w >> 4).wrapping_add(0xe0 << 23)) * f32::from_bits(0x0780_0000);
        let subnormal = f32::from_bits((two_w >> 17) | (126 << 23)) - 0.5;
        let magnitude = if two_w < 1 << 27 { subnormal } else { normal };
        f32::from_bits(sign | magnitude.to_bits())
    }

    #[test]
    fn every_half_is_ggmls() {
        for h in 0..=u16::MAX {
            let (ours, theirs) = (f16(h.to_le_bytes()), ggml_f16(h));
            assert_eq!(ours.to_bits(), theirs.to_bits(), "{h:#06x}: {ours} and {theirs}");
        }
    }

    #[test]
    fn four_bytes_widen() {
        assert_eq!(widen_four([0xff, 1, 0x80, 2]), 0x0002_0080_0001_00ff);
    }

    #[test]
    fn low_nibbles_come_first() {
        let mut bytes = [0; 16];
        bytes[3] = 0xa5;
        let nibbles = nibbles(&bytes);
        assert_eq!((nibbles[3], nibbles[19]), (0x5, 0xa));
    }
}
