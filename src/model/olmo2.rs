//! OLMo 2 and 3 (OLMo team 2025): norms after attention and feed-forward network rather than before them, and of all heads'
//! queries and keys together; in OLMo 3 three layers of four have a window, and turn without scaling.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Dense, Heads, SelfAttention, Sizes};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use crate::Result;
use crate::backend::Activation;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let dim = Heads::load(loader, 0, width)?.shape.key_dim;
    let ropes = Rope::load_with_windows(loader, dim, "rope.freq_base")?.into();
    let block = |layer| {
        let heads = Heads::load(loader, layer, width)?;
        let mut attention = SelfAttention::load(loader, layer, width, heads)?.need_norms(loader, layer)?;
        attention.turn_in_window(loader.window(layer, 4)?);
        let feed_forward = Dense::gated(loader, layer, width, Activation::Silu)?;
        Block::with_post_norms_alone(loader, layer, width, attention, feed_forward)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, ropes, block)?))
}
