//! Functions of each value, and of each row.
#![forbid(unsafe_code)]

use super::Cpu;
use crate::Result;
use crate::backend::{Act, Map, softplus};
use gristmill_kernels::activation;

impl Cpu<'_> {
    /// See [`crate::backend::Backend::map`].
    pub(super) fn map_values(&mut self, map: Map, x: Act) -> Result<()> {
        let level = self.level;
        self.for_each_row(x, |_, row| {
            match map {
                Map::Scale(factor) => row.iter_mut().for_each(|x| *x *= factor),
                // NaN stays: it must reach the logits.
                Map::Clamp(bound) => row.iter_mut().for_each(|x| *x = x.clamp(-bound, bound)),
                Map::Softplus => row.iter_mut().for_each(|x| *x = softplus(*x)),
                Map::SoftCap(cap) => activation::soft_cap(level, cap, row),
            }
            Ok(())
        })
    }

    /// See [`crate::backend::Backend::scale_rows`].
    pub(super) fn scale_each_row(&mut self, x: Act, factors: Act) -> Result<()> {
        let by = self.take(factors);
        let done = self.for_each_row(x, |row, data| {
            let factor = by.get(row).copied().unwrap_or(f32::NAN);
            data.iter_mut().for_each(|x| *x *= factor);
            Ok(())
        });
        self.put(factors, by);
        done
    }

    /// See [`crate::backend::Backend::scale_columns`].
    pub(super) fn scale_each_column(&mut self, factors: &[f32], x: Act) -> Result<()> {
        self.for_each_row(x, |_, data| {
            data.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
            Ok(())
        })
    }
}
