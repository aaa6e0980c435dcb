//! What passes cost: a backend that counts operations, and times them on this machine for a while only.
//!
//! The network walks through its pass as ever. As long as there is time its operations are carried out, one behind the other as in
//! a real pass, so that caches hold what they would hold; then only those of a kind that is not known yet are, and the results of
//! the others are whatever lay in their place. What a pass would have taken is told by the kinds' times.
#![forbid(unsafe_code)]

mod book;

use std::ops::Range;
use std::time::Instant;

use gristmill_kernels::activations::Form;
use gristmill_kernels::product;
use gristmill_kernels::quant::GgmlType;

pub use book::Cost;
use book::Kind;
pub(crate) use book::{Book, Effort, median};

use super::cpu::Cpu;
use super::{
    Act, Activation, Attention, Backend, Cache, Constant, Convolution, Grouped, Map, Mark, Matrix, Norm,
    Recurrence, Scan, Slots, States, Turns, Wkv,
};
use crate::Result;

/// Positions that attention is timed with at most; it takes as many times longer as there are times more.
const POSITIONS: usize = 4096;
/// Outputs of a matrix that may be a router's: what is read of its results should differ from token to token.
const ROUTER: usize = 1024;

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
        self.book.count(kind);
        let result = if self.book.wants(&kind) {
            let times = self.book.times(&kind);
            let began = Instant::now();
            let result = real(&mut self.cpu, times);
            self.book.record(kind, began.elapsed().as_secs_f64(), factor);
            result
        } else {
            blank(&mut self.cpu)
        };
        self.book.leave(entered);
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
        self.book.charge(Cost { weights: bytes as u64, cache: 0, codes, floats });
    }

    fn recurred(&mut self, state: usize, multiplications: usize) {
        let cache = (state * size_of::<f32>()) as u64;
        self.book.charge(Cost { cache, floats: multiplications as u64, ..Cost::default() });
    }

    fn attend(&mut self, spec: &Attention, queries: Act, keys_values: Option<[Act; 2]>) -> Result<Act> {
        let (shape, tokens) = (spec.shape, queries.rows);
        let seen = |start: usize| -> usize {
            let end = start + tokens;
            (start..end).map(|position| shape.sees.range(position, end).len()).sum()
        };
        let all = seen(self.depth);
        let positions = shape.sees.range(self.depth, self.depth + tokens);
        let read = self.book.kept_bytes(shape, positions.len());
        let floats = all.saturating_mul(spec.heads).saturating_mul(shape.key_dim + shape.value_dim);
        self.book.charge(Cost { cache: read as u64, floats: floats as u64, ..Cost::default() });

        let start = self.depth.min(POSITIONS);
        let factor = all as f64 / seen(start).max(1) as f64;
        let kind =
            ("attention", None, [tokens, all, spec.heads, shape.heads, shape.key_dim, shape.value_dim]);
        if !self.book.wants(&kind) {
            let blank = |cpu: &mut Cpu<'b>| blank(cpu, tokens, spec.heads * shape.value_dim);
            return self.step(kind, factor, |cpu, _| blank(cpu), blank);
        }
        let entered = Instant::now();
        let (mut cache, layer) = self.book.take_layer(shape, start, tokens)?;
        self.book.leave(entered);
        let real = |cpu: &mut Cpu<'b>, _| match keys_values {
            Some([keys, values]) => cpu.attention(spec, &mut cache, layer, start, queries, keys, values),
            None => cpu.attend_again(spec, &mut cache, layer, start, queries),
        };
        let done = self.step(kind, factor, real, |cpu| blank(cpu, tokens, spec.heads * shape.value_dim));
        self.book.put_back(shape, cache, layer);
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
        self.book.charge(Cost { weights: (rows.len() * row_bytes) as u64, ..Cost::default() });
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
        self.book.leave(entered);
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
