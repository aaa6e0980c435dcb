//! Numbers with what is known of their error.

use std::fmt;

/// A number and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its standard error, as though the values behind it were independent; NaN where a single value says nothing of it.
    pub error: f64,
}

impl Estimate {
    /// The mean of values.
    pub(super) fn mean(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (mut sum, mut count) = (0.0, 0.0);
        for value in values.clone() {
            sum += value;
            count += 1.0;
        }
        let mean: f64 = sum / count;
        let variance = values.map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
        Estimate { value: mean, error: libm::sqrt(variance / (count - 1.0)) }
    }

    /// What becomes of it by a function that gives `value` and has this slope there.
    pub(super) fn carried(self, value: f64, slope: f64) -> Self {
        Estimate { value, error: self.error * slope.abs() }
    }

    /// `e` to its power.
    pub(super) fn exp(self) -> Self {
        let value = libm::exp(self.value);
        self.carried(value, value)
    }
}

/// As llama.cpp prints it: `45.0241 +/- 0.70581`.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4} +/- {:.5}", self.value, self.error)
    }
}

/// Many values.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    mean: Estimate,
    sorted: Vec<f64>,
}

impl Distribution {
    /// Of at least one value.
    pub(super) fn new(mut values: Vec<f64>) -> Self {
        let mean = Estimate::mean(values.iter().copied());
        values.sort_by(f64::total_cmp);
        Distribution { mean, sorted: values }
    }

    /// Their mean.
    pub fn mean(&self) -> Estimate {
        self.mean
    }

    /// The value that `fraction` of them (0 to 1) lie below; between two of them on the line from one to the other.
    pub fn quantile(&self, fraction: f64) -> f64 {
        let place = fraction.clamp(0.0, 1.0) * self.sorted.len().saturating_sub(1) as f64;
        let below = place as usize;
        let at = |place: usize| self.sorted.get(place).copied().unwrap_or(f64::NAN);
        let part = place - below as f64;
        if part > 0.0 { (1.0 - part) * at(below) + part * at(below + 1) } else { at(below) }
    }

    /// The value in the middle.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The least.
    pub fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    /// The greatest.
    pub fn max(&self) -> f64 {
        self.quantile(1.0)
    }
}

/// How many of some tries went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Share {
    /// Those that did.
    pub right: usize,
    /// All.
    pub of: usize,
}

impl Share {
    pub(super) fn count(&mut self, right: bool) {
        self.right += usize::from(right);
        self.of += 1;
    }

    /// The share itself, with the standard error of a mean.
    pub fn estimate(self) -> Estimate {
        let (n, p) = (self.of as f64, self.right as f64 / self.of as f64);
        Estimate { value: p, error: libm::sqrt(p * (1.0 - p) / (n - 1.0)) }
    }

    /// The interval that holds the true share in 95 of 100 cases, by Wilson (1927): good for few tries, and near 0 and 1.
    pub fn interval(self) -> (f64, f64) {
        // The normal distribution's quantile of 97.5 %.
        const Z: f64 = 1.959_963_984_540_054;
        let (n, p) = (self.of as f64, self.right as f64 / self.of as f64);
        let z2 = Z * Z / n;
        let middle = (p + z2 / 2.0) / (1.0 + z2);
        let half = libm::sqrt(p * (1.0 - p) * z2 + z2 * z2 / 4.0) / (1.0 + z2);
        (middle - half, middle + half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_has_the_error_of_the_sample() {
        // numpy: x.std(ddof=1) / sqrt(len(x))
        let found = Estimate::mean([1.0, 2.0, 4.0, 8.0].into_iter());
        assert_eq!(found.value, 3.75);
        assert!((found.error - 1.547_847_968_417_226).abs() < 1e-15, "{found:?}");
        assert!(Estimate::mean([1.0].into_iter()).error.is_nan());
        let power = Estimate { value: 0.0, error: 0.5 }.exp();
        assert_eq!(power, Estimate { value: 1.0, error: 0.5 });
    }

    #[test]
    fn quantiles_lie_between_values() {
        let values = Distribution::new(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!((values.min(), values.median(), values.max()), (1.0, 2.5, 4.0));
        // numpy.quantile([1, 2, 3, 4], 0.9)
        assert!((values.quantile(0.9) - 3.7).abs() < 1e-15);
        assert_eq!(Distribution::new(vec![0.0, f64::INFINITY]).quantile(0.0), 0.0);
    }

    #[test]
    fn shares_have_wilsons_interval() {
        // statsmodels: proportion_confint(15, 20, method="wilson")
        let share = Share { right: 15, of: 20 };
        let (low, high) = share.interval();
        assert!((low - 0.531_299_1).abs() < 1e-7 && (high - 0.888_138_3).abs() < 1e-7, "{low} {high}");
        assert_eq!(share.estimate().value, 0.75);
        let all = Share { right: 3, of: 3 };
        assert!(all.interval().0 > 0.4 && (all.interval().1 - 1.0).abs() < 1e-12, "{:?}", all.interval());
        assert_eq!(all.estimate().error, 0.0);
    }
}
