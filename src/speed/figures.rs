//! What is to be said of runs that differ: medians, spreads, drifts, and ratios of pairs.
#![forbid(unsafe_code)]

use std::fmt;

/// Spread above which a median says little: the machine had other work, or its clock moved.
pub const STEADY: f64 = 0.1;

/// How sure the interval of a [`Ratio`] is meant to be.
const SURE: f64 = 0.9;

/// The figures of some runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Figures {
    /// Of these rates; `None` of no rates.
    pub fn of(rates: &[f64]) -> Option<Self> {
        let sorted = sorted(rates);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let (lower, upper) = (sorted.get((sorted.len() - 1) / 2)?, sorted.get(sorted.len() / 2)?);
        Some(Figures { median: (lower + upper) / 2.0, least, most })
    }

    /// Most less least, as a part of the median.
    pub fn spread(self) -> f64 {
        (self.most - self.least) / self.median
    }
}

fn sorted(rates: &[f64]) -> Vec<f64> {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// How the rates of runs went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Within [`STEADY`] of each other.
    Steady,
    /// Slower from run to run.
    Slower,
    /// Faster from run to run.
    Faster,
    /// Up and down.
    Unsteady,
}

impl Course {
    /// The course of these rates, in the order of the runs.
    pub fn of(rates: &[f64]) -> Self {
        let steady = Figures::of(rates).is_none_or(|figures| figures.spread() <= STEADY);
        match () {
            () if steady => Course::Steady,
            () if rates.is_sorted_by(|a, b| a >= b) => Course::Slower,
            () if rates.is_sorted_by(|a, b| a <= b) => Course::Faster,
            () => Course::Unsteady,
        }
    }
}

/// Why a median should not be believed: what the runs did, and whether a fixed workload between them did so too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The course of the runs.
    pub course: Course,
    /// Whether the machine itself was not steady, by its [reference workload](super::Suite::reference).
    pub machine: bool,
}

impl Remark {
    /// What is to be said of runs of these rates, while the reference workload had those; `None` of steady runs.
    pub fn of(rates: &[f64], reference: &[f64]) -> Option<Self> {
        let course = Course::of(rates);
        let machine = Course::of(reference) != Course::Steady;
        (course != Course::Steady).then_some(Remark { course, machine })
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.course {
            Course::Steady => "steady",
            Course::Slower => "drifts: slower from run to run",
            Course::Faster => "drifts: faster from run to run",
            Course::Unsteady => "unsteady",
        })?;
        f.write_str(if self.machine { " (the machine is unsteady)" } else { " (the machine is steady)" })
    }
}

/// How many times as fast one is as another, from pairs of runs that were made right after each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The median of the pairs' ratios.
    pub median: f64,
    /// Where the true median lies: from here
    pub low: f64,
    /// to here.
    pub high: f64,
    /// With this probability, whatever the ratios' distribution: 0.9 or more where there are enough pairs, 0 for one pair.
    pub confidence: f64,
}

impl Ratio {
    /// Of pairs of rates, the first of each over the second; `None` of no pairs.
    ///
    /// The interval is that of the sign test: each pair is as likely above the true median as below it, so that the true
    /// median lies outside of the order statistics `k` from both ends with twice the probability of at most `k` heads among
    /// as many coins as there are pairs.
    pub fn of_pairs(pairs: &[(f64, f64)]) -> Option<Self> {
        let ratios: Vec<f64> = pairs.iter().map(|(a, b)| a / b).collect();
        let median = Figures::of(&ratios)?.median;
        let (ratios, count) = (sorted(&ratios), ratios.len());
        // One outcome of all coins, the number of those with `k` heads, and those with at most `k`.
        let one = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
        let (mut ways, mut tail) = (1.0, 1.0);
        let (mut cut, mut confidence) = (0, 1.0 - 2.0 * one);
        for heads in 1..count / 2 {
            ways *= (count - heads + 1) as f64 / heads as f64;
            tail += ways;
            let sure = 1.0 - 2.0 * tail * one;
            if sure < SURE {
                break;
            }
            (cut, confidence) = (heads, sure);
        }
        let (low, high) = (*ratios.get(cut)?, *ratios.get(count - 1 - cut)?);
        Some(Ratio { median, low, high, confidence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_spread_a_part_of_it() {
        let figures = |rates: &[f64]| Figures::of(rates).map(|f| (f.median, f.least, f.most, f.spread()));
        assert_eq!(figures(&[]), None);
        assert_eq!(figures(&[2.0]), Some((2.0, 2.0, 2.0, 0.0)));
        assert_eq!(figures(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0, 1.0)));
        assert_eq!(figures(&[1.0, 3.0, 2.0, 6.0]), Some((2.5, 1.0, 6.0, 2.0)));
    }

    #[test]
    fn a_course_is_told_by_order_and_spread() {
        assert_eq!(Course::of(&[100.0, 96.0, 91.0]), Course::Steady);
        assert_eq!(Course::of(&[100.0, 96.0, 89.0]), Course::Slower);
        assert_eq!(Course::of(&[89.0, 96.0, 100.0]), Course::Faster);
        assert_eq!(Course::of(&[96.0, 89.0, 100.0]), Course::Unsteady);
        assert_eq!(Course::of(&[]), Course::Steady);
    }

    #[test]
    fn a_machine_that_drifts_is_told_from_a_model_that_does() {
        let drifting = [100.0, 90.0, 80.0];
        assert_eq!(Remark::of(&[50.0, 50.1], &drifting), None);
        let own = Remark::of(&drifting, &[7.0, 7.1, 7.0]);
        assert_eq!(own, Some(Remark { course: Course::Slower, machine: false }));
        let both = Remark::of(&drifting, &[7.0, 6.0, 5.0]);
        assert_eq!(both, Some(Remark { course: Course::Slower, machine: true }));
        assert_eq!(both.unwrap().to_string(), "drifts: slower from run to run (the machine is unsteady)");
    }

    #[test]
    fn the_interval_of_pairs_is_that_of_the_sign_test() {
        assert_eq!(Ratio::of_pairs(&[]), None);
        let one = Ratio::of_pairs(&[(3.0, 2.0)]).unwrap();
        assert_eq!((one.median, one.low, one.high, one.confidence), (1.5, 1.5, 1.5, 0.0));
        // Five pairs: 1 - 2 / 32, from the least to the most.
        let pairs: Vec<(f64, f64)> = [1.1, 1.3, 0.9, 1.2, 1.0].map(|ratio| (ratio * 8.0, 8.0)).into();
        let five = Ratio::of_pairs(&pairs).unwrap();
        assert_eq!((five.median, five.low, five.high, five.confidence), (1.1, 0.9, 1.3, 0.9375));
        // Eleven: outside of the third of each end with probability 2 (1 + 11 + 55) / 2048.
        let pairs: Vec<(f64, f64)> = (1..=11).map(|ratio| (f64::from(ratio), 1.0)).collect();
        let eleven = Ratio::of_pairs(&pairs).unwrap();
        assert_eq!((eleven.median, eleven.low, eleven.high), (6.0, 3.0, 9.0));
        assert!((eleven.confidence - (1.0 - 134.0 / 2048.0)).abs() < 1e-12);
    }

    #[test]
    fn a_ratio_is_of_pairs_not_of_medians() {
        // The second half of the pairs ran on a machine at half its speed.
        let pairs = [(100.0, 50.0), (101.0, 50.0), (50.0, 25.0), (50.5, 25.0)];
        let ratio = Ratio::of_pairs(&pairs).unwrap();
        assert!((ratio.median - 2.01).abs() < 1e-9 && ratio.high - ratio.low < 0.03, "{ratio:?}");
    }
}
