//! Qwen 3 (Yang and others 2025): Qwen 2's layers with norms of each head's queries and keys in place of the biases.
#![forbid(unsafe_code)]

use super::layers::SelfAttention;
use super::loader::Loader;
use super::{Network, llama};
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let attention = |loader: &Loader<'_>, layer, width, heads| {
        SelfAttention::load(loader, layer, width, heads)?.need_norms(loader, layer)
    };
    let mut decoder = llama::decoder(loader, Pairing::Halves, attention)?;
    // Its scores are of yes and no.
    decoder.rank_head.iter_mut().for_each(|head| head.softmax = true);
    Ok(Box::new(decoder))
}
