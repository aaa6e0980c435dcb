//! BLOOM (Scao and others 2022): layer norms, one after the embedding too, and scores that fall with the distance (ALiBi).
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Dense, Heads, SelfAttention, Sizes};
use super::loader::{Loader, Norms};
use crate::Result;
use crate::backend::Activation;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let block = |layer| {
        let heads = Heads::load(loader, layer, width)?;
        let mut attention = SelfAttention::load(loader, layer, width, heads)?;
        attention.fall_with_distance(8.0);
        let feed_forward = Dense::plain(loader, layer, width, Activation::GeluTanh)?;
        Block::new(loader, layer, width, Norms::Layer, attention, feed_forward)
    };
    Ok(Box::new(Decoder {
        embedding_norm: Some(Norms::Layer.load(loader, "token_embd_norm", width)?),
        ..Decoder::load(loader, sizes, Norms::Layer, vec![], block)?
    }))
}
