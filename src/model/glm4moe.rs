//! GLM 4.5 to 4.7 (Z.ai 2025): experts chosen by sigmoids with a bias, a shared expert, first layers without experts, rotary
//! embedding of a part of each head.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Block, Decoder, Dense, Experts, FeedForward, Heads, Router, Scoring, SelfAttention, Shared, Sizes,
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
    let dense = loader.count_at("leading_dense_block_count", 0)?.unwrap_or(0);
    let rope = Rope::load(loader, Pairing::Halves, Heads::load(loader, 0, width)?.shape.key_dim)?;
    let block = |layer| {
        let attention = SelfAttention::load(loader, layer, width, Heads::load(loader, layer, width)?)?;
        let feed_forward: Box<dyn FeedForward> = if layer < dense {
            Box::new(Dense::gated(loader, layer, width, Activation::Silu)?)
        } else {
            let inner = loader.size_at("expert_feed_forward_length", layer)?;
            let shared = inner * loader.size("expert_shared_count")?;
            let name = format!("blk.{layer}");
            let network = Dense::named(loader, &name, "_shexp", width, shared, Activation::Silu)?;
            let router = Router::load(loader, layer, Scoring::Sigmoid, true)?;
            Box::new(Experts {
                shared: Some(Shared { network: Box::new(network), gate: None }),
                ..Experts::load(loader, layer, width, inner, Activation::Silu, router)?
            })
        };
        let norm = format!("blk.{layer}.post_attention_norm");
        Ok(Block {
            feed_forward_norm: Some(Norms::Rms.load(loader, &norm, width)?),
            ..Block::without_second_norm(loader, layer, width, Norms::Rms, attention, feed_forward)?
        })
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?))
}
