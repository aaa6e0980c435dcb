//! Phi 1, 1.5 and 2 (Li and others 2023): attention and feed-forward network side by side under one layer norm, rotary
//! embedding of a part of each head.
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
        let feed_forward = Dense::plain(loader, layer, width, Activation::GeluTanh)?;
        Ok(Block {
            parallel: true,
            ..Block::without_second_norm(loader, layer, width, Norms::Layer, attention, feed_forward)?
        })
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Layer, vec![rope], block)?))
}
