//! GPT-2 (Radford and others 2019): learned positions, layer norms, fused queries, keys and values, GELU.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Dense, Heads, SelfAttention, Sizes};
use super::loader::{Loader, Norms};
use crate::Result;
use crate::backend::Activation;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let context = loader.size("context_length")?;
    let block = |layer| {
        let heads = Heads::load(loader, layer, width)?;
        let attention = SelfAttention { rope: None, ..SelfAttention::load(loader, layer, width, heads)? };
        let feed_forward = Dense::plain(loader, layer, width, Activation::GeluTanh)?;
        Block::new(loader, layer, width, Norms::Layer, attention, feed_forward)
    };
    Ok(Box::new(Decoder {
        positions: Some(loader.matrix("position_embd.weight", context, width)?),
        ..Decoder::load(loader, sizes, Norms::Layer, vec![], block)?
    }))
}
