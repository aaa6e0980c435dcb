//! Command R7B, Command A (Cohere 2025): Command R's layers; three of four have a window, the fourth knows no positions.
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
    let rope = Rope::load(loader, Pairing::Neighbours, Heads::load(loader, 0, width)?.shape.key_dim)?;
    let block = |layer| {
        let mut attention = SelfAttention::load(loader, layer, width, Heads::load(loader, layer, width)?)?;
        let window = loader.window(layer, 4)?;
        attention.see_window(window);
        attention.rope = window.map(|_| 0);
        let feed_forward = Dense::gated(loader, layer, width, Activation::Silu)?;
        Ok(Block {
            parallel: true,
            ..Block::without_second_norm(loader, layer, width, Norms::Layer, attention, feed_forward)?
        })
    };
    Ok(Box::new(Decoder {
        logit_scale: loader.optional_float("logit_scale")?.unwrap_or(1.0),
        ..Decoder::load(loader, sizes, Norms::Layer, vec![rope], block)?
    }))
}
