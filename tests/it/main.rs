//! All integration tests, in one binary.
//!
//! Tests over the large golden sets run when `GRISTMILL_GOLDENS` names the folder that holds them; tests over
//! `tests/data` always run.

mod chat;
mod formats;
mod gguf;
mod goldens;
mod hostile;
mod layers;
mod logits;
mod memory;
mod models;
mod sampler;
mod templates;
mod tokenizers;

#[cfg(feature = "ggml")]
mod ggml;
