//! Seed-OSS (ByteDance 2025): Qwen 2's layers; the second norm has another name.
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
    let block = |layer| {
        let attention = SelfAttention::load(loader, layer, width, Heads::load(loader, layer, width)?)?;
        let feed_forward = Dense::gated(loader, layer, width, Activation::Silu)?;
        let norm = format!("blk.{layer}.post_attention_norm");
        Ok(Block {
            feed_forward_norm: Some(Norms::Rms.load(loader, &norm, width)?),
            ..Block::without_second_norm(loader, layer, width, Norms::Rms, attention, feed_forward)?
        })
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?))
}
