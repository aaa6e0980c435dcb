//! The first layers on the GPU, the others on the CPU: what is held when the turn comes is handed over once.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::gpu::Gpu;
use crate::backend::cpu::Cpu;
use crate::backend::{
    Act, Activation, Attention, Backend, Cache, Constant, Convolution, Grouped, Map, Mark, Matrix, Norm,
    Recurrence, Scan, Slots, States, Turns, Wkv,
};
use crate::{Error, Result};

/// The operations of a pass, each where its layer is.
pub(super) struct Handover<'a, 'b> {
    gpu: Gpu<'a>,
    cpu: Cpu<'b>,
    /// Layers of the GPU.
    layers: usize,
    on_cpu: bool,
}

impl<'a, 'b> Handover<'a, 'b> {
    pub fn new(gpu: Gpu<'a>, cpu: Cpu<'b>, layers: usize) -> Self {
        Handover { gpu, cpu, layers, on_cpu: layers == 0 }
    }

    fn now(&mut self) -> &mut dyn Backend {
        if self.on_cpu { &mut self.cpu } else { &mut self.gpu }
    }
}

impl Backend for Handover<'_, '_> {
    fn begin_layer(&mut self, layer: usize) -> Result<()> {
        if !self.on_cpu && layer >= self.layers {
            // The CPU numbers its activations in the same order, so that all keep their numbers.
            for act in self.gpu.held() {
                let numbers = self.gpu.read(act)?;
                self.cpu.write(act.width, numbers)?;
            }
            self.on_cpu = true;
        }
        Ok(())
    }

    fn attend_again(
        &mut self,
        spec: &Attention,
        cache: &mut Cache,
        layer: usize,
        start: usize,
        queries: Act,
    ) -> Result<Act> {
        if self.on_cpu && cache.on_device(layer)?.is_some() {
            return Err(Error::DeviceUnsupported {
                feature: "a layer on the CPU that attends to what a layer on the GPU keeps".to_owned(),
                hint: "leave all layers to the GPU, or none",
            });
        }
        self.now().attend_again(spec, cache, layer, start, queries)
    }

    fn look_at_rows(&mut self, x: Act, look: &(dyn Fn(usize, &[f32]) + Sync)) -> Result<()> {
        if self.on_cpu {
            return self.cpu.look_at_rows(x, look);
        }
        let numbers = self.gpu.read(x)?;
        self.cpu.look_at(numbers, x, look);
        Ok(())
    }

    fn mark(&self) -> Mark {
        if self.on_cpu { self.cpu.mark() } else { self.gpu.mark() }
    }

    fn lookup(&mut self, table: &Matrix, rows: &[usize]) -> Result<Act> {
        self.now().lookup(table, rows)
    }

    fn linear(&mut self, weights: &Matrix, bias: Option<&Constant>, x: Act) -> Result<Act> {
        self.now().linear(weights, bias, x)
    }

    fn norm(&mut self, norm: &Norm, x: Act) -> Result<Act> {
        self.now().norm(norm, x)
    }

    fn norm_in_place(&mut self, norm: &Norm, x: Act) -> Result<()> {
        self.now().norm_in_place(norm, x)
    }

    fn rope(&mut self, turns: &Turns, head_dim: usize, x: Act) -> Result<()> {
        self.now().rope(turns, head_dim, x)
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
        self.now().attention(spec, cache, layer, start, queries, keys, values)
    }

    fn gated(&mut self, activation: Activation, gate: Act, up: Act) -> Result<()> {
        self.now().gated(activation, gate, up)
    }

    fn activate(&mut self, activation: Activation, x: Act) -> Result<()> {
        self.now().activate(activation, x)
    }

    fn map(&mut self, map: Map, x: Act) -> Result<()> {
        self.now().map(map, x)
    }

    fn scale_rows(&mut self, x: Act, factors: Act) -> Result<()> {
        self.now().scale_rows(x, factors)
    }

    fn linear_grouped(&mut self, weights: &Grouped, slots: &Slots, x: Act) -> Result<Act> {
        self.now().linear_grouped(weights, slots, x)
    }

    fn blend(&mut self, to: Act, parts: &[Act], factors: &[f32]) -> Result<()> {
        self.now().blend(to, parts, factors)
    }

    fn weigh(&mut self, weights: &[f32], x: Act) -> Result<()> {
        self.now().weigh(weights, x)
    }

    fn combine(&mut self, slots: &Slots, weighted: bool, x: Act) -> Result<Act> {
        self.now().combine(slots, weighted, x)
    }

    fn scale_columns(&mut self, factors: &Constant, x: Act) -> Result<()> {
        self.now().scale_columns(factors, x)
    }

    fn shift_columns(&mut self, terms: &Constant, x: Act) -> Result<()> {
        self.now().shift_columns(terms, x)
    }

    fn columns(&mut self, parts: &[(Act, Range<usize>)]) -> Result<Act> {
        self.now().columns(parts)
    }

    fn state(&mut self, states: &States, of: (usize, usize), position: usize, len: usize) -> Result<Act> {
        self.now().state(states, of, position, len)
    }

    fn keep_state(
        &mut self,
        states: &mut States,
        of: (usize, usize),
        position: usize,
        state: Act,
    ) -> Result<()> {
        self.now().keep_state(states, of, position, state)
    }

    fn convolve(&mut self, by: &Convolution, state: Act, x: Act) -> Result<Act> {
        self.now().convolve(by, state, x)
    }

    fn recur(
        &mut self,
        by: &Recurrence,
        state: Act,
        queries_keys_values: [Act; 3],
        decays_rates: [Act; 2],
    ) -> Result<Act> {
        self.now().recur(by, state, queries_keys_values, decays_rates)
    }

    fn scan(&mut self, by: &Scan, state: Act, inputs_steps_into_out: [Act; 4]) -> Result<Act> {
        self.now().scan(by, state, inputs_steps_into_out)
    }

    fn wkv(&mut self, by: &Wkv, state: Act, inputs: [Act; 6]) -> Result<Act> {
        self.now().wkv(by, state, inputs)
    }

    fn add(&mut self, x: Act, y: Act) -> Result<()> {
        self.now().add(x, y)
    }

    fn select(&mut self, x: Act, rows: &[usize]) -> Result<Act> {
        self.now().select(x, rows)
    }

    fn write(&mut self, width: usize, numbers: &[f32]) -> Result<Act> {
        self.now().write(width, numbers)
    }

    fn read(&mut self, x: Act) -> Result<&[f32]> {
        if self.on_cpu { self.cpu.read(x) } else { self.gpu.read(x) }
    }

    fn release(&mut self, mark: Mark) {
        self.now().release(mark);
    }
}
