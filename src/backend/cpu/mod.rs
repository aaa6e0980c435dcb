//! The operations on the processor's cores: the loops of `gristmill_kernels`, spread over threads.

mod attend;
pub(crate) mod cores;
mod elementwise;
mod experts;
mod quantized;
mod recurrence;
pub(crate) mod threads;

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Mutex, PoisonError};

use gristmill_kernels::product::{self, PANEL_ROWS, multiply, scratch_len};
use gristmill_kernels::quant::dequantize_row;
use gristmill_kernels::simd::Level;
use gristmill_kernels::{Mismatch, Output, activation, norm, rope};

use super::{
    Act, Activation, Attention, Backend, Cache, Constant, Convolution, Engine, Grouped, Map, Mark, Matrix,
    Norm, Observer, Product, Recurrence, Scan, Slots, State, States, Turns, Wkv,
};
use crate::{Error, Result};
use quantized::Quantized;
use threads::Team;

/// Values below which a step is not worth sharing.
const WORTH_SHARING: usize = 16 * 1024;

/// Memory that lasts from pass to pass, so that passes do not allocate.
#[derive(Default)]
pub(crate) struct Workspace {
    slots: Vec<Vec<f32>>,
    quantized: Quantized,
    scratch: Vec<Mutex<Vec<f32>>>,
}

impl Workspace {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let floats = |data: &Vec<f32>| data.capacity() * size_of::<f32>();
        let slots: usize = self.slots.iter().map(floats).sum();
        let scratch =
            self.scratch.iter().map(|data| floats(&data.lock().unwrap_or_else(PoisonError::into_inner)));
        slots + scratch.sum::<usize>() + self.quantized.bytes()
    }
}

/// A matrix's numbers, out of their slot. The slot stays as long as it ever was: cutting it would mean to clear it again for the next
/// longer matrix.
pub(super) struct Numbers {
    all: Vec<f32>,
    len: usize,
}

impl Deref for Numbers {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.all.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for Numbers {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.all.get_mut(..self.len).unwrap_or_default()
    }
}

/// The operations of one pass.
pub(crate) struct Cpu<'a> {
    level: Level,
    engine: &'a Engine,
    team: &'a Team<'a>,
    work: &'a mut Workspace,
    /// Slots in use.
    used: usize,
    observer: Option<Observer<'a>>,
}

impl<'a> Cpu<'a> {
    pub fn new(level: Level, engine: &'a Engine, team: &'a Team<'a>, work: &'a mut Workspace) -> Self {
        work.quantized.forget(|_| true);
        work.scratch.resize_with(team.count(), Mutex::default);
        Cpu { level, engine, team, work, used: 0, observer: None }
    }

    /// Shows each product to `observer`.
    pub fn observed(self, observer: Option<Observer<'a>>) -> Self {
        Cpu { observer, ..self }
    }

    /// The numbers of `x`.
    pub(super) fn numbers(&self, x: Act) -> &[f32] {
        self.work.slots.get(x.slot).and_then(|data| data.get(..x.rows * x.width)).unwrap_or_default()
    }

    /// Whether somebody sees the products.
    pub fn is_observed(&self) -> bool {
        self.observer.is_some()
    }

    /// Calls `look` with each row of `numbers`, a matrix of the shape of `x`, on all threads.
    pub fn look_at(&self, numbers: &[f32], x: Act, look: &(dyn Fn(usize, &[f32]) + Sync)) {
        self.team.run(x.rows, &|row, _| {
            if let Some(numbers) = numbers.get(row * x.width..(row + 1) * x.width) {
                look(row, numbers);
            }
        });
    }

    /// Shows a product of `x` to the observer, where there is one.
    fn show(&self, weights: &Matrix, experts: Option<&[(usize, Range<usize>)]>, x: Act) {
        if let Some(observer) = self.observer {
            observer(Product { weights, experts, inputs: self.numbers(x) });
        }
    }

    /// How many threads work at a time.
    pub fn threads(&self) -> usize {
        self.team.count()
    }

    /// A new matrix and its numbers, whatever they are: the caller writes all of them.
    pub(super) fn make(&mut self, rows: usize, width: usize) -> Result<(Act, Numbers)> {
        let len = rows.checked_mul(width).ok_or_else(|| internal("activations of a size that overflows"))?;
        if self.used == self.work.slots.len() {
            self.work.slots.push(Vec::new());
        }
        let act = Act { slot: self.used, rows, width };
        self.used += 1;
        let Numbers { mut all, .. } = self.take(act);
        grow(&mut all, len, "activations")?;
        Ok((act, Numbers { all, len }))
    }

    /// The numbers of a slot, to be put back: so that others can be read meanwhile.
    pub(super) fn take(&mut self, act: Act) -> Numbers {
        self.work.quantized.forget(|slot| slot == act.slot);
        let all = self.work.slots.get_mut(act.slot).map(std::mem::take).unwrap_or_default();
        Numbers { len: all.len().min(act.rows.saturating_mul(act.width)), all }
    }

    pub(super) fn put(&mut self, act: Act, data: Numbers) {
        if let Some(slot) = self.work.slots.get_mut(act.slot) {
            *slot = data.all;
        }
    }

    /// Changes the numbers of `x` in place, rows shared among the threads where that is worth it.
    fn for_each_row(
        &mut self,
        x: Act,
        job: impl Fn(usize, &mut [f32]) -> Result<(), Mismatch> + Sync,
    ) -> Result<()> {
        let mut data = self.take(x);
        let failed = Mutex::new(None);
        let note = |result: Result<(), Mismatch>| {
            if let Err(mismatch) = result {
                failed.lock().unwrap_or_else(PoisonError::into_inner).replace(mismatch);
            }
        };
        let width = x.width.max(1);
        if data.len() < WORTH_SHARING {
            data.chunks_mut(width).enumerate().for_each(|(row, data)| note(job(row, data)));
        } else {
            let rows = x.rows.div_ceil(4 * self.team.count()).max(1);
            self.team.for_each_chunk(&mut data, rows * width, |chunk, data| {
                data.chunks_mut(width)
                    .enumerate()
                    .for_each(|(row, data)| note(job(chunk * rows + row, data)));
            });
        }
        self.put(x, data);
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(mismatch) => Err(mismatch.into()),
            None => Ok(()),
        }
    }

    /// Adds the bias, where there is one, to each row of `x`.
    pub(super) fn add_bias(&mut self, x: Act, bias: Option<&[f32]>) -> Result<()> {
        let Some(bias) = bias else { return Ok(()) };
        self.for_each_row(x, |_, row| {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
            Ok(())
        })
    }

    /// Makes sure that each thread has scratch memory of `len` floats.
    fn make_scratch(&mut self, len: usize) -> Result<()> {
        for scratch in &mut self.work.scratch {
            let scratch = scratch.get_mut().unwrap_or_else(PoisonError::into_inner);
            grow(scratch, len, "scratch memory of the threads")?;
        }
        Ok(())
    }

    /// Writes the products of `weights` with the rows of `x` into `out`, rows of weights shared among the threads.
    fn multiply(&mut self, weights: &Matrix, x: Act, out: &mut [f32]) -> Result<()> {
        let form =
            product::form(weights.ty).ok_or_else(|| internal("weights of a type that cannot be computed"))?;
        let place = self.quantize(x, form)?;
        self.make_scratch(scratch_len(x.rows))?;
        let Workspace { quantized, scratch, .. } = &*self.work;
        let columns = quantized.columns(place)?;
        let row_bytes = weights.ty.row_bytes(weights.len).unwrap_or(0);
        // Tasks of some rows each: enough of them to even out cores of different speed, none too small.
        let per_task =
            weights.rows.div_ceil(16 * self.team.count()).next_multiple_of(PANEL_ROWS).max(PANEL_ROWS);
        let output = Output::new(out, weights.rows)?;
        let failed = Mutex::new(None);
        self.team.run(weights.rows.div_ceil(per_task), &|task, thread| {
            let rows = task * per_task..((task + 1) * per_task).min(weights.rows);
            let Some(bytes) = weights.bytes().get(rows.start * row_bytes..rows.end * row_bytes) else {
                return;
            };
            // SAFETY: tasks have rows of their own, and each task runs once.
            let window = unsafe { output.window(rows) };
            let Some(scratch) = scratch.get(thread) else { return };
            let mut scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(mismatch) = multiply(self.level, weights.ty, bytes, columns, &mut scratch, window) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).replace(mismatch);
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(mismatch) => Err(mismatch.into()),
            None => Ok(()),
        }
    }
}

/// Makes `data` at least `len` long.
fn grow<T: Default + Clone>(data: &mut Vec<T>, len: usize, what: &'static str) -> Result<()> {
    if data.len() < len {
        let bytes = len.saturating_mul(size_of::<T>()) as u64;
        data.try_reserve_exact(len - data.len()).map_err(|_| Error::OutOfMemory { what, bytes })?;
        data.resize(len, T::default());
    }
    Ok(())
}

fn norm_row(level: Level, norm: &Norm, row: &mut [f32]) -> Result<(), Mismatch> {
    match norm {
        Norm::Rms { weight, eps } => norm::rms_norm(level, row, weight, *eps),
        Norm::Layer { weight, bias, eps } => norm::layer_norm(level, row, weight, bias, *eps),
    }
}

fn internal(what: &'static str) -> Error {
    Error::Internal { what }
}

impl Backend for Cpu<'_> {
    fn lookup(&mut self, table: &Matrix, rows: &[usize]) -> Result<Act> {
        let (act, data) = self.make(rows.len(), table.len)?;
        self.put(act, data);
        let row_bytes = table.ty.row_bytes(table.len).unwrap_or(0).max(1);
        let count = table.bytes().len() / row_bytes;
        if rows.iter().any(|&row| row >= count) {
            return Err(internal("a row beyond the end of a table"));
        }
        self.for_each_row(act, |number, data| {
            let row = rows.get(number).copied().unwrap_or(0);
            let bytes = table.bytes().get(row * row_bytes..(row + 1) * row_bytes).unwrap_or_default();
            let (expected, found) = (row_bytes, bytes.len());
            dequantize_row(table.ty, bytes, data).map_err(|_| Mismatch {
                what: "bytes of a row that can be computed",
                expected,
                found,
            })
        })?;
        Ok(act)
    }

    fn linear(&mut self, weights: &Matrix, bias: Option<&Constant>, x: Act) -> Result<Act> {
        self.show(weights, None, x);
        let (act, mut data) = self.make(x.rows, weights.rows)?;
        if !self.engine.multiply(weights, self.numbers(x), &mut data)? {
            self.multiply(weights, x, &mut data)?;
        }
        self.put(act, data);
        self.add_bias(act, bias.map(|bias| &**bias))?;
        Ok(act)
    }

    fn norm(&mut self, norm: &Norm, x: Act) -> Result<Act> {
        let (act, data) = self.make(x.rows, x.width)?;
        if data.len() != self.numbers(x).len() {
            return Err(internal("a norm of activations that are not there"));
        }
        self.put(act, data);
        let from = self.take(x);
        let (level, width) = (self.level, x.width);
        let done = self.for_each_row(act, |row, data| {
            data.copy_from_slice(from.get(row * width..(row + 1) * width).unwrap_or_default());
            norm_row(level, norm, data)
        });
        self.put(x, from);
        done.map(|()| act)
    }

    fn norm_in_place(&mut self, norm: &Norm, x: Act) -> Result<()> {
        let level = self.level;
        self.for_each_row(x, |_, row| norm_row(level, norm, row))
    }

    fn rope(&mut self, turns: &Turns, head_dim: usize, x: Act) -> Result<()> {
        let pairs = turns.pairs;
        self.for_each_row(x, |token, row| {
            let by = turns.by.as_chunks().0.get(token * pairs..(token + 1) * pairs).unwrap_or_default();
            row.chunks_exact_mut(head_dim.max(1)).try_for_each(|head| rope::rotate(turns.pairing, head, by))
        })
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
        attend::attend(self, spec, cache, layer, start, queries, Some([keys, values]))
    }

    fn attend_again(
        &mut self,
        spec: &Attention,
        cache: &mut Cache,
        layer: usize,
        start: usize,
        queries: Act,
    ) -> Result<Act> {
        attend::attend(self, spec, cache, layer, start, queries, None)
    }

    fn gated(&mut self, activation: Activation, gate: Act, up: Act) -> Result<()> {
        let (level, width) = (self.level, up.width);
        let up_data = self.take(up);
        let done = self.for_each_row(gate, |row, data| {
            let up = up_data.get(row * width..(row + 1) * width).unwrap_or_default();
            activation::gated(level, activation, data, up)
        });
        self.put(up, up_data);
        done
    }

    fn activate(&mut self, activation: Activation, x: Act) -> Result<()> {
        let level = self.level;
        self.for_each_row(x, |_, row| {
            activation::activate(level, activation, row);
            Ok(())
        })
    }

    fn map(&mut self, map: Map, x: Act) -> Result<()> {
        self.map_values(map, x)
    }

    fn scale_rows(&mut self, x: Act, factors: Act) -> Result<()> {
        self.scale_each_row(x, factors)
    }

    fn linear_grouped(&mut self, weights: &Grouped, slots: &Slots, x: Act) -> Result<Act> {
        // Where two parts of an expert's rows are multiplied apart, that is one product.
        if weights.first == 0 {
            self.show(&weights.weights, Some(&slots.runs), x);
        }
        self.multiply_by_expert(weights, slots, x)
    }

    fn blend(&mut self, to: Act, parts: &[Act], factors: &[f32]) -> Result<()> {
        self.blend_rows(to, parts, factors)
    }

    fn weigh(&mut self, weights: &[f32], x: Act) -> Result<()> {
        self.weigh_rows(weights, x)
    }

    fn combine(&mut self, slots: &Slots, weighted: bool, x: Act) -> Result<Act> {
        self.combine_slots(slots, weighted, x)
    }

    fn scale_columns(&mut self, factors: &Constant, x: Act) -> Result<()> {
        self.scale_each_column(factors, x)
    }

    fn shift_columns(&mut self, terms: &Constant, x: Act) -> Result<()> {
        self.shift_each_column(terms, x)
    }

    fn columns(&mut self, parts: &[(Act, Range<usize>)]) -> Result<Act> {
        self.join_columns(parts)
    }

    fn state(&mut self, states: &States, of: (usize, usize), position: usize, len: usize) -> Result<Act> {
        let (act, mut data) = self.make(1, len)?;
        let found = states.at(of, position);
        match found {
            Some(kept) => match kept.host()? {
                kept if kept.len() == len => data.copy_from_slice(kept),
                _ => return Err(internal("a state of another length")),
            },
            None if position == 0 => data.fill(0.0),
            None => return Err(internal("a state that is not kept")),
        }
        self.put(act, data);
        Ok(act)
    }

    fn keep_state(
        &mut self,
        states: &mut States,
        of: (usize, usize),
        position: usize,
        state: Act,
    ) -> Result<()> {
        states.keep(of, position, State::Host(self.numbers(state).into()));
        Ok(())
    }

    fn convolve(&mut self, by: &Convolution, state: Act, x: Act) -> Result<Act> {
        self.with_state(state, |cpu, state| cpu.convolve_tokens(by, state, x))
    }

    fn recur(
        &mut self,
        by: &Recurrence,
        state: Act,
        queries_keys_values: [Act; 3],
        decays_rates: [Act; 2],
    ) -> Result<Act> {
        self.with_state(state, |cpu, state| cpu.recur_heads(by, state, queries_keys_values, decays_rates))
    }

    fn scan(&mut self, by: &Scan, state: Act, inputs_steps_into_out: [Act; 4]) -> Result<Act> {
        self.with_state(state, |cpu, state| cpu.scan_channels(by, state, inputs_steps_into_out))
    }

    fn wkv(&mut self, by: &Wkv, state: Act, inputs: [Act; 6]) -> Result<Act> {
        self.with_state(state, |cpu, state| cpu.wkv_heads(by, state, inputs))
    }

    fn add(&mut self, x: Act, y: Act) -> Result<()> {
        if self.numbers(x).len() != self.numbers(y).len() {
            return Err(internal("a sum of matrices of different sizes"));
        }
        if x.slot == y.slot {
            return self.for_each_row(x, |_, data| {
                data.iter_mut().for_each(|x| *x += *x);
                Ok(())
            });
        }
        let (more, width) = (self.take(y), x.width);
        let done = self.for_each_row(x, |row, data| {
            let more = more.get(row * width..(row + 1) * width).unwrap_or_default();
            data.iter_mut().zip(more).for_each(|(x, y)| *x += y);
            Ok(())
        });
        self.put(y, more);
        done
    }

    fn select(&mut self, x: Act, rows: &[usize]) -> Result<Act> {
        let (act, mut data) = self.make(rows.len(), x.width)?;
        for (to, &row) in data.chunks_exact_mut(x.width.max(1)).zip(rows) {
            let from = self.numbers(x).get(row * x.width..(row + 1) * x.width);
            to.copy_from_slice(from.ok_or_else(|| internal("a row beyond the end of the activations"))?);
        }
        self.put(act, data);
        Ok(act)
    }

    fn write(&mut self, width: usize, numbers: &[f32]) -> Result<Act> {
        let (act, mut data) = self.make(numbers.len() / width.max(1), width)?;
        data.iter_mut().zip(numbers).for_each(|(to, from)| *to = *from);
        self.put(act, data);
        Ok(act)
    }

    fn read(&mut self, x: Act) -> Result<&[f32]> {
        Ok(self.numbers(x))
    }

    fn look_at_rows(&mut self, x: Act, look: &(dyn Fn(usize, &[f32]) + Sync)) -> Result<()> {
        self.look_at(self.numbers(x), x, look);
        Ok(())
    }

    fn mark(&self) -> Mark {
        Mark(self.used)
    }

    fn release(&mut self, mark: Mark) {
        // A slot that is used anew holds other numbers.
        self.work.quantized.forget(|slot| slot >= mark.0);
        self.used = self.used.min(mark.0);
    }
}
