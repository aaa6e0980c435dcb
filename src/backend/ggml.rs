//! ggml's matrix products in the place of our own; experts stay with ours, for one expert's product at a time would say
//! little about either.
#![forbid(unsafe_code)]

use std::sync::{Mutex, OnceLock, PoisonError};

use super::Matrix;
use crate::Result;
use crate::ggml::{self, Threads, Weights};

/// ggml's threads, shared by all sequences of a model: one product at a time.
pub(crate) struct Ggml(Mutex<Threads>);

impl Ggml {
    pub fn new(threads: usize) -> Result<Self> {
        tracing::debug!(version = ggml::version(), "matrices are multiplied by ggml");
        Threads::new(threads).map(Mutex::new).map(Ggml)
    }

    /// Writes the product of `weights` with each row of `x` into `out`; false where ggml only stores the type, such as
    /// F64.
    pub fn multiply(&self, weights: &Matrix, x: &[f32], out: &mut [f32]) -> Result<bool> {
        if ggml::partner(weights.ty).is_none() {
            return Ok(false);
        }
        weights.with_ggml(|weights| {
            let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            threads.mul_mat(weights, x, out)
        })?;
        Ok(true)
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
