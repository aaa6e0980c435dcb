//! In the place of `ggml.rs` where the feature `ggml` is off: there is no such backend.
#![forbid(unsafe_code)]

use super::Matrix;
use crate::{Error, Result};

/// No value of it can be made.
pub(crate) enum Ggml {}

impl Ggml {
    pub fn new(_threads: usize) -> Result<Self> {
        let hint = "use `cpu`, or build with `--features ggml`, which needs a C++ compiler and libclang";
        Err(Error::BackendAbsent { asked: "ggml".to_owned(), hint })
    }

    pub fn multiply(&self, _weights: &Matrix, _x: &[f32], _out: &mut [f32]) -> Result<bool> {
        match *self {}
    }
}

/// Nothing is prepared.
pub(crate) struct Prepared;

impl Prepared {
    pub fn new() -> Self {
        Prepared
    }
}
