//! Qwen 2 and 2.5 (Yang and others 2024): Llama's layers with biases of queries, keys and values, and rotary embedding
//! of halves.
#![forbid(unsafe_code)]

use super::layers::SelfAttention;
use super::loader::Loader;
use super::{Network, llama};
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    Ok(Box::new(llama::decoder(loader, Pairing::Halves, SelfAttention::load)?))
}
