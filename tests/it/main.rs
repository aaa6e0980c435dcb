//! All integration tests, in one binary.
//!
//! Tests over the large golden sets run when `GRISTMILL_GOLDENS` names the folder that holds them; tests over
//! `tests/data` always run.

mod formats;
mod goldens;

#[cfg(feature = "ggml")]
mod ggml;
