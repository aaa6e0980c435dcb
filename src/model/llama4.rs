//! Llama 4 (Meta 2025): attention within chunks of 8192 tokens, every fourth layer to all tokens and without positions, its
//! queries growing with theirs; experts whose inputs are weighted, and a shared one.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Block, Decoder, Dense, Experts, FeedForward, Heads, Router, Scoring, SelfAttention, Shared, Sizes,
    Temperature,
};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use crate::Result;
use crate::backend::{Activation, Pairing, Sees};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let rope = Rope::load(loader, Pairing::Neighbours, Heads::load(loader, 0, width)?.shape.key_dim)?;
    // Files that say so have no chunks at all.
    let chunked = loader.count_at("attention.sliding_window", 0)? != Some(0);
    // Maverick, of 128 experts, has no norms of queries and keys.
    let normed = loader.size("expert_count")? != 128;
    let period = loader.size("interleave_moe_layer_step")?;
    let block = |layer: usize| {
        let heads = Heads::load(loader, layer, width)?;
        let mut attention = SelfAttention::load(loader, layer, width, heads)?;
        if chunked && (layer + 1).is_multiple_of(4) {
            attention.rope = None;
            attention.temperature = Some(Temperature { scale: 0.1, floor: CHUNK, offset: 1.0 });
        } else {
            if chunked {
                attention.spec.shape.sees = Sees::Chunk(CHUNK);
            }
            if normed {
                attention.turn_first = true;
                attention.query_norm = Some(Norms::unit(loader, heads.shape.key_dim)?);
                attention.key_norm = Some(Norms::unit(loader, heads.shape.key_dim)?);
            }
        }
        let feed_forward: Box<dyn FeedForward> = if (layer + 1).is_multiple_of(period) {
            let inner = loader.size_at("expert_feed_forward_length", layer)?;
            let router = Router::load(loader, layer, Scoring::Sigmoid, false)?;
            let prefix = format!("blk.{layer}");
            let network = Dense::named(loader, &prefix, "_shexp", width, inner, Activation::Silu)?;
            Box::new(Experts {
                weigh_input: true,
                shared: Some(Shared { network: Box::new(network), gate: None }),
                ..Experts::load(loader, layer, width, inner, Activation::Silu, router)?
            })
        } else {
            Box::new(Dense::gated(loader, layer, width, Activation::Silu)?)
        };
        Block::new(loader, layer, width, Norms::Rms, attention, feed_forward)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?))
}

/// Tokens of a chunk: no parameter of a file says it.
const CHUNK: usize = 8192;
