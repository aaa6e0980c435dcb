//! Jina BERT 2 (Günther and others 2023): BERT's layers with scores that fall with the distance (ALiBi) in place of
//! positions, a gated feed-forward network, and in some models norms of queries and keys.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Dense, Encoder, EncoderLayer, SelfAttention};
use super::loader::{Loader, Norms};
use crate::Result;
use crate::backend::Activation;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let encoder = Encoder::load(loader, |layer, sizes, heads| {
        let width = sizes.width;
        let mut attention = SelfAttention::load(loader, layer, width, heads)?;
        attention.fall_with_distance(8.0);
        for (norm, part) in [(&mut attention.query_norm, "q"), (&mut attention.key_norm, "k")] {
            if let Some(found) = norm {
                let name = format!("blk.{layer}.attn_{part}_norm");
                *found = Norms::Layer.load(loader, &name, found.len())?;
            }
        }
        let inner = loader.size_at("feed_forward_length", layer)?;
        let name = |part: &str| format!("blk.{layer}.ffn_{part}.weight");
        let gated = loader.has(&name("gate")) || loader.vocabulary(&name("up"))? != inner;
        let load = if gated { Dense::gated } else { Dense::plain };
        EncoderLayer::new(loader, layer, width, attention, load(loader, layer, width, Activation::Gelu)?)
    })?;
    Ok(Box::new(encoder))
}
