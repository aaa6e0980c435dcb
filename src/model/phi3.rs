//! Phi 3 and 4 (Abdin and others 2024): Llama's layers with fused projections, and LongRoPE.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::SelfAttention;
use super::llama;
use super::loader::Loader;
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    // `attention.sliding_window` of older files is not the model's: llama.cpp sees all positions, too.
    Ok(Box::new(llama::decoder(loader, Pairing::Halves, SelfAttention::load)?))
}
