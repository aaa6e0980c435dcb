//! Qwen 3 (Yang and others 2025): Qwen 2's layers with norms of each head's queries and keys in place of the biases.
#![forbid(unsafe_code)]

use super::Network;
use super::llama;
use super::loader::Loader;
use crate::backend::Pairing;
use crate::{Error, Result};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    for name in ["blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight"] {
        if !loader.has(name) {
            return Err(Error::TensorMissing { tensor: name.to_owned(), architecture: "qwen3".to_owned() });
        }
    }
    llama::load_with(loader, Pairing::Halves)
}
