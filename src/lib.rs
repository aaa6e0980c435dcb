//! Runs quantized GGUF language models.

mod backend;
mod error;
pub mod generate;
#[cfg(feature = "ggml")]
pub mod ggml;
pub mod gguf;
pub mod model;
pub mod text;

pub use backend::CacheType;
pub use error::{Error, Result};
pub use model::Model;
