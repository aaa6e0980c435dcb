//! Convolutions and recurrences, blocks of heads spread over the threads.

use std::ops::Range;

use gristmill_kernels::recurrence::{self, Step};
use gristmill_kernels::{Mismatch, Output, scan, wkv};

use super::attend::Failed;
use super::{Cpu, internal};
use crate::Result;
use crate::backend::{Act, Convolution, Recurrence, Scan, Wkv};

/// Some columns of a token's row, of rows `width` wide.
fn row<'a>(all: &'a [f32], token: usize, width: usize, columns: &Range<usize>) -> &'a [f32] {
    all.get(token * width + columns.start..token * width + columns.end).unwrap_or_default()
}

impl Cpu<'_> {
    /// See [`crate::backend::Backend::columns`].
    pub(super) fn join_columns(&mut self, parts: &[(Act, Range<usize>)]) -> Result<Act> {
        let rows = parts.first().map_or(0, |(act, _)| act.rows);
        let (act, mut data) = self.make(rows, parts.iter().map(|(_, columns)| columns.len()).sum())?;
        let mut at = 0;
        for (x, columns) in parts {
            let from = self.numbers(*x).chunks_exact(x.width.max(1));
            if x.rows != rows || columns.end > x.width {
                return Err(internal("columns that are not there"));
            }
            for (to, from) in data.chunks_exact_mut(act.width.max(1)).zip(from) {
                let to = to.get_mut(at..at + columns.len()).unwrap_or_default();
                to.copy_from_slice(from.get(columns.clone()).unwrap_or_default());
            }
            at += columns.len();
        }
        self.put(act, data);
        Ok(act)
    }

    /// Hands the numbers of a state to `job`, which changes them.
    pub(super) fn with_state<R>(
        &mut self,
        state: Act,
        job: impl FnOnce(&mut Self, &mut [f32]) -> Result<R>,
    ) -> Result<R> {
        let mut data = self.take(state);
        let done = job(self, &mut data);
        self.put(state, data);
        done
    }

    /// See [`crate::backend::Backend::convolve`].
    pub(super) fn convolve_tokens(&mut self, by: &Convolution, state: &mut [f32], x: Act) -> Result<Act> {
        let (channels, len) = (by.channels, by.weights.len());
        if x.width != channels || state.len() != by.state_len() {
            return Err(internal("a convolution of other channels"));
        }
        // The tokens behind those that are kept.
        let mut rows = Vec::with_capacity(state.len() + x.rows * channels);
        rows.extend_from_slice(state);
        rows.extend_from_slice(self.numbers(x));
        state.copy_from_slice(rows.get(x.rows * channels..).unwrap_or_default());
        let (act, data) = self.make(x.rows, channels)?;
        self.put(act, data);
        let level = self.level;
        self.for_each_row(act, |token, out| {
            let rows = rows.get(token * channels..token * channels + len).unwrap_or_default();
            recurrence::convolve(level, &by.weights, by.bias.as_deref(), rows, out)
        })?;
        Ok(act)
    }

    /// Calls `job` for each block of a state, which has the shape `[rows, columns]`, with the block's columns of the results.
    fn for_each_block(
        &self,
        state: &mut [f32],
        (rows, columns): (usize, usize),
        results: &Output<'_>,
        job: impl Fn(Range<usize>, &mut [f32], &mut Output<'_>) -> Result<(), Mismatch> + Sync,
    ) -> Result<()> {
        let failed = Failed::default();
        self.team.for_each_chunk(state, rows * columns, |block, state| {
            let columns = block * columns..(block + 1) * columns;
            // SAFETY: blocks have columns of their own, and each block is worked on once.
            let mut out = unsafe { results.window(columns.clone()) };
            failed.note(job(columns, state, &mut out));
        });
        failed.result()
    }

    /// See [`crate::backend::Backend::recur`].
    pub(super) fn recur_heads(
        &mut self,
        by: &Recurrence,
        state: &mut [f32],
        [queries, keys, values]: [Act; 3],
        [decays, rates]: [Act; 2],
    ) -> Result<Act> {
        let Recurrence { heads, key_heads, key_dim, value_dim, delta, .. } = *by;
        let width = recurrence::block(value_dim).ok_or_else(|| internal("heads of no whole registers"))?;
        let keys_width = key_heads * key_dim;
        if [queries.width, keys.width, values.width] != [keys_width, keys_width, heads * value_dim]
            || state.len() != by.state_len()
            || [decays.rows * decays.width, rates.rows * rates.width] != [heads * values.rows; 2]
        {
            return Err(internal("a recurrence of other sizes"));
        }
        let (act, mut data) = self.make(values.rows, heads * value_dim)?;
        let [q, k, v, decays, rates] = [queries, keys, values, decays, rates].map(|act| self.numbers(act));
        let output = Output::new(&mut data, act.width)?;
        self.for_each_block(state, (key_dim, width), &output, |columns, state, out| {
            let head = columns.start / value_dim;
            let key_columns = by.key_head(head) * key_dim..(by.key_head(head) + 1) * key_dim;
            let steps = (0..act.rows).map(|token| Step {
                key: row(k, token, keys_width, &key_columns),
                query: row(q, token, keys_width, &key_columns),
                value: row(v, token, act.width, &columns),
                decay: decays.get(token * heads + head).copied().unwrap_or(f32::NAN),
                rate: rates.get(token * heads + head).copied().unwrap_or(f32::NAN),
            });
            recurrence::recur(self.level, delta, state, steps, out)
        })?;
        self.put(act, data);
        Ok(act)
    }

    /// See [`crate::backend::Backend::scan`].
    pub(super) fn scan_channels(
        &mut self,
        by: &Scan,
        state: &mut [f32],
        [input, steps, into, out_of]: [Act; 4],
    ) -> Result<Act> {
        let Scan { channels, states, block, ref rates } = *by;
        let widths = [input.width, steps.width, into.width, out_of.width];
        if widths != [channels, channels, states, states] || state.len() != rates.len() {
            return Err(internal("a scan of other sizes"));
        }
        let (act, mut data) = self.make(input.rows, channels)?;
        let [x, steps, b, c] = [input, steps, into, out_of].map(|act| self.numbers(act));
        let output = Output::new(&mut data, channels)?;
        self.for_each_block(state, (states, block), &output, |columns, state, out| {
            let rates = rates.get(columns.start * states..columns.end * states).unwrap_or_default();
            let tokens = (0..act.rows).map(|token| scan::Step {
                x: row(x, token, channels, &columns),
                steps: row(steps, token, channels, &columns),
                b: row(b, token, states, &(0..states)),
                c: row(c, token, states, &(0..states)),
            });
            scan::scan(self.level, rates, state, tokens, out)
        })?;
        self.put(act, data);
        Ok(act)
    }

    /// See [`crate::backend::Backend::wkv`].
    pub(super) fn wkv_heads(&mut self, by: &Wkv, state: &mut [f32], inputs: [Act; 6]) -> Result<Act> {
        let Wkv { heads, dim } = *by;
        let block = recurrence::block(dim).ok_or_else(|| internal("heads of no whole registers"))?;
        let [first, ..] = inputs;
        if inputs.iter().any(|act| (act.rows, act.width) != (first.rows, heads * dim))
            || state.len() != by.state_len()
        {
            return Err(internal("a recurrence of other sizes"));
        }
        let (act, mut data) = self.make(first.rows, heads * dim)?;
        let inputs = inputs.map(|act| self.numbers(act));
        let output = Output::new(&mut data, act.width)?;
        self.for_each_block(state, (dim, block), &output, |columns, state, out| {
            let head = columns.start / dim * dim..(columns.start / dim + 1) * dim;
            let steps = (0..act.rows).map(|token| {
                let [receptance, decay, key, a, b, value] = inputs;
                let of_head = |all| row(all, token, act.width, &head);
                wkv::Step {
                    receptance: of_head(receptance),
                    decay: of_head(decay),
                    key: of_head(key),
                    a: of_head(a),
                    b: of_head(b),
                    value: row(value, token, act.width, &columns),
                }
            });
            wkv::wkv(self.level, state, steps, out)
        })?;
        self.put(act, data);
        Ok(act)
    }
}
