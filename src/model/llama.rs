//! Llama 1 to 3, and the many that share its layers: Mistral, TinyLlama, SmolLM (Touvron and others 2023); with experts
//! in place of feed-forward networks Mixtral (Jiang and others 2024).
//!
//! RMS norms before attention and feed-forward, rotary embedding of neighbours, grouped queries, SiLU gate.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Block, Decoder, Dense, Experts, FeedForward, Heads, Router, Scoring, SelfAttention, Sizes,
};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use crate::Result;
use crate::backend::{Activation, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    Ok(Box::new(decoder(loader, Pairing::Neighbours, SelfAttention::load)?))
}

/// The same layers with another pairing of the rotary embedding, or another attention.
pub(crate) fn decoder(
    loader: &Loader<'_>,
    pairing: Pairing,
    attention: impl Fn(&Loader<'_>, usize, usize, Heads) -> Result<SelfAttention>,
) -> Result<Decoder> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let rope = Rope::load(loader, pairing, Heads::load(loader, 0, width)?.shape.key_dim)?;
    let block = |layer| {
        let attention = attention(loader, layer, width, Heads::load(loader, layer, width)?)?;
        let feed_forward: Box<dyn FeedForward> = match loader.count_at("expert_count", layer)?.unwrap_or(0) {
            0 => Box::new(Dense::gated(loader, layer, width, Activation::Silu)?),
            _ => {
                let inner = loader.size_at("feed_forward_length", layer)?;
                let router = Router::load(loader, layer, Scoring::Softmax, true)?;
                Box::new(Experts::load(loader, layer, width, inner, Activation::Silu, router)?)
            }
        };
        Block::new(loader, layer, width, Norms::Rms, attention, feed_forward)
    };
    Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)
}
