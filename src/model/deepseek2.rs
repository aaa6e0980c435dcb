//! DeepSeek V2, V3 and R1, GLM 4.7 Flash (DeepSeek-AI 2024): latent attention; experts with shared ones, first layers without.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Block, Decoder, Dense, Experts, FeedForward, LatentAttention, Router, Scoring, Shared, Sizes,
};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use crate::Result;
use crate::backend::{Activation, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    // The last layers of a file may predict further tokens; they are no part of the decoder.
    let ahead = loader.count_at("nextn_predict_layers", 0)?.unwrap_or(0);
    let sizes = Sizes::load(loader)?;
    let sizes = Sizes { layers: sizes.layers.saturating_sub(ahead), ..sizes };
    let width = sizes.width;
    if loader.optional_float("attention.temperature_scale")?.is_some_and(|scale| scale != 0.0) {
        return Err(loader.unsupported("queries that grow with their position".to_owned()));
    }
    let turned = loader.size("rope.dimension_count")?;
    let (rope, magnitude) = Rope::load_latent(loader, Pairing::Neighbours, turned)?;
    let dense = loader.count_at("leading_dense_block_count", 0)?.unwrap_or(0);
    // Older files do not say how GLM 4.7 Flash scores its experts; it is known by its size.
    let glm = matches!(sizes.layers, 47 | 48) && sizes.vocabulary == 154_880;
    let scoring = if glm { Scoring::Sigmoid } else { Scoring::Softmax };
    let block = |layer| {
        let attention = LatentAttention::load(loader, layer, width, magnitude)?;
        let feed_forward: Box<dyn FeedForward> = if layer < dense {
            Box::new(Dense::gated(loader, layer, width, Activation::Silu)?)
        } else {
            let inner = loader.size_at("expert_feed_forward_length", layer)?;
            let shared = inner * loader.size("expert_shared_count")?;
            let prefix = format!("blk.{layer}");
            let network = Dense::named(loader, &prefix, "_shexp", width, shared, Activation::Silu)?;
            let router = Router::load(loader, layer, scoring, false)?;
            Box::new(Experts {
                shared: Some(Shared { network: Box::new(network), gate: None }),
                ..Experts::load(loader, layer, width, inner, Activation::Silu, router)?
            })
        };
        Block::new(loader, layer, width, Norms::Rms, attention, feed_forward)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?))
}
