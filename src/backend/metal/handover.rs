//! The first layers on the GPU, the others on the CPU: what is held when the turn comes is handed over once.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::gpu::Gpu;
use crate::backend::cpu::Cpu;
use crate::backend::{
    Act, Activation, Attention, Backend, Cache, Constant, Convolution, Grouped, Left, Map, Mark, Matrix,
    Norm, Recurrence, Router, Scan, Slots, States, Turns, Wkv,
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

/// Operations that go as they are to whose turn it is.
macro_rules! hand_over {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $result:ty;)*) => {
        $(fn $name(&mut self, $($arg: $ty),*) -> Result<$result> {
            self.now().$name($($arg),*)
        })*
    };
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

    hand_over! {
        lookup(table: &Matrix, rows: &[usize]) -> Act;
        linear(weights: &Matrix, bias: Option<&Constant>, x: Act) -> Act;
        norm(norm: &Norm, x: Act) -> Act;
        norm_in_place(norm: &Norm, x: Act) -> ();
        rope(turns: &Turns, head_dim: usize, x: Act) -> ();
        attention(spec: &Attention, cache: &mut Cache, layer: usize, start: usize, queries: Act, keys: Act, values: Act) -> Act;
        gated(activation: Activation, gate: Act, up: Act) -> ();
        activate(activation: Activation, x: Act) -> ();
        map(map: Map, x: Act) -> ();
        scale_rows(x: Act, factors: Act) -> ();
        route(router: &Router, scores: Act) -> Slots;
        weigh_slots(slots: &Slots, x: Act) -> ();
        linear_grouped(weights: &Grouped, slots: &Slots, x: Act) -> Act;
        blend(to: Act, parts: &[Act], factors: &[f32]) -> ();
        weigh(weights: &[f32], x: Act) -> ();
        combine(slots: &Slots, weighted: bool, x: Act) -> Act;
        scale_columns(factors: &Constant, x: Act) -> ();
        shift_columns(terms: &Constant, x: Act) -> ();
        columns(parts: &[(Act, Range<usize>)]) -> Act;
        state(states: &States, of: (usize, usize), position: usize, len: usize) -> Act;
        keep_state(states: &mut States, of: (usize, usize), position: usize, state: Act) -> ();
        convolve(by: &Convolution, state: Act, x: Act) -> Act;
        recur(by: &Recurrence, state: Act, queries_keys_values: [Act; 3], decays_rates: [Act; 2]) -> Act;
        scan(by: &Scan, state: Act, inputs_steps_into_out: [Act; 4]) -> Act;
        wkv(by: &Wkv, state: Act, inputs: [Act; 6]) -> Act;
        add(x: Act, y: Act) -> ();
        select(x: Act, rows: &[usize]) -> Act;
        leave(x: Act) -> Option<Left>;
        write(width: usize, numbers: &[f32]) -> Act;
    }

    fn read(&mut self, x: Act) -> Result<&[f32]> {
        if self.on_cpu { self.cpu.read(x) } else { self.gpu.read(x) }
    }

    fn release(&mut self, mark: Mark) {
        self.now().release(mark);
    }
}
