//! Products grouped by expert: one step for all experts, reading only the rows of those that are used.

use std::sync::{Mutex, PoisonError};

use gristmill_kernels::activations::{Columns, Form, Layout, quantize};
use gristmill_kernels::product::{self, PANEL_ROWS, multiply, scratch_len};
use gristmill_kernels::{Mismatch, Output};

use super::attend::Failed;
use super::{Cpu, WORTH_SHARING, Workspace, internal};
use crate::Result;
use crate::backend::{Act, Grouped, Slots};

/// Where a run's columns lie among the quantized ones: their layout, and where codes, scales and sums begin.
type Place = (Layout, [usize; 3]);

impl Cpu<'_> {
    /// Quantizes the slots' activations, each run for itself, as products of so many columns want them.
    fn quantize_runs(&mut self, x: Act, form: Form, slots: &Slots) -> Result<Vec<Place>> {
        let (level, width) = (self.level, x.width);
        let mut places: Vec<Place> = Vec::with_capacity(slots.runs.len());
        let mut ends = [0; 3];
        for (_, run) in &slots.runs {
            let layout = Layout::new(level, form, width, run.len())?;
            places.push((layout, ends));
            for (end, len) in ends.iter_mut().zip(layout.total_lens()) {
                *end += len;
            }
        }
        let Workspace { slots: floats, quantized, .. } = &mut *self.work;
        let data = floats.get(x.slot).and_then(|data| data.get(..x.rows * width)).unwrap_or_default();
        // What lies there is no longer in the order of any one matrix.
        quantized.of = None;
        quantized.grow(ends, "activations of experts")?;
        let (mut codes, mut scales, mut sums) =
            (bytemuck::cast_slice_mut(&mut quantized.codes), &mut *quantized.scales, &mut *quantized.sums);
        let mut jobs = Vec::new();
        for ((_, run), (layout, _)) in slots.runs.iter().zip(&places) {
            let columns = data.get(run.start * width..run.end * width).unwrap_or_default();
            let lens = layout.lens();
            for columns in columns.chunks(width * layout.together()) {
                let (some_codes, some_scales, some_sums);
                (some_codes, codes) = codes.split_at_mut_checked(lens[0]).unwrap_or_default();
                (some_scales, scales) = scales.split_at_mut_checked(lens[1]).unwrap_or_default();
                (some_sums, sums) = sums.split_at_mut_checked(lens[2]).unwrap_or_default();
                jobs.push(Mutex::new((*layout, columns, some_codes, some_scales, some_sums)));
            }
        }
        let job = |job: usize, _: usize| {
            if let Some(job) = jobs.get(job) {
                let (layout, x, codes, scales, sums) =
                    &mut *job.lock().unwrap_or_else(PoisonError::into_inner);
                // The lengths belong together: all were cut above.
                let _ = quantize(level, *layout, x, codes, scales, sums);
            }
        };
        if data.len() < WORTH_SHARING {
            (0..jobs.len()).for_each(|column| job(column, 0));
        } else {
            self.team.run(jobs.len(), &job);
        }
        Ok(places)
    }

    /// See [`crate::backend::Backend::linear_grouped`].
    pub(super) fn multiply_by_expert(&mut self, matrix: &Grouped, slots: &Slots, x: Act) -> Result<Act> {
        let Grouped { weights, of, first, rows: expert_rows, bias } = matrix;
        let (expert_rows, len) = (*expert_rows, weights.len);
        let form =
            product::form(weights.ty).ok_or_else(|| internal("weights of a type that cannot be computed"))?;
        if x.width != len || x.rows != slots.tokens.len() {
            return Err(internal("slots of experts that do not belong to their activations"));
        }
        let places = if form == Form::Floats { Vec::new() } else { self.quantize_runs(x, form, slots)? };
        self.make_scratch(scratch_len(x.rows))?;
        let (act, mut data) = self.make(x.rows, expert_rows)?;
        let Workspace { slots: floats, quantized, scratch, .. } = &*self.work;
        let floats = floats.get(x.slot).map(Vec::as_slice).unwrap_or_default();
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
            let columns = match form {
                Form::Floats => Columns::floats(floats.get(run.start * len..run.end * len)?, len),
                _ => {
                    let (layout, [codes, scales, sums]) = *places.get(task / parts)?;
                    let [code_count, scale_count, sum_count] = layout.total_lens();
                    Columns::quantized(
                        layout,
                        bytemuck::cast_slice(&quantized.codes).get(codes..codes + code_count)?,
                        quantized.scales.get(scales..scales + scale_count)?,
                        quantized.sums.get(sums..sums + sum_count)?,
                    )
                }
            };
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
