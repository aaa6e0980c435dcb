//! The stages that narrow the vocabulary down to the tokens to choose among.
//!
//! Sums run before anything is partially selected, for a selection leaves its elements in an order that is the
//! standard library's matter, and the rounding of a sum depends on the order.

use std::cmp::Ordering;

/// A token that may come.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    // Finite.
    logit: f32,
    // In proportion to the probability; 1 for the likeliest.
    weight: f64,
}

/// The tokens that may still come: either in the order of ids, or `ranked`.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    ranked: bool,
}

/// The higher logit first, of equal ones the lower id. No two candidates are equal, so any sort gives one order.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    // Not total_cmp: 0 and -0 are equally likely.
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// Room beside the `k` best, so that a selection, linear in what it looks at, is due only once in so many tokens.
const SLACK: usize = 64;

/// Candidates sorted in the first round of [`take_in_order`]: most distributions have their mass in fewer.
const FIRST_ROUND: usize = 256;

impl Candidates {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Begins anew with the `k` best of `row`, or with all where `k` is 0; never with negative infinity.
    pub fn top_k(&mut self, row: &[f32], k: usize) {
        let list = &mut self.list;
        list.clear();
        let all = k == 0 || k >= row.len();
        let room = if all { usize::MAX } else { k.saturating_mul(2).saturating_add(SLACK) };
        // What does not exceed this cannot be among the best: of equal logits, the earlier ids are kept already.
        let mut floor = f32::NEG_INFINITY;
        for (id, &logit) in (0..=u32::MAX).zip(row) {
            if logit > floor {
                list.push(Candidate { id, logit, weight: 0.0 });
                if list.len() >= room {
                    floor = keep_best(list, k).unwrap_or(floor);
                }
            }
        }
        if !all {
            keep_best(list, k);
            list.sort_unstable_by(by_rank);
        }
        self.ranked = !all;
    }

    /// The largest logit.
    fn max(&self) -> f64 {
        f64::from(self.list.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max))
    }

    /// Gives each candidate its weight at a temperature above 0; returns the sum of the weights.
    pub fn weigh(&mut self, temperature: f64) -> f64 {
        let max = self.max();
        let mut total = 0.0;
        for candidate in &mut self.list {
            candidate.weight = libm::exp((f64::from(candidate.logit) - max) / temperature);
            total += candidate.weight;
        }
        total
    }

    /// Locally typical sampling (Meister et al., 2022): keeps the tokens whose surprise is nearest to the expected
    /// surprise, the entropy, until their probabilities together exceed `p`.
    pub fn typical(&mut self, p: f64) {
        let (max, total) = (self.max(), self.weigh(1.0));
        let log_total = libm::log(total);
        let surprise = |c: &Candidate| log_total - (f64::from(c.logit) - max);
        let entropy: f64 = self.list.iter().map(|c| c.weight / total * surprise(c)).sum();
        let distance = |c: &Candidate| (surprise(c) - entropy).abs();
        let order = |a: &Candidate, b: &Candidate| {
            distance(a).partial_cmp(&distance(b)).unwrap_or(Ordering::Equal).then(by_rank(a, b))
        };
        let mut sum = 0.0;
        take_in_order(&mut self.list, order, |c| {
            sum += c.weight;
            sum > p * total
        });
        self.list.sort_unstable_by(by_rank);
        self.ranked = true;
    }

    /// Nucleus sampling (Holtzman et al., 2020): keeps the likeliest tokens until their probabilities together reach
    /// `p`.
    pub fn top_p(&mut self, p: f64) {
        let total = self.weigh(1.0);
        let mut sum = 0.0;
        let mut reached = |c: &Candidate| {
            sum += c.weight;
            sum >= p * total
        };
        if self.ranked {
            if let Some(last) = self.list.iter().position(&mut reached) {
                self.list.truncate(last + 1);
            }
        } else {
            take_in_order(&mut self.list, by_rank, reached);
            self.ranked = true;
        }
    }

    /// Keeps the tokens at least `p` times as likely as the likeliest (Nguyen et al., 2024); `p` is above 0.
    pub fn min_p(&mut self, p: f64) {
        let least = self.max() + libm::log(p);
        self.list.retain(|c| f64::from(c.logit) >= least);
    }

    /// The token at which the running sum of weights exceeds `target`, which is less than their total.
    pub fn at(&self, target: f64) -> Option<u32> {
        let mut sum = 0.0;
        let found = self.list.iter().find(|c| {
            sum += c.weight;
            sum > target
        });
        found.or(self.list.last()).map(|c| c.id)
    }

    /// Tokens and probabilities by rank, with `total` the sum of the weights.
    pub fn ranked(&mut self, total: f64) -> Vec<(u32, f32)> {
        if !self.ranked {
            self.list.sort_unstable_by(by_rank);
            self.ranked = true;
        }
        self.list.iter().map(|c| (c.id, (c.weight / total) as f32)).collect()
    }
}

/// Drops all but the `k` first by rank, in no order; returns the least logit kept where something was dropped.
fn keep_best(list: &mut Vec<Candidate>, k: usize) -> Option<f32> {
    let last = k.checked_sub(1)?;
    if list.len() <= k {
        return None;
    }
    let floor = list.select_nth_unstable_by(last, by_rank).1.logit;
    list.truncate(k);
    Some(floor)
}

/// Keeps what stands first in `order` up to and including the first element for which `last` is true, sorting rounds
/// of growing length until it is found; `last` sees each element once, in order.
fn take_in_order(
    list: &mut Vec<Candidate>,
    order: impl Fn(&Candidate, &Candidate) -> Ordering,
    mut last: impl FnMut(&Candidate) -> bool,
) {
    let mut done = 0;
    let mut round = FIRST_ROUND;
    while let Some(rest) = list.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let front = if round < rest.len() { rest.select_nth_unstable_by(round, &order).0 } else { rest };
        front.sort_unstable_by(&order);
        if let Some(at) = front.iter().position(&mut last) {
            list.truncate(done + at + 1);
            return;
        }
        done += front.len();
        round = round.saturating_mul(4);
    }
}
