//! The account of passes: what is known of each kind of operation, and what the pass at hand asks for.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::time::Instant;

use gristmill_kernels::product::PANEL_ROWS;
use gristmill_kernels::quant::GgmlType;

use crate::Result;
use crate::backend::{Cache, CacheTypes, LayerShape};

/// Bytes of keys and values that are attended in turn, so that a layer finds none of its own in the caches.
const KEPT: usize = 64 << 20;
/// Multiplications, and bytes of weights, of a product for each thread: some milliseconds' worth. Products of more are timed
/// with some of their rows.
const MULTIPLICATIONS: usize = 1 << 29;
const BYTES: usize = 8 << 20;
/// Multiplications of a product that is only tried.
const TRIED: usize = 1 << 24;
/// Times that an operation is carried out at least.
const LEAST: usize = 3;

/// What passes read and multiply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of weights that are read.
    pub weights: u64,
    /// Bytes of keys, values and states that are read.
    pub cache: u64,
    /// Multiplications of 8-bit codes.
    pub codes: u64,
    /// Multiplications of floats in products, attention and recurrences.
    pub floats: u64,
}

impl Cost {
    /// Bytes that are read in all.
    pub fn bytes(self) -> u64 {
        self.weights.saturating_add(self.cache)
    }

    pub(crate) fn add(&mut self, more: Cost, times: u64) {
        let add = |to: &mut u64, more: u64| *to = to.saturating_add(more.saturating_mul(times));
        add(&mut self.weights, more.weights);
        add(&mut self.cache, more.cache);
        add(&mut self.codes, more.codes);
        add(&mut self.floats, more.floats);
    }
}

/// How far operations are carried out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Effort {
    /// Not at all.
    Count,
    /// Each kind once, large products with a few rows: so that memory is taken as by the real ones.
    Try,
    /// All of them, as long as the seconds last that were [granted](Book::grant).
    Time,
}

/// An operation, as far as its time depends on it.
pub(super) type Kind = (&'static str, Option<GgmlType>, [usize; 6]);

/// What is known of a kind: how often it was timed, and the seconds of the first time, of the slowest other, of all others.
#[derive(Default)]
struct Known {
    times: usize,
    first: f64,
    slowest: f64,
    others: f64,
}

impl Known {
    fn add(&mut self, seconds: f64) {
        if self.times == 0 {
            self.first = seconds;
        } else {
            self.slowest = self.slowest.max(seconds);
            self.others += seconds;
        }
        self.times += 1;
    }

    /// The mean, since passes take sums: but for the first time, which warms up, and the slowest, in which the machine may have
    /// done something else.
    fn seconds(&self) -> f64 {
        match self.times {
            0 | 1 => self.first,
            2 => self.others,
            times => (self.others - self.slowest) / (times - 2) as f64,
        }
    }
}

/// What is known of operations, and the account of the pass at hand.
pub(crate) struct Book {
    effort: Effort,
    cache: CacheTypes,
    /// Layers of the model.
    layers: usize,
    /// Seconds that each kind took.
    known: HashMap<Kind, Known>,
    /// Seconds spent on carrying out operations, and those that may be.
    spent: f64,
    granted: f64,
    /// Keys and values to attend at one depth: layers of a shape that take turns.
    kept: Vec<(LayerShape, Cache, usize)>,
    /// Where they end, and whether one token attends them or more.
    place: (usize, bool),
    /// How often each kind occurred in the pass, and what all of it cost.
    counts: HashMap<Kind, usize>,
    cost: Cost,
    /// Seconds of the pass that were spent in here.
    inside: f64,
}

impl Book {
    pub fn new(effort: Effort, cache: CacheTypes, layers: usize) -> Self {
        Book {
            effort,
            cache,
            layers: layers.max(1),
            known: HashMap::new(),
            spent: 0.0,
            granted: 0.0,
            kept: Vec::new(),
            place: (0, false),
            counts: HashMap::new(),
            cost: Cost::default(),
            inside: 0.0,
        }
    }

    /// Lets so many seconds be spent from now on.
    pub fn grant(&mut self, seconds: f64) {
        (self.spent, self.granted) = (0.0, seconds);
    }

    /// Begins a new pass.
    pub fn begin(&mut self) {
        self.counts.clear();
        self.cost = Cost::default();
        self.inside = 0.0;
    }

    /// What the pass cost.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Seconds that the pass's operations take.
    pub fn seconds(&self) -> f64 {
        let time = |(kind, count): (&Kind, &usize)| {
            self.known.get(kind).map_or(0.0, |known| known.seconds() * *count as f64)
        };
        self.counts.iter().map(time).sum()
    }

    /// Seconds of the pass that were spent in here.
    pub fn inside(&self) -> f64 {
        self.inside
    }

    /// Notes that the pass has an operation of a kind.
    pub(super) fn count(&mut self, kind: Kind) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// Adds to what the pass costs.
    pub(super) fn charge(&mut self, cost: Cost) {
        self.cost.add(cost, 1);
    }

    /// How often a kind was timed.
    pub(super) fn times(&self, kind: &Kind) -> usize {
        self.known.get(kind).map_or(0, |known| known.times)
    }

    /// Notes that a part of an operation took so many seconds; all of it takes `factor` times as many.
    pub(super) fn record(&mut self, kind: Kind, seconds: f64, factor: f64) {
        self.spent += seconds;
        self.known.entry(kind).or_default().add(seconds * factor);
    }

    /// Notes that the time since `entered` was spent in here.
    pub(super) fn leave(&mut self, entered: Instant) {
        self.inside += entered.elapsed().as_secs_f64();
    }

    /// Whether an operation of a kind is to be carried out.
    pub(super) fn wants(&self, kind: &Kind) -> bool {
        let times = self.times(kind);
        match self.effort {
            Effort::Count => false,
            Effort::Try => times == 0,
            // A machine that is too slow for the seconds still tells something of each kind.
            Effort::Time => {
                times == 0 || self.spent < self.granted || (times < LEAST && self.spent < 4.0 * self.granted)
            }
        }
    }

    /// Rows of a product that are carried out, of matrices of `rows` rows in all, `row_bytes` each, times `columns` inputs.
    pub(super) fn rows(
        &self,
        rows: usize,
        row_bytes: usize,
        multiplications: usize,
        threads: usize,
    ) -> usize {
        if self.effort == Effort::Try {
            return rows.min((TRIED / multiplications.max(1)).max(PANEL_ROWS));
        }
        let by_time = MULTIPLICATIONS.saturating_mul(threads) / multiplications.max(1);
        let by_bytes = BYTES.saturating_mul(threads) / row_bytes.max(1);
        // Tasks are as many, and panels as full, as those of all rows.
        rows.min(by_time.min(by_bytes).max(16 * PANEL_ROWS * threads))
    }

    /// Bytes of keys and values of a layer, for so many positions.
    pub(super) fn kept_bytes(&self, shape: LayerShape, positions: usize) -> usize {
        shape.bytes(self.cache, positions)
    }

    /// A layer to attend from position `start` on, taken out until it is [put back](Self::put_back): one of several where few
    /// tokens read all of it.
    pub(super) fn take_layer(
        &mut self,
        shape: LayerShape,
        start: usize,
        tokens: usize,
    ) -> Result<(Cache, usize)> {
        let place = (start, tokens > 1);
        if self.place != place {
            // Windows have moved on, and what follows wants fewer layers or more.
            self.kept.clear();
            self.place = place;
        }
        let bytes = self.kept_bytes(shape, start + tokens).max(1);
        let layers = if tokens > 1 { 1 } else { KEPT.div_ceil(bytes).clamp(1, self.layers) };
        let (mut cache, next) = match self.kept.iter().position(|(other, ..)| *other == shape) {
            Some(place) => {
                let (_, cache, last) = self.kept.swap_remove(place);
                (cache, (last + 1) % layers)
            }
            None => (Cache::new(self.cache, (0..layers).map(|_| shape)), 1 % layers),
        };
        cache.lengthen(next, start)?;
        Ok((cache, next))
    }

    /// Puts back what was attended last.
    pub(super) fn put_back(&mut self, shape: LayerShape, cache: Cache, layer: usize) {
        self.kept.push((shape, cache, layer));
    }
}

/// The middle one; 0 of none.
pub(crate) fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_first_time_nor_the_slowest_counts() {
        let seconds = |times: &[f64]| {
            let mut known = Known::default();
            times.iter().for_each(|&time| known.add(time));
            known.seconds()
        };
        assert_eq!([&[][..], &[9.0], &[9.0, 2.0]].map(seconds), [0.0, 9.0, 2.0]);
        assert_eq!([&[9.0, 8.0, 2.0][..], &[0.0, 1.0, 2.0, 50.0]].map(seconds), [2.0, 1.5]);
    }
}
