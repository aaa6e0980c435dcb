//! Runs quantized GGUF language models.

mod backend;
mod error;
pub mod gguf;
pub mod model;
pub mod text;

pub use error::{Error, Result};
