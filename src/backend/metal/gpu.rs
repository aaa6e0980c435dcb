//! The operations of a pass as kernels: which, with what buffers, in what order.
#![forbid(unsafe_code)]

use std::ops::Range;

use gristmill_kernels::metal::launch::{self, TopK, With};

use super::device::Place;
use super::host::Host;
use super::memory::Buffer;
use super::queue::Arg;
use crate::backend::{
    Act, Activation, Attention, Backend, Cache, Constant, Convolution, Grouped, Left, Map, Mark, Matrix,
    Norm, Recurrence, Router, Scan, Slots, State, States, Turns, Wkv,
};
use crate::{Error, Result};

/// The operations of one pass.
pub(super) struct Gpu<'a> {
    pub host: &'a mut Host,
    /// The slots in use: rows and width of each.
    used: Vec<(usize, usize)>,
}

pub(super) fn internal(what: &'static str) -> Error {
    Error::Internal { what }
}

/// A size as kernels have it.
pub(super) fn size(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| internal("a size that a kernel cannot have"))
}

pub(super) fn sizes<const N: usize>(all: [usize; N]) -> Result<[u32; N]> {
    let mut found = [0; N];
    for (to, from) in found.iter_mut().zip(all) {
        *to = size(from)?;
    }
    Ok(found)
}

fn as_it_is(numbers: &[f32]) -> Vec<f32> {
    numbers.to_vec()
}

impl<'a> Gpu<'a> {
    pub fn new(host: &'a mut Host) -> Self {
        host.begin();
        Gpu { host, used: Vec::new() }
    }

    /// What is held, by its slot: all activations that were made and not forgotten.
    pub fn held(&self) -> Vec<Act> {
        self.used.iter().enumerate().map(|(slot, &(rows, width))| Act { slot, rows, width }).collect()
    }

    /// A new matrix, of whatever numbers lie there, and its buffer.
    pub(super) fn make(&mut self, rows: usize, width: usize) -> Result<(Act, Buffer)> {
        let act = Act { slot: self.used.len(), rows, width };
        let buffer = self.host.slot(act.slot, rows.saturating_mul(width))?;
        self.used.push((rows, width));
        Ok((act, buffer))
    }

    pub(super) fn buffer(&self, x: Act) -> Result<Buffer> {
        match self.used.get(x.slot) {
            Some((rows, width)) if x.rows * x.width <= rows * width => self.host.made(x.slot),
            _ => Err(internal("activations that are not there")),
        }
    }

    pub(super) fn reads(&self, x: Act) -> Result<Arg> {
        Ok(Arg::read(&self.buffer(x)?))
    }

    fn writes(&self, x: Act) -> Result<Arg> {
        Ok(Arg::write(&self.buffer(x)?))
    }

    /// Numbers that do not change, or where there are none, whatever is in `x`.
    pub(super) fn optional(&mut self, constant: Option<&Constant>, x: Act) -> Result<Arg> {
        match constant {
            Some(constant) => self.host.constant(constant, as_it_is),
            None => self.reads(x),
        }
    }

    fn norm_to(&mut self, norm: &Norm, x: Act, to: Arg) -> Result<()> {
        if norm.len() != x.width {
            return Err(internal("a norm of another width"));
        }
        let [rows, width] = sizes([x.rows, x.width])?;
        let buffer = self.buffer(x)?;
        let from = Arg::read(&buffer);
        match norm {
            Norm::Rms { weight, eps } => {
                let weight = self.host.constant(weight, as_it_is)?;
                match self.host.take_sum([rows, width], &buffer) {
                    Some([x, y]) => {
                        self.host.run(&launch::add_rms_norm(rows, width, *eps), &[x, y, weight, to])
                    }
                    None => self.host.run(&launch::rms_norm(rows, width, *eps), &[from, weight, to]),
                }
            }
            Norm::Layer { weight, bias, eps } => {
                let weight = self.host.constant(weight, as_it_is)?;
                let bias = self.host.constant(bias, as_it_is)?;
                self.host.run(&launch::layer_norm(rows, width, *eps), &[from, weight, bias, to])
            }
        }
    }

    /// Each value of `x` with one of `y`.
    fn with(&mut self, with: With, x: Act, y: Arg) -> Result<()> {
        let [rows, width] = sizes([x.rows, x.width])?;
        let x = self.writes(x)?;
        self.host.run(&launch::with(with, rows, width), &[x, y])
    }

    fn with_columns(&mut self, with: With, x: Act, numbers: &Constant) -> Result<()> {
        if numbers.len() != x.width {
            return Err(internal("as many numbers as there are columns"));
        }
        let numbers = self.host.constant(numbers, as_it_is)?;
        self.with(with, x, numbers)
    }

    pub(super) fn rows_of(rows: &[usize], count: usize) -> Result<Vec<u32>> {
        if rows.iter().any(|&row| row >= count) {
            return Err(internal("a row beyond the end"));
        }
        rows.iter().map(|&row| size(row)).collect()
    }
}

impl Backend for Gpu<'_> {
    fn lookup(&mut self, table: &Matrix, rows: &[usize]) -> Result<Act> {
        let ids = Self::rows_of(rows, table.rows)?;
        let ids = self.host.upload(&ids)?;
        let [len, all, count] = sizes([table.len, table.rows, rows.len()])?;
        let weights = self.host.weights(table)?;
        let (act, out) = self.make(rows.len(), table.len)?;
        let launch = launch::lookup(table.ty, len, all, count);
        self.host.run(&launch, &[weights, ids, Arg::write(&out)])?;
        Ok(act)
    }

    fn linear(&mut self, weights: &Matrix, bias: Option<&Constant>, x: Act) -> Result<Act> {
        if x.width != weights.len || bias.is_some_and(|bias| bias.len() != weights.rows) {
            return Err(internal("a product of other sizes"));
        }
        let [len, rows, columns] = sizes([weights.len, weights.rows, x.rows])?;
        let product = launch::Product { format: weights.ty, len, rows, columns, bias: bias.is_some() };
        let (act, out) = self.make(x.rows, weights.rows)?;
        let bias = self.optional(bias, x)?;
        let args = [self.host.weights(weights)?, self.reads(x)?, bias, self.reads(x)?, Arg::write(&out)];
        self.host.run(&product.launch(), &args)?;
        Ok(act)
    }

    fn norm(&mut self, norm: &Norm, x: Act) -> Result<Act> {
        let (act, out) = self.make(x.rows, x.width)?;
        self.norm_to(norm, x, Arg::write(&out))?;
        Ok(act)
    }

    fn norm_in_place(&mut self, norm: &Norm, x: Act) -> Result<()> {
        let to = self.writes(x)?;
        self.norm_to(norm, x, to)
    }

    fn rope(&mut self, turns: &Turns, head_dim: usize, x: Act) -> Result<()> {
        if turns.by.len() != 2 * turns.pairs * x.rows || 2 * turns.pairs > head_dim {
            return Err(internal("angles of other tokens"));
        }
        let [tokens, width, head, pairs] = sizes([x.rows, x.width, head_dim, turns.pairs])?;
        let by = self.host.constant(&turns.by, as_it_is)?;
        let x = self.writes(x)?;
        self.host.run(&launch::rope(tokens, width, head, pairs, turns.pairing), &[by, x])
    }

    fn attention(
        &mut self,
        spec: &Attention,
        cache: &mut Cache,
        layer: usize,
        start: usize,
        queries: Act,
        keys: Act,
        values: Act,
    ) -> Result<Act> {
        self.attend(spec, cache, layer, start, queries, Some([keys, values]))
    }

    fn attend_again(
        &mut self,
        spec: &Attention,
        cache: &mut Cache,
        layer: usize,
        start: usize,
        queries: Act,
    ) -> Result<Act> {
        self.attend(spec, cache, layer, start, queries, None)
    }

    fn gated(&mut self, activation: Activation, gate: Act, up: Act) -> Result<()> {
        if (gate.rows, gate.width) != (up.rows, up.width) {
            return Err(internal("a gate of another size"));
        }
        let [rows, width] = sizes([gate.rows, gate.width])?;
        let args = [self.writes(gate)?, self.reads(up)?];
        self.host.run(&launch::activate(activation, rows, width, true), &args)
    }

    fn activate(&mut self, activation: Activation, x: Act) -> Result<()> {
        let [rows, width] = sizes([x.rows, x.width])?;
        let args = [self.writes(x)?, self.reads(x)?];
        self.host.run(&launch::activate(activation, rows, width, false), &args)
    }

    fn map(&mut self, map: Map, x: Act) -> Result<()> {
        let [rows, width] = sizes([x.rows, x.width])?;
        let map = match map {
            Map::Scale(factor) => launch::Map::Scale(factor),
            Map::Clamp(bound) => launch::Map::Clamp(bound),
            Map::SoftCap(cap) => launch::Map::SoftCap(cap),
            Map::Softplus => launch::Map::Softplus,
            Map::Exp => launch::Map::Exp,
            Map::Sparse(deviations) => {
                let x = self.writes(x)?;
                return self.host.run(&launch::sparse(rows, width, deviations), &[x]);
            }
        };
        let x = self.writes(x)?;
        self.host.run(&launch::map(map, rows, width), &[x])
    }

    fn scale_rows(&mut self, x: Act, factors: Act) -> Result<()> {
        if (factors.rows, factors.width) != (x.rows, 1) {
            return Err(internal("as many factors as there are rows"));
        }
        let factors = self.reads(factors)?;
        self.with(With::RowFactor, x, factors)
    }

    fn route(&mut self, router: &Router, scores: Act) -> Result<Slots> {
        self.choose_experts(router, scores)
    }

    fn weigh_slots(&mut self, slots: &Slots, x: Act) -> Result<()> {
        if slots.tokens.len() != x.rows {
            return Err(internal("as many weights as there are rows"));
        }
        let weights = self.slot_weights(slots)?;
        self.with(With::RowFactor, x, weights)
    }

    fn linear_grouped(&mut self, weights: &Grouped, slots: &Slots, x: Act) -> Result<Act> {
        self.multiply_by_expert(weights, slots, x)
    }

    fn blend(&mut self, to: Act, parts: &[Act], factors: &[f32]) -> Result<()> {
        let alike = |part: &Act| (part.rows, part.width) == (to.rows, to.width) && part.slot != to.slot;
        if factors.len() != to.rows * parts.len() || !parts.iter().all(alike) {
            return Err(internal("parts of other sizes"));
        }
        let [rows, width, stride] = sizes([to.rows, to.width, parts.len()])?;
        for (number, &part) in (0..).zip(parts) {
            let args = [self.reads(part)?, self.host.upload(factors)?, self.writes(to)?];
            self.host.run(&launch::blend(rows, width, number, stride), &args)?;
        }
        Ok(())
    }

    fn weigh(&mut self, weights: &[f32], x: Act) -> Result<()> {
        if weights.len() != x.rows {
            return Err(internal("as many weights as there are rows"));
        }
        let weights = self.host.upload(weights)?;
        self.with(With::RowFactor, x, weights)
    }

    fn combine(&mut self, slots: &Slots, weighted: bool, x: Act) -> Result<Act> {
        self.combine_slots(slots, weighted, x)
    }

    fn scale_columns(&mut self, factors: &Constant, x: Act) -> Result<()> {
        self.with_columns(With::ColumnFactor, x, factors)
    }

    fn shift_columns(&mut self, terms: &Constant, x: Act) -> Result<()> {
        self.with_columns(With::ColumnTerm, x, terms)
    }

    fn columns(&mut self, parts: &[(Act, Range<usize>)]) -> Result<Act> {
        let rows = parts.first().map_or(0, |(act, _)| act.rows);
        if parts.iter().any(|(x, columns)| x.rows != rows || columns.end > x.width) {
            return Err(internal("columns that are not there"));
        }
        let (act, out) = self.make(rows, parts.iter().map(|(_, columns)| columns.len()).sum())?;
        let mut to = 0;
        for (x, columns) in parts {
            let [count, width] = sizes([rows, columns.len()])?;
            let (from, place) = (sizes([x.width, columns.start])?, sizes([act.width, to])?);
            let args = [self.reads(*x)?, Arg::write(&out)];
            self.host.run(&launch::copy_columns(count, width, from, place), &args)?;
            to += columns.len();
        }
        Ok(act)
    }

    fn state(&mut self, states: &States, of: (usize, usize), position: usize, len: usize) -> Result<Act> {
        let from = match states.at(of, position) {
            Some(State::Device(kept)) if kept.bytes() >= len * size_of::<f32>() => Arg::read(kept),
            None if position == 0 => self.host.zeros(len)?,
            _ => return Err(internal("a state that is not kept")),
        };
        let (act, out) = self.make(1, len)?;
        let len = size(len)?;
        self.host.run(&launch::copy_columns(1, len, [len, 0], [len, 0]), &[from, Arg::write(&out)])?;
        Ok(act)
    }

    fn keep_state(
        &mut self,
        states: &mut States,
        of: (usize, usize),
        position: usize,
        state: Act,
    ) -> Result<()> {
        let kept = self.host.buffer(state.width * size_of::<f32>(), Place::Private, "states of layers")?;
        let len = size(state.width)?;
        let args = [self.reads(state)?, Arg::write(&kept)];
        self.host.run(&launch::copy_columns(1, len, [len, 0], [len, 0]), &args)?;
        states.keep(of, position, State::Device(kept));
        Ok(())
    }

    fn convolve(&mut self, by: &Convolution, state: Act, x: Act) -> Result<Act> {
        if x.width != by.channels || state.width != by.state_len() {
            return Err(internal("a convolution of other channels"));
        }
        let taps = by.weights.len() / by.channels.max(1);
        let [tokens, channels, taps] = sizes([x.rows, x.width, taps])?;
        let weights = self.host.constant(&by.weights, as_it_is)?;
        let bias = self.optional(by.bias.as_ref(), x)?;
        let (act, out) = self.make(x.rows, x.width)?;
        let args = [self.reads(x)?, weights, bias, self.writes(state)?, Arg::write(&out)];
        self.host.run(&launch::convolve(tokens, channels, taps, by.bias.is_some()), &args)?;
        Ok(act)
    }

    fn recur(
        &mut self,
        by: &Recurrence,
        state: Act,
        [queries, keys, values]: [Act; 3],
        [decays, rates]: [Act; 2],
    ) -> Result<Act> {
        let (keys_width, heads) = (by.key_heads * by.key_dim, by.heads * values.rows);
        if [queries.width, keys.width, values.width] != [keys_width, keys_width, by.heads * by.value_dim]
            || state.width != by.state_len()
            || [decays.rows * decays.width, rates.rows * rates.width] != [heads; 2]
        {
            return Err(internal("a recurrence of other sizes"));
        }
        let [heads, key_heads, key_dim, value_dim, tokens] =
            sizes([by.heads, by.key_heads, by.key_dim, by.value_dim, values.rows])?;
        let recurrence =
            launch::Recurrence { heads, key_heads, key_dim, value_dim, delta: by.delta, tiled: by.tiled };
        let (act, out) = self.make(values.rows, values.width)?;
        let args = [
            self.reads(queries)?,
            self.reads(keys)?,
            self.reads(values)?,
            self.reads(decays)?,
            self.reads(rates)?,
            self.writes(state)?,
            Arg::write(&out),
        ];
        self.host.run(&recurrence.launch(tokens), &args)?;
        Ok(act)
    }

    fn scan(&mut self, by: &Scan, state: Act, [x, steps, into, out_of]: [Act; 4]) -> Result<Act> {
        let widths = [x.width, steps.width, into.width, out_of.width];
        if widths != [by.channels, by.channels, by.states, by.states] || state.width != by.state_len() {
            return Err(internal("a scan of other sizes"));
        }
        let [tokens, channels, states] = sizes([x.rows, by.channels, by.states])?;
        let rates = self.host.constant(&by.rates, |_| by.rates_by_state())?;
        let (act, out) = self.make(x.rows, by.channels)?;
        let args = [
            self.reads(x)?,
            self.reads(steps)?,
            self.reads(into)?,
            self.reads(out_of)?,
            rates,
            self.writes(state)?,
            Arg::write(&out),
        ];
        self.host.run(&launch::scan(tokens, channels, states), &args)?;
        Ok(act)
    }

    fn wkv(&mut self, by: &Wkv, state: Act, inputs: [Act; 6]) -> Result<Act> {
        let [first, ..] = inputs;
        let alike = |act: &Act| (act.rows, act.width) == (first.rows, by.heads * by.dim);
        if !inputs.iter().all(alike) || state.width != by.state_len() {
            return Err(internal("a recurrence of other sizes"));
        }
        let [tokens, heads, dim] = sizes([first.rows, by.heads, by.dim])?;
        let (act, out) = self.make(first.rows, first.width)?;
        let mut args = Vec::new();
        for input in inputs {
            args.push(self.reads(input)?);
        }
        args.extend([self.writes(state)?, Arg::write(&out)]);
        self.host.run(&launch::wkv(tokens, heads, dim), &args)?;
        Ok(act)
    }

    fn add(&mut self, x: Act, y: Act) -> Result<()> {
        if (x.rows, x.width) != (y.rows, y.width) {
            return Err(internal("a sum of matrices of different sizes"));
        }
        let [rows, width] = sizes([x.rows, x.width])?;
        let (x, y) = (self.writes(x)?, self.reads(y)?);
        self.host.add(launch::with(With::Add, rows, width), [rows, width], x, y)
    }

    fn select(&mut self, x: Act, rows: &[usize]) -> Result<Act> {
        let ids = Self::rows_of(rows, x.rows)?;
        let ids = self.host.upload(&ids)?;
        let [width, all, count] = sizes([x.width, x.rows, rows.len()])?;
        let (act, out) = self.make(rows.len(), x.width)?;
        let args = [self.reads(x)?, ids, Arg::write(&out)];
        self.host.run(&launch::select(width, all, count), &args)?;
        Ok(act)
    }

    fn write(&mut self, width: usize, numbers: &[f32]) -> Result<Act> {
        let rows = numbers.len() / width.max(1);
        let numbers = self.host.upload(numbers)?;
        let (act, out) = self.make(rows, width)?;
        let [rows, width] = sizes([rows, width])?;
        let launch = launch::copy_columns(rows, width, [width, 0], [width, 0]);
        self.host.run(&launch, &[numbers, Arg::write(&out)])?;
        Ok(act)
    }

    fn read(&mut self, x: Act) -> Result<&[f32]> {
        let buffer = self.buffer(x)?;
        self.host.read(&buffer, x.rows * x.width)
    }

    fn leave(&mut self, x: Act) -> Result<Option<Left>> {
        if x.rows != 1 || x.width == 0 {
            return Err(internal("not one row to be left"));
        }
        let width = size(x.width)?;
        let row = self.host.buffer(x.width * size_of::<f32>(), Place::Shared, "logits")?;
        let from = self.reads(x)?;
        let copy = launch::copy_columns(1, width, [width, 0], [width, 0]);
        self.host.run(&copy, &[from.clone(), Arg::write(&row)])?;

        let top = TopK { rows: 1, width, k: 1 };
        let mark = self.mark();
        let found = self.make(1, 2)?.1;
        let [value, place] = [Arg::write(&found), Arg::write(&found).at(size_of::<f32>())];
        if top.parts() == 1 {
            self.host.run(&top.launch(), &[from, value.clone(), value, place])?;
        } else {
            let mut room = || -> Result<Buffer> { Ok(self.make(1, top.parts() as usize)?.1) };
            let (values, places) = (room()?, room()?);
            self.host
                .run(&top.launch(), &[from, Arg::write(&values), Arg::write(&values), Arg::write(&places)])?;
            self.host.run(&top.join(), &[Arg::read(&values), Arg::read(&places), value, place])?;
        }
        self.release(mark);
        match *self.host.read(&found, 2)? {
            [largest, place] => Ok(Some(Left { row, width: x.width, largest, place: place.to_bits() })),
            _ => Err(internal("a value and its place")),
        }
    }

    fn look_at_rows(&mut self, x: Act, look: &(dyn Fn(usize, &[f32]) + Sync)) -> Result<()> {
        let rows = self.read(x)?.chunks_exact(x.width.max(1));
        rows.enumerate().for_each(|(row, numbers)| look(row, numbers));
        Ok(())
    }

    fn mark(&self) -> Mark {
        Mark(self.used.len())
    }

    fn release(&mut self, mark: Mark) {
        self.used.truncate(mark.0);
    }
}
