//! In the place of `ggml.rs` where the feature `ggml` is off: there is no such backend.
#![forbid(unsafe_code)]

use super::Backend;
use super::cpu::Cpu;
use crate::{Error, Result};

/// No value of it can be made.
pub(crate) enum Ggml {}

impl Ggml {
    pub fn new(_threads: usize) -> Result<Self> {
        let hint = "use `cpu`, or build with `--features ggml`, which needs a C++ compiler and libclang";
        Err(Error::BackendAbsent { asked: "ggml".to_owned(), hint })
    }

    pub fn pass<R>(&self, _cpu: Cpu<'_>, _pass: impl FnOnce(&mut dyn Backend) -> R) -> R {
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
