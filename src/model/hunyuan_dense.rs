//! Hunyuan's dense models (Tencent 2025): Llama's layers with norms of each head's queries and keys after their turn.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::SelfAttention;
use super::llama;
use super::loader::Loader;
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let attention = |loader: &Loader<'_>, layer, width, heads| {
        let attention = SelfAttention::load(loader, layer, width, heads)?.need_norms(loader, layer)?;
        Ok(SelfAttention { turn_first: true, ..attention })
    };
    Ok(Box::new(llama::decoder(loader, Pairing::Halves, attention)?))
}
