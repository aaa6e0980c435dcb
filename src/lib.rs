//! Runs quantized GGUF language models.

mod backend;
mod error;
#[cfg(feature = "ggml")]
pub mod ggml;
pub mod gguf;
pub mod text;

pub use error::{Error, Result};
