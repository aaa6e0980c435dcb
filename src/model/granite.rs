//! Granite 3 (IBM 2024): Llama's layers, with factors of embeddings, residuals, attention and logits; with experts
//! `granitemoe`.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Decoder, SelfAttention};
use super::llama;
use super::loader::Loader;
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let decoder = llama::decoder(loader, Pairing::Neighbours, SelfAttention::load)?;
    Ok(Box::new(scaled(loader, decoder)?))
}

/// The decoder with Granite's factors.
pub(crate) fn scaled(loader: &Loader<'_>, mut decoder: Decoder) -> Result<Decoder> {
    let factor = |name| loader.optional_float(name).map(|x| x.filter(|&x| x != 0.0).unwrap_or(1.0));
    decoder.embedding_scale = factor("embedding_scale")?;
    decoder.logit_scale = 1.0 / factor("logit_scale")?;
    let residual = factor("residual_scale")?;
    decoder.blocks.iter_mut().for_each(|block| block.residual_scale = residual);
    Ok(decoder)
}
