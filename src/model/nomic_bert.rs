//! Nomic BERT (Nussbaum and others 2024): BERT's layers with rotary embedding in place of learned positions and a gated
//! feed-forward network; with experts in every second layer (Nussbaum and Duderstadt 2025) a plain one.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Dense, Encoder, EncoderLayer, Experts, FeedForward, Heads, Router, Scoring, SelfAttention,
};
use super::loader::Loader;
use super::rope::Rope;
use crate::Result;
use crate::backend::{Activation, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    encoder(loader, |layer, width| Ok(Box::new(Dense::gated(loader, layer, width, Activation::Silu)?)))
}

/// Loads a model with experts.
pub(crate) fn load_with_experts(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let period = loader.size("moe_every_n_layers")?;
    encoder(loader, |layer, width| {
        if layer % period != 1 {
            return Ok(Box::new(Dense::plain(loader, layer, width, Activation::Gelu)?));
        }
        let inner = loader.size_at("feed_forward_length", layer)?;
        let router = Router::load(loader, layer, Scoring::Softmax, false)?;
        Ok(Box::new(Experts::load(loader, layer, width, inner, Activation::Gelu, router)?))
    })
}

fn encoder(
    loader: &Loader<'_>,
    feed_forward: impl Fn(usize, usize) -> Result<Box<dyn FeedForward>>,
) -> Result<Box<dyn Network>> {
    let mut encoder = Encoder::load(loader, |layer, sizes, heads| {
        let attention = SelfAttention::load(loader, layer, sizes.width, heads)?;
        EncoderLayer::new(loader, layer, sizes.width, attention, feed_forward(layer, sizes.width)?)
    })?;
    let heads = Heads::of_encoder(loader, 0, loader.size("embedding_length")?)?;
    encoder.ropes = vec![Rope::load(loader, Pairing::Halves, heads.shape.key_dim)?];
    Ok(Box::new(encoder))
}
