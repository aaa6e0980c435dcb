//! StarCoder 2 (Lozhkov and others 2024): layer norms, biases everywhere, GELU, grouped queries.
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
        Block::new(loader, layer, width, Norms::Layer, attention, feed_forward)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Layer, vec![rope], block)?))
}
