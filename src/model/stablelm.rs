//! StableLM (Bellagente and others 2024): layer norms, rotary embedding of a part of each head; some sizes with attention
//! and feed-forward network side by side.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Dense, Heads, SelfAttention, Sizes};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use crate::Result;
use crate::backend::{Activation, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let rope = Rope::load(loader, Pairing::Halves, Heads::load(loader, 0, width)?.shape.key_dim)?;
    if loader.has("blk.0.attn_q_norm.weight") {
        return Err(loader.unsupported("norms of its own for each head's queries".to_owned()));
    }
    let block = |layer| {
        let attention = SelfAttention::load(loader, layer, width, Heads::load(loader, layer, width)?)?;
        let feed_forward = Dense::gated(loader, layer, width, Activation::Silu)?;
        if loader.has(&format!("blk.{layer}.ffn_norm.weight")) {
            return Block::new(loader, layer, width, Norms::Layer, attention, feed_forward);
        }
        Ok(Block {
            parallel: true,
            ..Block::without_second_norm(loader, layer, width, Norms::Layer, attention, feed_forward)?
        })
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Layer, vec![rope], block)?))
}
