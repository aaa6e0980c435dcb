//! Qwen 3 with experts (Yang and others 2025): Qwen 3's attention, experts whose weights sum to one.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Experts, Heads, Router, Scoring, SelfAttention, Sizes};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use crate::Result;
use crate::backend::{Activation, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    load_with(loader, "expert_feed_forward_length", true)
}

/// The same layers, where `inner` names the experts' width, and whose weights need not sum to one.
pub(crate) fn load_with(loader: &Loader<'_>, inner: &str, normalize: bool) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let rope = Rope::load(loader, Pairing::Halves, Heads::load(loader, 0, width)?.shape.key_dim)?;
    let block = |layer| {
        let heads = Heads::load(loader, layer, width)?;
        let attention = SelfAttention::load(loader, layer, width, heads)?.need_norms(loader, layer)?;
        let inner = loader.size_at(inner, layer)?;
        let router = Router::load(loader, layer, Scoring::Softmax, normalize)?;
        let experts = Experts::load(loader, layer, width, inner, Activation::Silu, router)?;
        Block::new(loader, layer, width, Norms::Rms, attention, experts)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?))
}
