//! OLMo 2 and 3 (OLMo team 2025): norms after attention and feed-forward network rather than before them, and of all heads'
//! queries and keys together; in OLMo 3 three layers of four have a window, and turn without scaling.
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
    let dim = Heads::load(loader, 0, width)?.shape.key_dim;
    let turned = Rope::dimensions(loader, dim)?;
    let (local, _) = Rope::unscaled(loader, Pairing::Halves, turned, "rope.freq_base", 10_000.0)?;
    let ropes = vec![Rope::load(loader, Pairing::Halves, dim)?, local];
    let block = |layer| {
        let heads = Heads::load(loader, layer, width)?;
        let mut attention = SelfAttention::load(loader, layer, width, heads)?.need_norms(loader, layer)?;
        let window = loader.window(layer, 4)?;
        attention.see_window(window);
        attention.rope = Some(usize::from(window.is_some()));
        let feed_forward = Dense::gated(loader, layer, width, Activation::Silu)?;
        Block::with_post_norms_alone(loader, layer, width, attention, feed_forward)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, ropes, block)?))
}
