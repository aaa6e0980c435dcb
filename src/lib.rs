//! Runs quantized GGUF language models.

mod backend;
mod error;
pub mod generate;
pub mod gguf;
pub mod text;

pub use error::{Error, Result};
