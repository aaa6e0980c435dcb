//! SmolLM 3 (Hugging Face 2025): Llama's layers, every fourth of which knows no positions.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::SelfAttention;
use super::llama;
use super::loader::Loader;
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let attention = |loader: &Loader<'_>, layer: usize, width, heads| {
        let rope = (!(layer + 1).is_multiple_of(4)).then_some(0);
        Ok(SelfAttention { rope, ..SelfAttention::load(loader, layer, width, heads)? })
    };
    Ok(Box::new(llama::decoder(loader, Pairing::Neighbours, attention)?))
}
