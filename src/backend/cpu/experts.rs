//! Products grouped by expert: one step for all experts, reading only the rows of those that are used.

use std::sync::PoisonError;

use gristmill_kernels::product::{self, PANEL_ROWS, multiply, scratch_len};
use gristmill_kernels::{Mismatch, Output};

use super::attend::Failed;
use super::{Cpu, Workspace, internal};
use crate::Result;
use crate::backend::{Act, Grouped, Slots};

impl Cpu<'_> {
    /// See [`crate::backend::Backend::linear_grouped`].
    pub(super) fn multiply_by_expert(&mut self, matrix: &Grouped, slots: &Slots, x: Act) -> Result<Act> {
        let Grouped { weights, of, first, rows: expert_rows, bias } = matrix;
        let (expert_rows, len) = (*expert_rows, weights.len);
        let form =
            product::form(weights.ty).ok_or_else(|| internal("weights of a type that cannot be computed"))?;
        if x.width != len || x.rows != slots.tokens.len() {
            return Err(internal("slots of experts that do not belong to their activations"));
        }
        let places = self.quantize_runs(x, form, slots.runs.iter().map(|(_, run)| run.clone()))?;
        self.make_scratch(scratch_len(x.rows))?;
        let (act, mut data) = self.make(x.rows, expert_rows)?;
        let Workspace { quantized, scratch, .. } = &*self.work;
        let row_bytes = weights.ty.row_bytes(len).unwrap_or(0);

        // Parts of experts' rows, about as many as even out cores of different speed.
        let all = expert_rows * slots.runs.len();
        let per_task = all.div_ceil(16 * self.team.count()).next_multiple_of(PANEL_ROWS).max(PANEL_ROWS);
        let parts = expert_rows.div_ceil(per_task);
        let output = Output::new(&mut data, expert_rows)?;
        let failed = Failed::default();
        let job = |task: usize, thread: usize| -> Option<()> {
            let (expert, run) = slots.runs.get(task / parts)?;
            let part = task % parts * per_task;
            let rows = part..(part + per_task).min(expert_rows);
            let top = expert * of + first;
            let place = top + rows.start..top + rows.end;
            let bytes = weights.bytes().get(place.start * row_bytes..place.end * row_bytes)?;
            let columns = quantized.columns(*places.get(task / parts)?);
            // SAFETY: tasks have rows and columns of their own, and each task runs once.
            let window = unsafe { output.tile(rows, run.clone()) };
            let mut scratch = scratch.get(thread)?.lock().unwrap_or_else(PoisonError::into_inner);
            let done = columns
                .and_then(|columns| multiply(self.level, weights.ty, bytes, columns, &mut scratch, window));
            failed.note(done);
            Some(())
        };
        self.team.run(parts * slots.runs.len(), &|task, thread| {
            if job(task, thread).is_none() {
                failed.note(Err(Mismatch { what: "rows of an expert", expected: expert_rows, found: 0 }));
            }
        });
        failed.result()?;
        add_biases(&mut data, bias.as_deref(), expert_rows, slots);
        self.put(act, data);
        Ok(act)
    }

    /// See [`crate::backend::Backend::weigh`].
    pub(super) fn weigh_rows(&mut self, weights: &[f32], x: Act) -> Result<()> {
        self.for_each_row(x, |row, data| {
            let weight = weights.get(row).copied().unwrap_or(0.0);
            data.iter_mut().for_each(|x| *x *= weight);
            Ok(())
        })
    }

    /// See [`crate::backend::Backend::combine`].
    pub(super) fn combine_slots(&mut self, slots: &Slots, weighted: bool, x: Act) -> Result<Act> {
        let tokens = slots.chosen.len() / slots.per_token.max(1);
        let (act, data) = self.make(tokens, x.width)?;
        self.put(act, data);
        let outputs = self.take(x);
        let done = self.for_each_row(act, |token, row| {
            row.fill(0.0);
            let chosen = slots.chosen.iter().skip(token * slots.per_token).take(slots.per_token);
            for &slot in chosen {
                let weight = if weighted { slots.weights.get(slot).copied().unwrap_or(0.0) } else { 1.0 };
                let output = outputs.get(slot * x.width..(slot + 1) * x.width).unwrap_or_default();
                row.iter_mut().zip(output).for_each(|(x, y)| *x += weight * y);
            }
            Ok(())
        });
        self.put(x, outputs);
        done.map(|()| act)
    }
}

/// Adds each expert's bias, where there is one, to the rows of its slots.
fn add_biases(data: &mut [f32], bias: Option<&[f32]>, expert_rows: usize, slots: &Slots) {
    let Some(bias) = bias else { return };
    for (expert, run) in &slots.runs {
        let bias = bias.get(expert * expert_rows..(expert + 1) * expert_rows).unwrap_or_default();
        let rows = data.get_mut(run.start * expert_rows..run.end * expert_rows).unwrap_or_default();
        for row in rows.chunks_exact_mut(expert_rows.max(1)) {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    }
}
