//! Our model code with ggml's matrix products: all else is [`Cpu`]'s.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::cpu::Cpu;
use super::{
    Act, Activation, Attention, Backend, Cache, Convolution, Grouped, Map, Mark, Matrix, Norm, Recurrence,
    Scan, Slots, Turns, Wkv,
};
use crate::Result;
use crate::ggml::{self, Threads, Weights};

/// ggml's threads, shared by all sequences of a model: one product at a time.
pub(crate) struct Ggml(Mutex<Threads>);

impl Ggml {
    pub fn new(threads: usize) -> Result<Self> {
        tracing::debug!(version = ggml::version(), "matrices are multiplied by ggml");
        Threads::new(threads).map(Mutex::new).map(Ggml)
    }

    pub fn pass<R>(&self, cpu: Cpu<'_>, pass: impl FnOnce(&mut dyn Backend) -> R) -> R {
        pass(&mut OverCpu { ggml: self, cpu })
    }
}

/// A matrix in ggml's layout, made when it is multiplied for the first time: `None` inside where the file's is used.
pub(crate) struct Prepared(OnceLock<Option<Weights<'static>>>);

impl Prepared {
    pub fn new() -> Self {
        Prepared(OnceLock::new())
    }
}

impl Matrix {
    /// The matrix as ggml prefers it: the copy where one is kept, otherwise over the file's bytes.
    fn with_ggml<R>(&self, multiply: impl FnOnce(&Weights<'_>) -> Result<R>) -> Result<R> {
        let Prepared(cell) = &self.prepared;
        let kept = match cell.get() {
            Some(kept) => kept,
            None => {
                let made = Weights::prepared(self.ty, self.rows, self.len, self.bytes())?;
                // Where two passes come first at the same time, one copy is dropped.
                cell.get_or_init(|| made)
            }
        };
        match kept {
            Some(weights) => multiply(weights),
            None => multiply(&Weights::new(self.ty, self.rows, self.len, self.bytes())?),
        }
    }
}

struct OverCpu<'a> {
    ggml: &'a Ggml,
    cpu: Cpu<'a>,
}

impl Backend for OverCpu<'_> {
    fn linear(&mut self, weights: &Matrix, bias: Option<&[f32]>, x: Act) -> Result<Act> {
        // Types that ggml only stores, such as F64.
        if ggml::partner(weights.ty).is_none() {
            return self.cpu.linear(weights, bias, x);
        }
        let (act, mut data) = self.cpu.make(x.rows, weights.rows)?;
        let x = self.cpu.read(x);
        weights.with_ggml(|weights| {
            let mut threads = self.ggml.0.lock().unwrap_or_else(PoisonError::into_inner);
            threads.mul_mat(weights, x, &mut data)
        })?;
        self.cpu.put(act, data);
        self.cpu.add_bias(act, bias)?;
        Ok(act)
    }

    fn lookup(&mut self, table: &Matrix, rows: &[usize]) -> Result<Act> {
        self.cpu.lookup(table, rows)
    }

    fn norm(&mut self, norm: &Norm, x: Act) -> Result<Act> {
        self.cpu.norm(norm, x)
    }

    fn norm_in_place(&mut self, norm: &Norm, x: Act) -> Result<()> {
        self.cpu.norm_in_place(norm, x)
    }

    fn rope(&mut self, turns: &Turns, head_dim: usize, x: Act) -> Result<()> {
        self.cpu.rope(turns, head_dim, x)
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
        self.cpu.attention(spec, cache, layer, start, queries, keys, values)
    }

    fn attend_again(
        &mut self,
        spec: &Attention,
        cache: &mut Cache,
        layer: usize,
        start: usize,
        queries: Act,
    ) -> Result<Act> {
        self.cpu.attend_again(spec, cache, layer, start, queries)
    }

    fn gated(&mut self, activation: Activation, gate: Act, up: Act) -> Result<()> {
        self.cpu.gated(activation, gate, up)
    }

    fn activate(&mut self, activation: Activation, x: Act) -> Result<()> {
        self.cpu.activate(activation, x)
    }

    fn map(&mut self, map: Map, x: Act) -> Result<()> {
        self.cpu.map(map, x)
    }

    fn scale_rows(&mut self, x: Act, factors: Act) -> Result<()> {
        self.cpu.scale_rows(x, factors)
    }

    // Experts stay with our own loops: ggml's product of one expert at a time would say little about either.
    fn linear_grouped(&mut self, weights: &Grouped, slots: &Slots, x: Act) -> Result<Act> {
        self.cpu.linear_grouped(weights, slots, x)
    }

    fn blend(&mut self, to: Act, parts: &[Act], factors: &[f32]) -> Result<()> {
        self.cpu.blend(to, parts, factors)
    }

    fn weigh(&mut self, weights: &[f32], x: Act) -> Result<()> {
        self.cpu.weigh(weights, x)
    }

    fn combine(&mut self, slots: &Slots, weighted: bool, x: Act) -> Result<Act> {
        self.cpu.combine(slots, weighted, x)
    }

    fn scale_columns(&mut self, factors: &[f32], x: Act) -> Result<()> {
        self.cpu.scale_columns(factors, x)
    }

    fn shift_columns(&mut self, terms: &[f32], x: Act) -> Result<()> {
        self.cpu.shift_columns(terms, x)
    }

    fn columns(&mut self, parts: &[(Act, Range<usize>)]) -> Result<Act> {
        self.cpu.columns(parts)
    }

    fn convolve(&mut self, by: &Convolution, state: &mut [f32], x: Act) -> Result<Act> {
        self.cpu.convolve(by, state, x)
    }

    fn recur(
        &mut self,
        by: &Recurrence,
        state: &mut [f32],
        queries_keys_values: [Act; 3],
        decays: &[f32],
        rates: &[f32],
    ) -> Result<Act> {
        self.cpu.recur(by, state, queries_keys_values, decays, rates)
    }

    fn scan(&mut self, by: &Scan, state: &mut [f32], inputs_steps_into_out: [Act; 4]) -> Result<Act> {
        self.cpu.scan(by, state, inputs_steps_into_out)
    }

    fn wkv(&mut self, by: &Wkv, state: &mut [f32], inputs: [Act; 6]) -> Result<Act> {
        self.cpu.wkv(by, state, inputs)
    }

    fn add(&mut self, x: Act, y: Act) -> Result<()> {
        self.cpu.add(x, y)
    }

    fn select(&mut self, x: Act, rows: &[usize]) -> Result<Act> {
        self.cpu.select(x, rows)
    }

    fn write(&mut self, width: usize, numbers: &[f32]) -> Result<Act> {
        self.cpu.write(width, numbers)
    }

    fn read(&self, x: Act) -> &[f32] {
        self.cpu.read(x)
    }

    fn mark(&self) -> Mark {
        self.cpu.mark()
    }

    fn release(&mut self, mark: Mark) {
        self.cpu.release(mark);
    }
}
