//! All integration tests, in one binary.
//!
//! Tests over the large golden sets run when `GRISTMILL_GOLDENS` names the folder that holds them; tests over
//! `tests/data` always run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "in a test, each of these is a failure with its place, or its report"
)]

#[cfg(feature = "cli")]
mod advise;
#[cfg(feature = "cli")]
mod bench;
mod cache;
mod chat;
#[cfg(feature = "cli")]
mod cli;
mod doctor;
mod embeddings;
mod eval;
mod formats;
mod gguf;
mod goldens;
mod hostile;
mod layers;
mod logits;
mod memory;
mod metal;
mod models;
mod peers;
mod quantize;
mod report;
mod sampler;
mod templates;
mod tokenizers;

#[cfg(feature = "ggml")]
mod ggml;
