//! EXAONE 4 (LG 2025): norms after attention and feed-forward network rather than before them, and of each head's queries
//! and keys; in the large size three layers of four have a window, and the fourth knows no positions.
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
    let mixed = loader.count_at("attention.sliding_window", 0)?.is_some_and(|window| window > 0);
    let block = |layer| {
        let heads = Heads::load(loader, layer, width)?;
        let mut attention = SelfAttention::load(loader, layer, width, heads)?.need_norms(loader, layer)?;
        let window = loader.window(layer, 4)?;
        attention.see_window(window);
        if mixed && window.is_none() {
            attention.rope = None;
        }
        let feed_forward = Dense::gated(loader, layer, width, Activation::Silu)?;
        Block::with_post_norms_alone(loader, layer, width, attention, feed_forward)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?))
}
