//! Phi 3.5 with experts (Abdin and others 2024): layer norms, biases, LongRoPE, experts whose weights sum to one.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Experts, Heads, Router, Scoring, SelfAttention, Sizes};
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
        let inner = loader.size_at("feed_forward_length", layer)?;
        let router = Router::load(loader, layer, Scoring::Softmax, true)?;
        let experts = Experts::load(loader, layer, width, inner, Activation::Silu, router)?;
        Block::new(loader, layer, width, Norms::LayerByRmsKey, attention, experts)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::LayerByRmsKey, vec![rope], block)?))
}
