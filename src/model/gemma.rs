//! Gemma (Mesnard and others 2024): embeddings times the root of their width, a GELU gate, and the embedding again at the
//! end.
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
        let feed_forward = Dense::gated(loader, layer, width, Activation::GeluTanh)?;
        Block::new(loader, layer, width, Norms::Rms, attention, feed_forward)
    };
    Ok(Box::new(Decoder {
        embedding_scale: libm::sqrtf(width as f32),
        ..Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?
    }))
}
