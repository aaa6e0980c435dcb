//! Falcon (Almazrouei and others 2023): attention and feed-forward network side by side, under one layer norm or (40B) one
//! each.
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
        let feed_forward = Dense::plain(loader, layer, width, Activation::Gelu)?;
        let mut block =
            Block::without_second_norm(loader, layer, width, Norms::Layer, attention, feed_forward)?;
        block.parallel = true;
        let own = format!("blk.{layer}.attn_norm_2");
        if loader.has(&format!("{own}.weight")) {
            // The first norm is the feed-forward network's then.
            block.feed_forward_norm = block.mixer_norm.replace(Norms::Layer.load(loader, &own, width)?);
        }
        Ok(block)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Layer, vec![rope], block)?))
}
