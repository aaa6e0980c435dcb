//! InternLM 2 (Cai and others 2024): Llama's layers.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::SelfAttention;
use super::llama;
use super::loader::Loader;
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    Ok(Box::new(llama::decoder(loader, Pairing::Neighbours, SelfAttention::load)?))
}
