//! The functions between the two halves of a feed-forward network.
#![forbid(unsafe_code)]

use crate::Mismatch;
use crate::dispatch::Task;
use crate::simd::{Isa, Level, filled};

/// A function of one variable, applied to each value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))` (Hendrycks and Gimpel 2016, the tanh form).
    GeluTanh,
    /// `x / 2 (1 + erf(x / sqrt(2)))` (Hendrycks and Gimpel 2016); erf within 1.5e-7 by Abramowitz and Stegun, 7.1.26.
    Gelu,
    /// The larger of `x` and 0.
    Relu,
    /// The square of the larger of `x` and 0 (So and others 2021).
    ReluSquared,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x` itself: a gate that only multiplies.
    Identity,
    /// `x / (1 + exp(-1.702 x))` of `x` up to 7; what a gate multiplies is kept between -7 and 7, and one is added to it
    /// (OpenAI 2025, gpt-oss).
    SwigluClamped,
}

impl Activation {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, x: I::Floats) -> I::Floats {
        match self {
            Activation::Silu => silu(isa, x),
            Activation::GeluTanh => {
                // x / 2 (1 + tanh u) = x / (1 + exp(-2 u))
                let square = isa.mul(x, x);
                let inner = isa.fma(square, isa.splat(0.044_715), isa.splat(1.0));
                let twice_u = isa.mul(isa.mul(x, isa.splat(1.595_769)), inner);
                divide_by_one_plus_exp_of_minus(isa, x, twice_u)
            }
            Activation::Gelu => gelu(isa, x),
            // This order of the two lets NaN through.
            Activation::Relu => isa.max(isa.splat(0.0), x),
            Activation::ReluSquared => {
                let x = isa.max(isa.splat(0.0), x);
                isa.mul(x, x)
            }
            Activation::Sigmoid => divide_by_one_plus_exp_of_minus(isa, isa.splat(1.0), x),
            Activation::Identity => x,
            Activation::SwigluClamped => {
                // This order of the two lets NaN through.
                let x = isa.min(isa.splat(7.0), x);
                divide_by_one_plus_exp_of_minus(isa, x, isa.mul(x, isa.splat(1.702)))
            }
        }
    }

    /// What a gate multiplies.
    #[inline(always)]
    fn gated<I: Isa>(self, isa: I, up: I::Floats) -> I::Floats {
        match self {
            Activation::SwigluClamped => {
                let up = isa.max(isa.splat(-7.0), isa.min(isa.splat(7.0), up));
                isa.add(up, isa.splat(1.0))
            }
            _ => up,
        }
    }
}

#[inline(always)]
fn silu<I: Isa>(isa: I, x: I::Floats) -> I::Floats {
    divide_by_one_plus_exp_of_minus(isa, x, x)
}

/// `x / 2 (1 + erf(x / sqrt(2)))`, where for `z = |x| / sqrt(2)` and `t = 1 / (1 + p z)` `1 - erf(z)` is
/// `t (a1 + t (a2 + ...)) exp(-z^2)`.
#[inline(always)]
fn gelu<I: Isa>(isa: I, x: I::Floats) -> I::Floats {
    let zero = isa.splat(0.0);
    let z = isa.mul(x, isa.splat(core::f32::consts::FRAC_1_SQRT_2));
    let z = isa.select_less(z, zero, isa.sub(zero, z), z);
    let t = isa.div(isa.splat(1.0), isa.fma(z, isa.splat(0.327_591_1), isa.splat(1.0)));
    let mut p = isa.splat(1.061_405_4);
    for a in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = isa.fma(p, t, isa.splat(a));
    }
    let e = isa.exp(isa.sub(zero, isa.mul(z, z)));
    let rest = isa.mul(isa.mul(p, t), e);
    let twice = isa.select_less(x, zero, rest, isa.sub(isa.splat(2.0), rest));
    isa.mul(isa.mul(x, isa.splat(0.5)), twice)
}

/// Replaces each value of `x` by `cap * tanh(x / cap)`.
pub fn soft_cap(level: Level, cap: f32, x: &mut [f32]) {
    level.run(SoftCap { cap, x });
}

struct SoftCap<'a> {
    cap: f32,
    x: &'a mut [f32],
}

impl Task for SoftCap<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // tanh u = 2 / (1 + exp(-2 u)) - 1
        let factor = isa.splat(2.0 / self.cap);
        let (twice_cap, minus_cap) = (isa.splat(2.0 * self.cap), isa.splat(-self.cap));
        let (eights, rest) = self.x.as_chunks_mut();
        let mut last = filled(rest, 0.0);
        for x in eights.iter_mut().chain([&mut last]) {
            let u = isa.mul(isa.floats(x), factor);
            isa.store(isa.add(divide_by_one_plus_exp_of_minus(isa, twice_cap, u), minus_cap), x);
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// `x / (1 + exp(-u))`
#[inline(always)]
fn divide_by_one_plus_exp_of_minus<I: Isa>(isa: I, x: I::Floats, u: I::Floats) -> I::Floats {
    let e = isa.exp(isa.sub(isa.splat(0.0), u));
    isa.div(x, isa.add(isa.splat(1.0), e))
}

/// Replaces each value of `x` by the function of it.
pub fn activate(level: Level, activation: Activation, x: &mut [f32]) {
    level.run(Activate { activation, x, up: None });
}

/// Gated linear unit (Shazeer 2020): `gate` becomes `activation(gate) * up`.
///
/// # Errors
/// [`Mismatch`] where the two are not of one length.
pub fn gated(level: Level, activation: Activation, gate: &mut [f32], up: &[f32]) -> Result<(), Mismatch> {
    if gate.len() != up.len() {
        return Err(Mismatch { what: "values to be gated", expected: gate.len(), found: up.len() });
    }
    level.run(Activate { activation, x: gate, up: Some(up) });
    Ok(())
}

struct Activate<'a> {
    activation: Activation,
    x: &'a mut [f32],
    up: Option<&'a [f32]>,
}

impl Task for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (eights, rest) = self.x.as_chunks_mut();
        let mut last = filled(rest, 0.0);
        let mut ups = self.up.map(|up| {
            let (eights, rest) = up.as_chunks();
            eights.iter().copied().chain([filled(rest, 0.0)])
        });
        for x in eights.iter_mut().chain([&mut last]) {
            let mut y = self.activation.apply(isa, isa.floats(x));
            if let Some(up) = ups.as_mut().and_then(Iterator::next) {
                y = isa.mul(y, self.activation.gated(isa, isa.floats(&up)));
            }
            isa.store(y, x);
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<f32> {
        let mut x: Vec<f32> = (-2000..2000).map(|i| i as f32 * 0.0137).collect();
        x.extend([0.0, -0.0, 1e-30, -1e-30, 90.0, -90.0, 1e5, -1e5, f32::MAX, f32::MIN]);
        x
    }

    #[test]
    fn functions_are_right_and_the_same_at_every_level() {
        for activation in [
            Activation::Silu,
            Activation::GeluTanh,
            Activation::Gelu,
            Activation::Relu,
            Activation::ReluSquared,
            Activation::Sigmoid,
            Activation::Identity,
            Activation::SwigluClamped,
        ] {
            let exact = |x: f64| match activation {
                Activation::Silu => x / (1.0 + (-x).exp()),
                Activation::GeluTanh => {
                    0.5 * x
                        * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
                }
                Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())),
                Activation::Relu => x.max(0.0),
                Activation::ReluSquared => x.max(0.0).powi(2),
                Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                Activation::Identity => x,
                Activation::SwigluClamped => x.min(7.0) / (1.0 + (-1.702 * x.min(7.0)).exp()),
            };
            let mut expected = values();
            activate(Level::SCALAR, activation, &mut expected);
            for (x, &found) in values().into_iter().zip(&expected) {
                let exact = exact(f64::from(x));
                let error = (f64::from(found) - exact).abs();
                // Far out, the rounding of the exponent's argument shows: some units in the last place of x^2.
                let mut bound = (1e-6 + 1e-7 * f64::from(x).powi(2)) * exact.abs() + 1e-11;
                if activation == Activation::Gelu {
                    bound += 2.5e-7 * f64::from(x.abs());
                }
                if f64::from(found) == f64::from(exact as f32) {
                    continue;
                }
                assert!(error <= bound, "{activation:?}({x}) = {found}, not {exact}");
            }
            for level in Level::available() {
                let mut found = values();
                activate(level, activation, &mut found);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&found), bits(&expected), "{activation:?} at {level}");
            }
        }
    }

    #[test]
    fn a_soft_cap_bends_to_its_bound_and_the_same_at_every_level() {
        let mut expected = values();
        soft_cap(Level::SCALAR, 30.0, &mut expected);
        for (x, &found) in values().into_iter().zip(&expected) {
            let exact = 30.0 * (f64::from(x) / 30.0).tanh();
            assert!((f64::from(found) - exact).abs() < 1e-5, "{x}: {found}, not {exact}");
        }
        for level in Level::available() {
            let mut found = values();
            soft_cap(level, 30.0, &mut found);
            assert_eq!(found, expected, "{level}");
        }
    }

    #[test]
    fn nan_stays_and_infinity_goes_where_it_should() {
        let mut x = [f32::NAN, f32::INFINITY];
        activate(Level::detect(), Activation::Silu, &mut x);
        assert!(x[0].is_nan() && x[1] == f32::INFINITY, "{x:?}");
    }

    #[test]
    fn a_clamped_gate_adds_one() {
        let mut gate = [100.0, 100.0, 0.0, 7.0];
        gated(Level::detect(), Activation::SwigluClamped, &mut gate, &[100.0, -100.0, 5.0, 0.5]).unwrap();
        let seven = 7.0 / (1.0 + (-1.702f32 * 7.0).exp());
        for (found, expected) in gate.iter().zip([8.0 * seven, -6.0 * seven, 0.0, 1.5 * seven]) {
            assert!((found - expected).abs() < 1e-5, "{gate:?}");
        }
    }

    #[test]
    fn a_gate_multiplies() {
        let mut gate = [1.0; 11];
        gated(Level::detect(), Activation::Silu, &mut gate, &[2.0; 11]).unwrap();
        assert!(gate.iter().all(|g| (g - 1.462_117_2).abs() < 1e-6), "{gate:?}");
        assert!(gated(Level::detect(), Activation::Silu, &mut gate, &[2.0; 10]).is_err());
    }
}
