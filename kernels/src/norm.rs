//! Norms of one row of activations, for the residual stream and for heads.
#![forbid(unsafe_code)]

use crate::Mismatch;
use crate::dispatch::Task;
use crate::simd::{Isa, Level, filled};

/// Root mean square norm (Zhang and Sennrich 2019): `x / sqrt(mean(x^2) + eps) * weight`, in place.
///
/// # Errors
/// [`Mismatch`] where `weight` is not as long as `x`.
pub fn rms_norm(level: Level, x: &mut [f32], weight: &[f32], eps: f32) -> Result<(), Mismatch> {
    if weight.len() != x.len() {
        return Err(Mismatch { what: "weights of a norm", expected: x.len(), found: weight.len() });
    }
    let mean_square = level.run(Dot { x, y: x }) / x.len() as f32;
    let scale = 1.0 / libm::sqrtf(mean_square + eps);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
    Ok(())
}

/// Layer norm (Ba, Kiros and Hinton 2016): `(x - mean) / sqrt(variance + eps) * weight + bias`, in place.
///
/// # Errors
/// [`Mismatch`] where `weight` or `bias` is not as long as `x`.
pub fn layer_norm(
    level: Level,
    x: &mut [f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
) -> Result<(), Mismatch> {
    for found in [weight.len(), bias.len()] {
        if found != x.len() {
            return Err(Mismatch { what: "weights of a norm", expected: x.len(), found });
        }
    }
    let mean = level.run(Sum { x }) / x.len() as f32;
    x.iter_mut().for_each(|x| *x -= mean);
    let variance = level.run(Dot { x, y: x }) / x.len() as f32;
    let scale = 1.0 / libm::sqrtf(variance + eps);
    for ((x, weight), bias) in x.iter_mut().zip(weight).zip(bias) {
        *x = *x * scale * weight + bias;
    }
    Ok(())
}

struct Dot<'a> {
    x: &'a [f32],
    y: &'a [f32],
}

impl Task for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let mut acc = [isa.splat(0.0); 4];
        let (x, x_left) = self.x.as_chunks::<32>();
        let (y, y_left) = self.y.as_chunks::<32>();
        let last = (&filled(x_left, 0.0), &filled(y_left, 0.0));
        for (x, y) in x.iter().zip(y).chain((!x_left.is_empty()).then_some(last)) {
            for (acc, (x, y)) in acc.iter_mut().zip(x.as_chunks().0.iter().zip(y.as_chunks().0)) {
                *acc = isa.fma(isa.floats(x), isa.floats(y), *acc);
            }
        }
        isa.sum(isa.add(isa.add(acc[0], acc[2]), isa.add(acc[1], acc[3])))
    }
}

struct Sum<'a> {
    x: &'a [f32],
}

impl Task for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let (x, left) = self.x.as_chunks::<8>();
        let mut acc = isa.floats(&filled(left, 0.0));
        for x in x {
            acc = isa.add(acc, isa.floats(x));
        }
        isa.sum(acc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.7).sin() * 3.0 + 0.5).collect()
    }

    #[test]
    fn norms_are_right_and_the_same_at_every_level() {
        for len in [1, 7, 8, 31, 32, 33, 64, 100, 257] {
            let (x, weight, bias) = (wave(len), vec![2.0; len], vec![0.25; len]);
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / len as f64;
            let square = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / len as f64;
            let (mut rms, mut layer) = (x.clone(), x.clone());
            rms_norm(Level::SCALAR, &mut rms, &weight, 1e-5).unwrap();
            layer_norm(Level::SCALAR, &mut layer, &weight, &bias, 1e-5).unwrap();
            for (i, &x) in x.iter().enumerate() {
                let expected = f64::from(x) / (square + 1e-5).sqrt() * 2.0;
                assert!((f64::from(rms[i]) - expected).abs() < 1e-5, "rms {len}: {} {expected}", rms[i]);
                let variance = square - mean * mean;
                let expected = (f64::from(x) - mean) / (variance + 1e-5).sqrt() * 2.0 + 0.25;
                assert!(
                    (f64::from(layer[i]) - expected).abs() < 2e-4,
                    "layer {len}: {} {expected}",
                    layer[i]
                );
            }
            for level in Level::available() {
                let (mut r, mut l) = (x.clone(), x.clone());
                rms_norm(level, &mut r, &weight, 1e-5).unwrap();
                layer_norm(level, &mut l, &weight, &bias, 1e-5).unwrap();
                assert_eq!((&r, &l), (&rms, &layer), "{level} {len}");
            }
        }
    }

    #[test]
    fn lengths_must_match() {
        assert!(rms_norm(Level::SCALAR, &mut [0.0; 4], &[1.0; 3], 1e-5).is_err());
        assert!(layer_norm(Level::SCALAR, &mut [0.0; 4], &[1.0; 4], &[1.0; 5], 1e-5).is_err());
    }
}
