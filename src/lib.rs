//! Runs quantized GGUF language models.

mod error;
pub mod gguf;
pub mod model;
pub mod text;

pub use error::{Error, Result};
