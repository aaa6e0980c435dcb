//! Convolutions and recurrences, blocks of heads spread over the threads.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use gristmill_kernels::Output;
use gristmill_kernels::recurrence::{self, Step};
use gristmill_kernels::{scan, wkv};

use super::{Cpu, internal};
use crate::Result;
use crate::backend::{Act, Backend, Convolution, Recurrence, Scan, Wkv};

impl Cpu<'_> {
    /// See [`crate::backend::Backend::columns`].
    pub(super) fn join_columns(&mut self, parts: &[(Act, Range<usize>)]) -> Result<Act> {
        let rows = parts.first().map_or(0, |(act, _)| act.rows);
        let (act, mut data) = self.make(rows, parts.iter().map(|(_, columns)| columns.len()).sum())?;
        let mut at = 0;
        for (x, columns) in parts {
            let from = self.read(*x).chunks_exact(x.width.max(1));
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

    /// See [`crate::backend::Backend::convolve`].
    pub(super) fn convolve_tokens(&mut self, by: &Convolution, state: &mut [f32], x: Act) -> Result<Act> {
        let (channels, len) = (by.channels, by.weights.len());
        if x.width != channels || state.len() != by.state_len() {
            return Err(internal("a convolution of other channels"));
        }
        // The tokens behind those that are kept.
        let mut rows = Vec::with_capacity(state.len() + x.rows * channels);
        rows.extend_from_slice(state);
        rows.extend_from_slice(self.read(x));
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

    /// See [`crate::backend::Backend::recur`].
    pub(super) fn recur_heads(
        &mut self,
        by: &Recurrence,
        state: &mut [f32],
        [queries, keys, values]: [Act; 3],
        decays: &[f32],
        rates: &[f32],
    ) -> Result<Act> {
        let Recurrence { heads, key_heads, key_dim, value_dim, delta, .. } = *by;
        let width = recurrence::block(value_dim).ok_or_else(|| internal("heads of no whole registers"))?;
        let keys_width = key_heads * key_dim;
        if [queries.width, keys.width, values.width] != [keys_width, keys_width, heads * value_dim]
            || state.len() != by.state_len()
            || [decays.len(), rates.len()] != [heads * values.rows; 2]
        {
            return Err(internal("a recurrence of other sizes"));
        }
        let (act, mut data) = self.make(values.rows, heads * value_dim)?;
        let (q, k, v) = (self.read(queries), self.read(keys), self.read(values));
        let output = Output::new(&mut data, act.width)?;
        let failed = Mutex::new(None);
        self.team.for_each_chunk(state, key_dim * width, |chunk, state| {
            let columns = chunk * width..(chunk + 1) * width;
            let head = columns.start / value_dim;
            let key_columns = by.key_head(head) * key_dim..(by.key_head(head) + 1) * key_dim;
            let row = |all, token: usize, width: usize, columns: &Range<usize>| {
                let part = <[f32]>::get(all, token * width + columns.start..token * width + columns.end);
                part.unwrap_or_default()
            };
            let steps = (0..act.rows).map(|token| Step {
                key: row(k, token, keys_width, &key_columns),
                query: row(q, token, keys_width, &key_columns),
                value: row(v, token, act.width, &columns),
                decay: decays.get(token * heads + head).copied().unwrap_or(f32::NAN),
                rate: rates.get(token * heads + head).copied().unwrap_or(f32::NAN),
            });
            // SAFETY: chunks have columns of their own, and each chunk is worked on once.
            let mut out = unsafe { output.window(columns.clone()) };
            if let Err(mismatch) = recurrence::recur(self.level, delta, state, steps, &mut out) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).replace(mismatch);
            }
        });
        if let Some(mismatch) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(mismatch.into());
        }
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
        let [x, steps, b, c] = [input, steps, into, out_of].map(|act| self.read(act));
        let output = Output::new(&mut data, channels)?;
        let failed = Mutex::new(None);
        self.team.for_each_chunk(state, states * block, |chunk, state| {
            let columns = chunk * block..(chunk + 1) * block;
            let rates = rates.get(chunk * states * block..(chunk + 1) * states * block).unwrap_or_default();
            let row = |all, token: usize, width: usize, columns: Range<usize>| {
                let part = <[f32]>::get(all, token * width + columns.start..token * width + columns.end);
                part.unwrap_or_default()
            };
            let tokens = (0..act.rows).map(|token| scan::Step {
                x: row(x, token, channels, columns.clone()),
                steps: row(steps, token, channels, columns.clone()),
                b: row(b, token, states, 0..states),
                c: row(c, token, states, 0..states),
            });
            // SAFETY: chunks have columns of their own, and each chunk is worked on once.
            let mut out = unsafe { output.window(columns.clone()) };
            if let Err(mismatch) = scan::scan(self.level, rates, state, tokens, &mut out) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).replace(mismatch);
            }
        });
        if let Some(mismatch) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(mismatch.into());
        }
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
        let inputs = inputs.map(|act| self.read(act));
        let output = Output::new(&mut data, act.width)?;
        let failed = Mutex::new(None);
        self.team.for_each_chunk(state, dim * block, |chunk, state| {
            let columns = chunk * block..(chunk + 1) * block;
            let head = columns.start / dim * dim..(columns.start / dim + 1) * dim;
            let steps = (0..act.rows).map(|token| {
                let row = |all: &'_ [f32], columns: &Range<usize>| {
                    token * act.width + columns.start..(token * act.width + columns.end).min(all.len())
                };
                let [receptance, decay, key, a, b, value] = inputs;
                let of_head = |all| <[f32]>::get(all, row(all, &head)).unwrap_or_default();
                wkv::Step {
                    receptance: of_head(receptance),
                    decay: of_head(decay),
                    key: of_head(key),
                    a: of_head(a),
                    b: of_head(b),
                    value: value.get(row(value, &columns)).unwrap_or_default(),
                }
            });
            // SAFETY: chunks have columns of their own, and each chunk is worked on once.
            let mut out = unsafe { output.window(columns.clone()) };
            if let Err(mismatch) = wkv::wkv(self.level, state, steps, &mut out) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).replace(mismatch);
            }
        });
        if let Some(mismatch) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(mismatch.into());
        }
        self.put(act, data);
        Ok(act)
    }
}
