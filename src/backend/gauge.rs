//! What passes cost: a backend that counts operations, and times them on this machine for a while only.
//!
//! The network walks through its pass as ever. As long as there is time its operations are carried out, one behind the other as in
//! a real pass, so that caches hold what they would hold; then only those of a kind that is not known yet are, and the results of
//! the others are whatever lay in their place. What a pass would have taken is told by the kinds' times.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use gristmill_kernels::activations::Form;
use gristmill_kernels::product::{self, PANEL_ROWS};
use gristmill_kernels::quant::GgmlType;

use super::cpu::Cpu;
use super::{
    Act, Activation, Attention, Backend, Cache, CacheTypes, Constant, Convolution, Grouped, LayerShape, Map,
    Mark, Matrix, Norm, Recurrence, Scan, Slots, States, Turns, Wkv,
};
use crate::Result;

/// Positions that attention is timed with at most; it takes as many times longer as there are times more.
const POSITIONS: usize = 4096;
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
/// Outputs of a matrix that may be a router's: what is read of its results should differ from token to token.
const ROUTER: usize = 1024;

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
type Kind = (&'static str, Option<GgmlType>, [usize; 6]);

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

    fn wants(&self, kind: &Kind) -> bool {
        let times = self.known.get(kind).map_or(0, |known| known.times);
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
    fn rows(&self, rows: usize, row_bytes: usize, multiplications: usize, threads: usize) -> usize {
        if self.effort == Effort::Try {
            return rows.min((TRIED / multiplications.max(1)).max(PANEL_ROWS));
        }
        let by_time = MULTIPLICATIONS.saturating_mul(threads) / multiplications.max(1);
        let by_bytes = BYTES.saturating_mul(threads) / row_bytes.max(1);
        // Tasks are as many, and panels as full, as those of all rows.
        rows.min(by_time.min(by_bytes).max(16 * PANEL_ROWS * threads))
    }

    /// A layer to attend from position `start` on: one of several where few tokens read all of it.
    fn kept(&mut self, shape: LayerShape, start: usize, tokens: usize) -> Result<(&mut Cache, usize)> {
        let place = (start, tokens > 1);
        if self.place != place {
            // Windows have moved on, and what follows wants fewer layers or more.
            self.kept.clear();
            self.place = place;
        }
        let bytes = shape.bytes(self.cache, start + tokens).max(1);
        let layers = if tokens > 1 { 1 } else { KEPT.div_ceil(bytes).clamp(1, self.layers) };
        let place = match self.kept.iter().position(|(other, ..)| *other == shape) {
            Some(place) => place,
            None => {
                let cache = Cache::new(self.cache, (0..layers).map(|_| shape));
                self.kept.push((shape, cache, 0));
                self.kept.len() - 1
            }
        };
        let gone = crate::Error::Internal { what: "a layer to attend that is gone" };
        let (_, cache, next) = self.kept.get_mut(place).ok_or(gone)?;
        *next = (*next + 1) % layers;
        cache.lengthen(*next, start)?;
        Ok((cache, *next))
    }
}

/// The middle one; 0 of none.
pub(crate) fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// The operations of one pass, counted and timed.
pub(crate) struct Gauge<'a, 'b> {
    pub cpu: Cpu<'b>,
    pub book: &'a mut Book,
    /// Positions that the sequence has before the pass.
    pub depth: usize,
}

impl<'b> Gauge<'_, 'b> {
    /// An operation: carried out where it is to be timed, and then it is `factor` times as long as what is carried out;
    /// else `blank` stands in for its results.
    fn step<R>(
        &mut self,
        kind: Kind,
        factor: f64,
        real: impl FnOnce(&mut Cpu<'b>, usize) -> Result<R>,
        blank: impl FnOnce(&mut Cpu<'b>) -> Result<R>,
    ) -> Result<R> {
        let entered = Instant::now();
        *self.book.counts.entry(kind).or_default() += 1;
        let result = if self.book.wants(&kind) {
            let times = self.book.known.get(&kind).map_or(0, |known| known.times);
            let began = Instant::now();
            let result = real(&mut self.cpu, times);
            let took = began.elapsed().as_secs_f64();
            self.book.spent += took;
            self.book.known.entry(kind).or_default().add(took * factor);
            result
        } else {
            blank(&mut self.cpu)
        };
        self.book.inside += entered.elapsed().as_secs_f64();
        result
    }

    /// An operation whose results stay in their place.
    fn in_place(
        &mut self,
        name: &'static str,
        sizes: [usize; 6],
        real: impl FnOnce(&mut Cpu<'b>) -> Result<()>,
    ) -> Result<()> {
        self.step((name, None, sizes), 1.0, |cpu, _| real(cpu), |_| Ok(()))
    }

    /// An operation that makes a matrix `[rows, width]`.
    fn making(
        &mut self,
        name: &'static str,
        more: [usize; 4],
        (rows, width): (usize, usize),
        real: impl FnOnce(&mut Cpu<'b>) -> Result<Act>,
    ) -> Result<Act> {
        let [a, b, c, d] = more;
        let kind = (name, None, [rows, width, a, b, c, d]);
        self.step(kind, 1.0, |cpu, _| real(cpu), |cpu| blank(cpu, rows, width))
    }

    fn multiplied(&mut self, ty: GgmlType, multiplications: usize, bytes: usize) {
        let multiplications = multiplications as u64;
        let floats = product::form(ty).is_none_or(|form| form == Form::Floats);
        let (codes, floats) = if floats { (0, multiplications) } else { (multiplications, 0) };
        self.book.cost.add(Cost { weights: bytes as u64, cache: 0, codes, floats }, 1);
    }

    fn recurred(&mut self, state: usize, multiplications: usize) {
        let cache = (state * size_of::<f32>()) as u64;
        self.book.cost.add(Cost { cache, floats: multiplications as u64, ..Cost::default() }, 1);
    }

    fn attend(&mut self, spec: &Attention, queries: Act, keys_values: Option<[Act; 2]>) -> Result<Act> {
        let (shape, tokens) = (spec.shape, queries.rows);
        let seen = |start: usize| -> usize {
            let end = start + tokens;
            (start..end).map(|position| shape.sees.range(position, end).len()).sum()
        };
        let all = seen(self.depth);
        let positions = shape.sees.range(self.depth, self.depth + tokens);
        let read = shape.bytes(self.book.cache, positions.len());
        let floats = all.saturating_mul(spec.heads).saturating_mul(shape.key_dim + shape.value_dim);
        self.book.cost.add(Cost { cache: read as u64, floats: floats as u64, ..Cost::default() }, 1);

        let start = self.depth.min(POSITIONS);
        let factor = all as f64 / seen(start).max(1) as f64;
        let kind =
            ("attention", None, [tokens, all, spec.heads, shape.heads, shape.key_dim, shape.value_dim]);
        if !self.book.wants(&kind) {
            let blank = |cpu: &mut Cpu<'b>| blank(cpu, tokens, spec.heads * shape.value_dim);
            return self.step(kind, factor, |cpu, _| blank(cpu), blank);
        }
        let entered = Instant::now();
        let (cache, layer) = self.book.kept(shape, start, tokens)?;
        // Taken out for as long as it is attended: the book is written to meanwhile.
        let mut cache = std::mem::replace(cache, Cache::new(CacheTypes::default(), []));
        self.book.inside += entered.elapsed().as_secs_f64();
        let real = |cpu: &mut Cpu<'b>, _| match keys_values {
            Some([keys, values]) => cpu.attention(spec, &mut cache, layer, start, queries, keys, values),
            None => cpu.attend_again(spec, &mut cache, layer, start, queries),
        };
        let done = self.step(kind, factor, real, |cpu| blank(cpu, tokens, spec.heads * shape.value_dim));
        if let Some((_, place, _)) = self.book.kept.iter_mut().find(|(other, ..)| *other == shape) {
            *place = cache;
        }
        done
    }
}

/// Makes rows of what could be a router's results differ from each other.
fn scatter(width: usize, data: &mut [f32]) {
    if width <= ROUTER {
        let mut state = 1_u32;
        for x in data {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *x = (state >> 8) as f32 / (1 << 24) as f32;
        }
    }
}

/// A matrix of whatever lies in its place. What a router could be is made to differ from token to token.
fn blank(cpu: &mut Cpu<'_>, rows: usize, width: usize) -> Result<Act> {
    let (act, mut data) = cpu.make(rows, width)?;
    scatter(width, &mut data);
    cpu.put(act, data);
    Ok(act)
}

impl Backend for Gauge<'_, '_> {
    fn lookup(&mut self, table: &Matrix, rows: &[usize]) -> Result<Act> {
        let row_bytes = table.ty.row_bytes(table.len).unwrap_or(0);
        self.book.cost.add(Cost { weights: (rows.len() * row_bytes) as u64, ..Cost::default() }, 1);
        // Not all of the table may be there.
        let there = (table.bytes().len() / row_bytes.max(1)).max(1);
        let near: Vec<usize> = rows.iter().map(|row| row % there).collect();
        let kind = ("lookup", Some(table.ty), [rows.len(), table.len, 0, 0, 0, 0]);
        self.step(kind, 1.0, |cpu, _| cpu.lookup(table, &near), |cpu| blank(cpu, near.len(), table.len))
    }

    fn linear(&mut self, weights: &Matrix, bias: Option<&Constant>, x: Act) -> Result<Act> {
        let (rows, len) = (weights.rows, weights.len);
        let row_bytes = weights.ty.row_bytes(len).unwrap_or(0);
        self.multiplied(weights.ty, rows * len * x.rows, rows * row_bytes);
        let threads = self.cpu.threads();
        let some = self.book.rows(rows, row_bytes, len * x.rows, threads);
        let there = weights.bytes().len() / row_bytes.max(1);
        let some = some.min(there).max(1);
        let kind = ("linear", Some(weights.ty), [rows, len, x.rows, bias.is_some().into(), 0, 0]);
        let factor = rows as f64 / some as f64;
        let real = |cpu: &mut Cpu<'_>, times: usize| {
            if some == rows {
                return cpu.linear(weights, bias, x);
            }
            // Other rows each time, so that caches hold none of them.
            let first = if there > some { times * some % (there - some) } else { 0 };
            let act = blank(cpu, x.rows, rows)?;
            let mark = cpu.mark();
            cpu.linear(&weights.window(first..first + some), None, x)?;
            cpu.release(mark);
            Ok(act)
        };
        let act = self.step(kind, factor, real, |cpu| blank(cpu, x.rows, rows))?;
        // Weights that only stand in would send all tokens to the same experts.
        let entered = Instant::now();
        let mut data = self.cpu.take(act);
        scatter(rows, &mut data);
        self.cpu.put(act, data);
        self.book.inside += entered.elapsed().as_secs_f64();
        Ok(act)
    }

    fn norm(&mut self, norm: &Norm, x: Act) -> Result<Act> {
        let layer = matches!(norm, Norm::Layer { .. });
        let more = [layer.into(), norm.len(), 0, 0];
        self.making("norm", more, (x.rows, x.width), |cpu| cpu.norm(norm, x))
    }

    fn norm_in_place(&mut self, norm: &Norm, x: Act) -> Result<()> {
        let layer = matches!(norm, Norm::Layer { .. });
        self.in_place("norm in place", [x.rows, x.width, layer.into(), norm.len(), 0, 0], |cpu| {
            cpu.norm_in_place(norm, x)
        })
    }

    fn rope(&mut self, turns: &Turns, head_dim: usize, x: Act) -> Result<()> {
        let sizes = [x.rows, x.width, head_dim, turns.pairs, 0, 0];
        self.in_place("rope", sizes, |cpu| cpu.rope(turns, head_dim, x))
    }

    fn attention(
        &mut self,
        spec: &Attention,
        _: &mut Cache,
        _: usize,
        _: usize,
        queries: Act,
        keys: Act,
        values: Act,
    ) -> Result<Act> {
        self.attend(spec, queries, Some([keys, values]))
    }

    fn attend_again(
        &mut self,
        spec: &Attention,
        _: &mut Cache,
        _: usize,
        _: usize,
        queries: Act,
    ) -> Result<Act> {
        self.attend(spec, queries, None)
    }

    fn gated(&mut self, activation: Activation, gate: Act, up: Act) -> Result<()> {
        self.in_place("gated", [gate.rows, gate.width, 0, 0, 0, 0], |cpu| cpu.gated(activation, gate, up))
    }

    fn activate(&mut self, activation: Activation, x: Act) -> Result<()> {
        self.in_place("activate", [x.rows, x.width, 0, 0, 0, 0], |cpu| cpu.activate(activation, x))
    }

    fn map(&mut self, map: Map, x: Act) -> Result<()> {
        let which = match map {
            Map::Scale(_) => 0,
            Map::Clamp(_) => 1,
            Map::SoftCap(_) => 2,
            Map::Softplus => 3,
            Map::Exp => 4,
            Map::Sparse(_) => 5,
        };
        self.in_place("map", [x.rows, x.width, which, 0, 0, 0], |cpu| cpu.map(map, x))
    }

    fn scale_rows(&mut self, x: Act, factors: Act) -> Result<()> {
        self.in_place("scale rows", [x.rows, x.width, 0, 0, 0, 0], |cpu| cpu.scale_rows(x, factors))
    }

    fn linear_grouped(&mut self, weights: &Grouped, slots: &Slots, x: Act) -> Result<Act> {
        let Grouped { weights: matrix, of, first, rows, .. } = weights;
        let (rows, len) = (*rows, matrix.len);
        let row_bytes = matrix.ty.row_bytes(len).unwrap_or(0);
        let runs = slots.runs.len();
        self.multiplied(matrix.ty, rows * len * x.rows, runs * rows * row_bytes);
        let threads = self.cpu.threads();
        let some = self.book.rows(rows, row_bytes * runs, len * x.rows, threads);
        // Not all experts may be there: others take their turns.
        let there = (matrix.bytes().len() / (row_bytes * of).max(1)).max(1);
        let near = Slots {
            runs: slots.runs.iter().map(|(expert, run)| (expert % there, run.clone())).collect(),
            tokens: slots.tokens.clone(),
            weights: Vec::new(),
            chosen: Vec::new(),
            per_token: slots.per_token,
            held: None,
        };
        let window =
            Grouped { weights: matrix.window(0..there * of), of: *of, first: *first, rows: some, bias: None };
        // A few more or fewer experts make no other operation.
        let kind = ("experts", Some(matrix.ty), [rows, len, x.rows, runs.next_power_of_two(), 0, 0]);
        let factor = rows as f64 / some.max(1) as f64;
        let real = |cpu: &mut Cpu<'_>, _| {
            let act = blank(cpu, x.rows, rows)?;
            let mark = cpu.mark();
            cpu.linear_grouped(&window, &near, x)?;
            cpu.release(mark);
            Ok(act)
        };
        self.step(kind, factor, real, |cpu| blank(cpu, x.rows, rows))
    }

    fn blend(&mut self, to: Act, parts: &[Act], factors: &[f32]) -> Result<()> {
        let sizes = [to.rows, to.width, parts.len(), 0, 0, 0];
        self.in_place("blend", sizes, |cpu| cpu.blend(to, parts, factors))
    }

    fn weigh(&mut self, weights: &[f32], x: Act) -> Result<()> {
        self.in_place("weigh", [x.rows, x.width, 0, 0, 0, 0], |cpu| cpu.weigh(weights, x))
    }

    fn combine(&mut self, slots: &Slots, weighted: bool, x: Act) -> Result<Act> {
        let tokens = slots.chosen.len() / slots.per_token.max(1);
        let more = [slots.per_token, weighted.into(), 0, 0];
        self.making("combine", more, (tokens, x.width), |cpu| cpu.combine(slots, weighted, x))
    }

    fn scale_columns(&mut self, factors: &Constant, x: Act) -> Result<()> {
        self.in_place("scale columns", [x.rows, x.width, 0, 0, 0, 0], |cpu| cpu.scale_columns(factors, x))
    }

    fn shift_columns(&mut self, terms: &Constant, x: Act) -> Result<()> {
        self.in_place("shift columns", [x.rows, x.width, 0, 0, 0, 0], |cpu| cpu.shift_columns(terms, x))
    }

    fn columns(&mut self, parts: &[(Act, Range<usize>)]) -> Result<Act> {
        let rows = parts.first().map_or(0, |(act, _)| act.rows);
        let width = parts.iter().map(|(_, columns)| columns.len()).sum();
        self.making("columns", [parts.len(), 0, 0, 0], (rows, width), |cpu| cpu.columns(parts))
    }

    fn state(&mut self, states: &States, of: (usize, usize), position: usize, len: usize) -> Result<Act> {
        self.cpu.state(states, of, position, len)
    }

    fn keep_state(
        &mut self,
        states: &mut States,
        of: (usize, usize),
        position: usize,
        state: Act,
    ) -> Result<()> {
        self.cpu.keep_state(states, of, position, state)
    }

    fn convolve(&mut self, by: &Convolution, state: Act, x: Act) -> Result<Act> {
        self.recurred(state.width, x.rows * by.weights.len());
        self.making("convolve", [by.weights.len(), 0, 0, 0], (x.rows, x.width), |cpu| {
            cpu.convolve(by, state, x)
        })
    }

    fn recur(
        &mut self,
        by: &Recurrence,
        state: Act,
        queries_keys_values: [Act; 3],
        decays_rates: [Act; 2],
    ) -> Result<Act> {
        let [.., values] = queries_keys_values;
        // A decay, a sum and a result for each number of the state, and what it gives for the key.
        let each = if by.delta { 4 } else { 3 };
        self.recurred(state.width, values.rows * state.width * each);
        let more = [by.key_dim, by.value_dim, by.delta.into(), 0];
        self.making("recur", more, (values.rows, values.width), |cpu| {
            cpu.recur(by, state, queries_keys_values, decays_rates)
        })
    }

    fn scan(&mut self, by: &Scan, state: Act, inputs_steps_into_out: [Act; 4]) -> Result<Act> {
        let [inputs, ..] = inputs_steps_into_out;
        // Step times rate, decay, input, result.
        self.recurred(state.width, inputs.rows * state.width * 4);
        self.making("scan", [by.states, 0, 0, 0], (inputs.rows, by.channels), |cpu| {
            cpu.scan(by, state, inputs_steps_into_out)
        })
    }

    fn wkv(&mut self, by: &Wkv, state: Act, inputs: [Act; 6]) -> Result<Act> {
        let [receptances, ..] = inputs;
        // Decay, what the state gives for `a`, that times `b`, key times value, result.
        self.recurred(state.width, receptances.rows * state.width * 5);
        self.making("wkv", [by.dim, 0, 0, 0], (receptances.rows, receptances.width), |cpu| {
            cpu.wkv(by, state, inputs)
        })
    }

    fn add(&mut self, x: Act, y: Act) -> Result<()> {
        self.in_place("add", [x.rows, x.width, 0, 0, 0, 0], |cpu| cpu.add(x, y))
    }

    fn select(&mut self, x: Act, rows: &[usize]) -> Result<Act> {
        self.making("select", [x.rows, 0, 0, 0], (rows.len(), x.width), |cpu| cpu.select(x, rows))
    }

    fn write(&mut self, width: usize, numbers: &[f32]) -> Result<Act> {
        self.cpu.write(width, numbers)
    }

    fn read(&mut self, x: Act) -> Result<&[f32]> {
        self.cpu.read(x)
    }

    fn look_at_rows(&mut self, x: Act, look: &(dyn Fn(usize, &[f32]) + Sync)) -> Result<()> {
        self.cpu.look_at_rows(x, look)
    }

    fn mark(&self) -> Mark {
        self.cpu.mark()
    }

    fn release(&mut self, mark: Mark) {
        self.cpu.release(mark);
    }
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
