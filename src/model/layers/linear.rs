//! A product with a bias.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::Result;
use crate::backend::{Act, Constant, Matrix};
use crate::model::loader::Loader;
use crate::model::pass::Pass;

/// A matrix and, where the model has one, a bias.
pub(crate) struct Linear {
    weights: Matrix,
    bias: Option<Constant>,
}

impl Linear {
    /// `name.weight` of `rows` outputs and `len` inputs, and `name.bias` where it is there.
    pub fn load(loader: &Loader<'_>, name: &str, rows: usize, len: usize) -> Result<Self> {
        Self::load_rows(loader, name, rows, len, 0..rows)
    }

    /// A part of a fused matrix: `rows` of its `all` outputs.
    pub fn load_rows(
        loader: &Loader<'_>,
        name: &str,
        all: usize,
        len: usize,
        rows: Range<usize>,
    ) -> Result<Self> {
        let bias = loader.optional_vector(&format!("{name}.bias"), all)?;
        let bias = bias.map(|bias| bias.get(rows.clone()).unwrap_or_default().to_vec().into());
        Ok(Linear { weights: loader.matrix_rows(&format!("{name}.weight"), all, len, rows)?, bias })
    }

    /// One of `count` matrices in the tensor `name`.
    pub fn nth(
        loader: &Loader<'_>,
        name: &str,
        count: usize,
        n: usize,
        rows: usize,
        len: usize,
    ) -> Result<Self> {
        Ok(Linear { weights: loader.nth_matrix(name, count, n, rows, len)?, bias: None })
    }

    /// As [`Linear::load`], where the matrix is there.
    pub fn optional(loader: &Loader<'_>, name: &str, rows: usize, len: usize) -> Result<Option<Self>> {
        let there = loader.has(&format!("{name}.weight"));
        there.then(|| Linear::load(loader, name, rows, len)).transpose()
    }

    /// `x` `[tokens, inputs]` to `[tokens, outputs]`.
    pub fn forward(&self, pass: &mut Pass<'_>, x: Act) -> Result<Act> {
        pass.backend.linear(&self.weights, self.bias.as_ref(), x)
    }

    /// As [`Linear::forward`], each token then scaled to the magnitude that `sizes` says.
    pub fn forward_to_sizes(&self, pass: &mut Pass<'_>, x: Act, sizes: &[f32]) -> Result<Act> {
        let y = self.forward(pass, x)?;
        let floor = libm::sqrtf(1e-5);
        let factors: Vec<f32> =
            magnitudes(pass, y)?.iter().zip(sizes).map(|(own, size)| size / own.max(floor)).collect();
        pass.backend.weigh(&factors, y)?;
        Ok(y)
    }
}

/// The root of each row's mean square.
pub(crate) fn magnitudes(pass: &mut Pass<'_>, x: Act) -> Result<Vec<f32>> {
    let rows = pass.backend.read(x)?.chunks_exact(x.width.max(1));
    let square = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    Ok(rows.map(|row| libm::sqrt(square(row) / row.len() as f64) as f32).collect())
}
