//! Granite 3 (IBM 2024): Llama's layers, with factors of embeddings, residuals, attention and logits; `granitemoe` with
//! experts, which may have a shared one beside them.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Block, Decoder, Dense, Experts, FeedForward, Heads, Router, Scoring, SelfAttention, Shared, Sizes,
};
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
        let attention = SelfAttention::load(loader, layer, width, Heads::load(loader, layer, width)?)?;
        Block::new(loader, layer, width, Norms::Rms, attention, feed_forward(loader, layer, width)?)
    };
    let decoder = Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?;
    Ok(Box::new(scaled(loader, decoder)?))
}

/// The decoder with Granite's factors.
pub(crate) fn scaled(loader: &Loader<'_>, mut decoder: Decoder) -> Result<Decoder> {
    let factor = |name| loader.optional_float(name).map(|x| x.filter(|&x| x != 0.0).unwrap_or(1.0));
    decoder.embedding_scale = factor("embedding_scale")?;
    decoder.logit_scale = 1.0 / factor("logit_scale")?;
    let residual = factor("residual_scale")?;
    decoder.blocks.iter_mut().for_each(|block| block.residual_scale = residual);
    Ok(decoder)
}

/// A dense network, or experts with a shared one where that has a length.
pub(crate) fn feed_forward(loader: &Loader<'_>, layer: usize, width: usize) -> Result<Box<dyn FeedForward>> {
    if loader.count_at("expert_count", layer)?.unwrap_or(0) == 0 {
        return Ok(Box::new(Dense::gated(loader, layer, width, Activation::Silu)?));
    }
    let router = Router::load(loader, layer, Scoring::Softmax, true)?;
    let inner = loader.size_at("feed_forward_length", layer)?;
    let shared = match loader.count_at("expert_shared_feed_forward_length", layer)?.unwrap_or(0) {
        0 => None,
        inner => {
            let prefix = format!("blk.{layer}");
            let network = Dense::named(loader, &prefix, "_shexp", width, inner, Activation::Silu)?;
            Some(Shared { network: Box::new(network), gate: None })
        }
    };
    let experts = Experts::load(loader, layer, width, inner, Activation::Silu, router)?;
    Ok(Box::new(Experts { shared, ..experts }))
}
