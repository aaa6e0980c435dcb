//! Numbers as ggml's quantizers make them: roundings and conversions, bit for bit.
#![forbid(unsafe_code)]

/// Below this magnitude a group counts as zero (ggml's `GROUP_MAX_EPS`).
pub(super) const TINY: f32 = 1e-15;

/// The nearest integer, ties to even, by ggml's trick: in a float of 1.5 x 2^23 the mantissa's low bits are units. What lies
/// outside of +-2^22 comes out as the trick leaves it; NaN of the processor's own making is 0.
#[inline(always)]
pub(super) fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// Toward zero, as x86 converts: what does not fit is the smallest integer.
#[inline(always)]
pub(super) fn truncated(x: f32) -> i32 {
    if x.abs() < 2_147_483_648.0 { x as i32 } else { i32::MIN }
}

/// C's `roundf` as an integer: ties away from zero.
#[inline(always)]
pub(super) fn rounded(x: f32) -> i32 {
    // The largest float below one half: a half itself would round up what lies just under it.
    truncated(x + 0.499_999_97_f32.copysign(x))
}

/// The half-precision number next to `x`, ties to even, as two bytes; NaN as ggml writes it.
#[inline(always)]
pub(super) fn half(x: f32) -> [u8; 2] {
    let bits = if x.is_nan() {
        0x7e00 | (x.to_bits() >> 16 & 0x8000) as u16
    } else {
        half::f16::from_f32(x).to_bits()
    };
    bits.to_le_bytes()
}

/// [`half`], and what is read back from it.
#[inline(always)]
pub(super) fn half_of(x: f32) -> ([u8; 2], f32) {
    let bytes = half(x);
    (bytes, half::f16::from_le_bytes(bytes).to_f32())
}

/// The square root, rounded as IEEE 754 says.
#[inline(always)]
pub(super) fn sqrt(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(not(feature = "std"))]
    return libm::sqrtf(x);
}

/// The sum of squares, in order.
#[inline(always)]
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
    let mut sum = 0.0;
    for &x in x {
        sum += x * x;
    }
    sum
}

/// How much each weight's error counts: its column's importance, times a size that does not vanish with the weight.
#[inline(always)]
pub(super) fn weigh<const N: usize>(importance: &[f32; N], sigma2: f32, x: &[f32; N]) -> [f32; N] {
    let mut weights = [0.0; N];
    for i in 0..N {
        weights[i] = importance[i] * sqrt(sigma2 + x[i] * x[i]);
    }
    weights
}

/// The largest magnitude, and the first number that has it; 0 where all are 0.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> (f32, f32) {
    let (mut magnitude, mut largest) = (0.0, 0.0);
    for &x in x {
        if x.abs() > magnitude {
            (magnitude, largest) = (x.abs(), x);
        }
    }
    (magnitude, largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_rounded_as_in_c() {
        assert_eq!([0.5, 1.5, 2.5, -0.5, -1.5, 7.49].map(nearest), [0, 2, 2, 0, -2, 7]);
        assert_eq!([0.5, 1.5, -0.5, -2.5, 0.499_999_97, 7.49].map(rounded), [1, 2, -1, -3, 0, 7]);
        assert_eq!(
            [1e10, f32::NAN, f32::NEG_INFINITY, -1.9].map(truncated),
            [i32::MIN, i32::MIN, i32::MIN, -1]
        );
        assert_eq!(nearest(0.0 * f32::INFINITY), 0);
    }

    #[test]
    fn halves_are_nearest_and_overflow_to_infinity() {
        assert_eq!(
            [1.0, 65_519.0, 65_520.0, -1e9, 5e-8].map(half).map(u16::from_le_bytes),
            [0x3c00, 0x7bff, 0x7c00, 0xfc00, 1]
        );
        assert_eq!(u16::from_le_bytes(half(f32::NAN)), 0x7e00);
    }
}
