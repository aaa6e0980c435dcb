//! Logarithms of probabilities from logits, in f64: what is measured with them are small differences.
//!
//! Plain Rust, which the compiler turns into the level's instructions.
#![forbid(unsafe_code)]

use core::f64::consts::LOG2_E;

use crate::Mismatch;
use crate::dispatch::Task;
use crate::simd::{Isa, Level, filled};

/// Sums are kept in so many lanes, and added up in their order.
const LANES: usize = 16;

/// Arguments below it have an exponential of 0 here; its true one is below 1e-304.
const LEAST: f64 = -700.0;

/// The logarithm of the sum of the exponentials of `logits`: less it, a logit is the logarithm of its probability.
///
/// NaN where a logit is NaN or positive infinity, and where none is above negative infinity.
pub fn log_sum_exp(level: Level, logits: &[f32]) -> f64 {
    level.run_plain(LogSumExp(logits))
}

/// The Kullback-Leibler divergence, in nats, of the probabilities that `logits` stand for from those of `reference`; beside
/// each the [`log_sum_exp`] of its logits.
///
/// # Errors
/// [`Mismatch`] where the two are not of one length.
pub fn divergence(level: Level, reference: (&[f32], f64), logits: (&[f32], f64)) -> Result<f64, Mismatch> {
    if reference.0.len() != logits.0.len() {
        let (expected, found) = (reference.0.len(), logits.0.len());
        return Err(Mismatch { what: "logits to compare", expected, found });
    }
    Ok(level.run_plain(Divergence { reference, logits }))
}

/// `e` to the power of `x`, which is not positive: within 2 units in the last place.
///
/// A polynomial after reduction to `|r| <= ln 2 / 2`, with the two-part ln 2 of fdlibm.
#[inline(always)]
fn exp(x: f64) -> f64 {
    // What is added to it rounds to an integer, which its lowest bits then hold.
    const ROUND: f64 = 1.5 * (1_u64 << 52) as f64;
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 6.931_471_803_691_238e-1 - n * 1.908_214_929_270_587_7e-10;
    let mut p = INVERSE_FACTORIALS[12];
    for i in (0..12).rev() {
        p = p * r + INVERSE_FACTORIALS[i];
    }
    let two_to_n = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    if x < LEAST { 0.0 } else { p * two_to_n }
}

const INVERSE_FACTORIALS: [f64; 13] = {
    let mut all = [1.0; 13];
    let mut i = 1;
    while i < 13 {
        all[i] = all[i - 1] / i as f64;
        i += 1;
    }
    all
};

/// The values in lanes, the last of them filled up.
#[inline(always)]
fn lanes(x: &[f32], fill: f32) -> (&[[f32; LANES]], [f32; LANES]) {
    let (whole, rest) = x.as_chunks();
    (whole, filled(rest, fill))
}

struct LogSumExp<'a>(&'a [f32]);

impl Task for LogSumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> f64 {
        let (whole, last) = lanes(self.0, f32::NEG_INFINITY);
        let mut max = last;
        for x in whole {
            for (max, &x) in max.iter_mut().zip(x) {
                *max = if x > *max { x } else { *max };
            }
        }
        let max = f64::from(max.into_iter().fold(f32::NEG_INFINITY, f32::max));
        let mut sums = [0.0; LANES];
        for x in whole.iter().chain([&last]) {
            for (sum, &x) in sums.iter_mut().zip(x) {
                *sum += exp(f64::from(x) - max);
            }
        }
        max + libm::log(sums.iter().sum())
    }
}

struct Divergence<'a> {
    reference: (&'a [f32], f64),
    logits: (&'a [f32], f64),
}

impl Task for Divergence<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> f64 {
        let (a, a_last) = lanes(self.reference.0, f32::NEG_INFINITY);
        let (b, b_last) = lanes(self.logits.0, 0.0);
        let mut sums = [0.0; LANES];
        for (a, b) in a.iter().zip(b).chain([(&a_last, &b_last)]) {
            for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                let (a, b) = (f64::from(a) - self.reference.1, f64::from(b) - self.logits.1);
                // What has no probability does not count, however improbable the other finds it.
                *sum += if a < LEAST { 0.0 } else { exp(a) * (a - b) };
            }
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin() * 12.0 - 3.0).collect()
    }

    fn exact(logits: &[f32]) -> Vec<f64> {
        let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|&x| libm::exp(f64::from(x) - max)).sum();
        logits.iter().map(|&x| f64::from(x) - max - libm::log(sum)).collect()
    }

    #[test]
    fn the_exponential_is_right_to_the_last_places() {
        for i in 0..70_000 {
            let x = -f64::from(i) * 0.01;
            let (found, expected) = (exp(x), libm::exp(x));
            assert!(
                (found - expected).abs() <= 2.0 * f64::EPSILON * expected,
                "exp({x}) = {found}, not {expected}"
            );
        }
        assert_eq!((exp(0.0), exp(-701.0), exp(f64::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn probabilities_sum_to_one_and_are_the_same_at_every_level() {
        for len in [1, 15, 16, 17, 257, 2048] {
            let logits = wave(len, 0.37);
            let expected = log_sum_exp(Level::SCALAR, &logits);
            let sum: f64 = logits.iter().map(|&x| libm::exp(f64::from(x) - expected)).sum();
            assert!((sum - 1.0).abs() < 1e-14, "{len}: {sum}");
            for level in Level::available() {
                assert_eq!(log_sum_exp(level, &logits).to_bits(), expected.to_bits(), "{len} {level}");
            }
        }
    }

    #[test]
    fn the_divergence_is_right_and_the_same_at_every_level() {
        for len in [1, 15, 16, 17, 257, 2048] {
            let (a, b) = (wave(len, 0.37), wave(len, 0.38));
            let [(a, za), (b, zb)] = [&a, &b].map(|x| (x.as_slice(), log_sum_exp(Level::SCALAR, x)));
            let pairs = exact(a).into_iter().zip(exact(b));
            let expected: f64 = pairs.map(|(a, b)| libm::exp(a) * (a - b)).sum();
            let found = divergence(Level::SCALAR, (a, za), (b, zb)).unwrap();
            assert!((found - expected).abs() < 1e-13 * (1.0 + expected), "{len}: {found}, not {expected}");
            for level in Level::available() {
                let other = divergence(level, (a, za), (b, zb)).unwrap();
                assert_eq!(other.to_bits(), found.to_bits(), "{len} {level}");
            }
            assert_eq!(divergence(Level::SCALAR, (a, za), (a, za)).unwrap(), 0.0);
            assert!(divergence(Level::SCALAR, (a, za), (&b[1..], zb)).is_err());
        }
    }

    #[test]
    fn banned_tokens_have_no_probability_and_damage_is_not_hidden() {
        let level = Level::detect();
        assert_eq!(log_sum_exp(level, &[f32::NEG_INFINITY, 2.0]), 2.0);
        for damaged in [f32::NAN, f32::INFINITY] {
            assert!(log_sum_exp(level, &[1.0, damaged, 2.0]).is_nan());
        }
        assert!(log_sum_exp(level, &[f32::NEG_INFINITY; 3]).is_nan());
        let (a, b) = ([f32::NEG_INFINITY, 0.0], [0.0, 0.0]);
        let ln_2 = core::f64::consts::LN_2;
        assert_eq!(divergence(level, (&a, 0.0), (&b, ln_2)), Ok(ln_2));
        assert_eq!(divergence(level, (&b, ln_2), (&a, 0.0)), Ok(f64::INFINITY));
    }
}
