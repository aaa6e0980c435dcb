//! Granite 4 (IBM 2025): Granite's layers, most of them state spaces in place of attention; with or without experts, which
//! have a shared one beside them.
#![forbid(unsafe_code)]

use super::layers::{
    Block, Decoder, Dense, Experts, FeedForward, Heads, Mamba2, Mixer, Router, Scoring, SelfAttention,
    Shared, Sizes,
};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use super::{Network, granite};
use crate::Result;
use crate::backend::{Activation, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    // By this name the files say whether positions are turned at all.
    let turned = loader.metadata().bool(&loader.key("rope.scaling.finetuned"))?.unwrap_or(true);
    let rope = Heads::first(loader, sizes)?
        .map(|heads| Rope::load(loader, Pairing::Neighbours, heads.shape.key_dim))
        .transpose()?;
    let block = |layer| {
        let mixer: Box<dyn Mixer> = if loader.recurrent(layer)? {
            Box::new(Mamba2::load(loader, layer, width)?)
        } else {
            let attention = SelfAttention::load(loader, layer, width, Heads::load(loader, layer, width)?)?;
            Box::new(SelfAttention { rope: turned.then_some(0), ..attention })
        };
        Block::new(loader, layer, width, Norms::Rms, mixer, feed_forward(loader, layer, width)?)
    };
    let decoder = Decoder::load(loader, sizes, Norms::Rms, rope.into_iter().collect(), block)?;
    Ok(Box::new(granite::scaled(loader, decoder)?))
}

/// A dense network, or experts with a shared one where that has a length.
fn feed_forward(loader: &Loader<'_>, layer: usize, width: usize) -> Result<Box<dyn FeedForward>> {
    if loader.count_at("expert_count", layer)?.unwrap_or(0) == 0 {
        return Ok(Box::new(Dense::gated(loader, layer, width, Activation::Silu)?));
    }
    let router = Router::load(loader, layer, Scoring::Softmax, true)?;
    let inner = loader.size_at("feed_forward_length", layer)?;
    let shared = match loader.count_at("expert_shared_feed_forward_length", layer)?.unwrap_or(0) {
        0 => None,
        inner => {
            let prefix = format!("blk.{layer}");
            let network = Dense::named(loader, &prefix, "_shexp", width, inner, Activation::Silu)?;
            Some(Shared { network: Box::new(network), gate: None })
        }
    };
    let experts = Experts::load(loader, layer, width, inner, Activation::Silu, router)?;
    Ok(Box::new(Experts { shared, ..experts }))
}
