//! Functions of each value, and of each row.
#![forbid(unsafe_code)]

use super::{Cpu, Numbers};
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
                Map::Sparse(deviations) => sparse(row, deviations),
                Map::Exp => row.iter_mut().for_each(|x| *x = libm::expf(*x)),
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

    /// See [`crate::backend::Backend::shift_columns`].
    pub(super) fn shift_each_column(&mut self, terms: &[f32], x: Act) -> Result<()> {
        self.for_each_row(x, |_, data| {
            data.iter_mut().zip(terms).for_each(|(x, term)| *x += term);
            Ok(())
        })
    }

    /// See [`crate::backend::Backend::blend`].
    pub(super) fn blend_rows(&mut self, to: Act, parts: &[Act], factors: &[f32]) -> Result<()> {
        // A matrix may be among the parts more than once.
        let mut taken: Vec<(Act, Numbers)> = Vec::new();
        let mut places = Vec::with_capacity(parts.len());
        for &part in parts {
            let known = taken.iter().position(|(act, _)| act.slot == part.slot);
            places.push(known.unwrap_or(taken.len()));
            if known.is_none() {
                let data = self.take(part);
                taken.push((part, data));
            }
        }
        let width = to.width;
        let done = self.for_each_row(to, |row, out| {
            out.fill(0.0);
            for (&place, factor) in places.iter().zip(factors.iter().skip(row * places.len())) {
                let part = taken.get(place).and_then(|(_, part)| part.get(row * width..(row + 1) * width));
                let part = part.unwrap_or_default();
                out.iter_mut().zip(part).for_each(|(x, y)| *x += factor * y);
            }
            Ok(())
        });
        taken.into_iter().for_each(|(part, data)| self.put(part, data));
        done
    }
}

/// See [`Map::Sparse`].
fn sparse(row: &mut [f32], deviations: f32) {
    let count = row.len().max(1) as f64;
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    let cutoff = (mean + libm::sqrt(variance) * f64::from(deviations)) as f32;
    // NaN stays: it must reach the logits.
    row.iter_mut().for_each(|x| *x = if *x - cutoff < 0.0 { 0.0 } else { *x - cutoff });
}
