//! OLMo 2 (OLMo team 2025): norms after attention and feed-forward network rather than before them, and of all heads'
//! queries and keys together.
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
    if loader.optional_size("attention.sliding_window")?.is_some() {
        return Err(loader.unsupported("attention to a window".to_owned()));
    }
    let rope = Rope::load(loader, Pairing::Halves, Heads::load(loader, 0, width)?.shape.key_dim)?;
    let block = |layer| {
        let heads = Heads::load(loader, layer, width)?;
        let attention = SelfAttention::load(loader, layer, width, heads)?.need_norms(loader, layer)?;
        let feed_forward = Dense::gated(loader, layer, width, Activation::Silu)?;
        Block::with_post_norms_alone(loader, layer, width, attention, feed_forward)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?))
}
