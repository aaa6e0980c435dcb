//! Jamba (Lieber and others 2024): state spaces, some layers of attention without positions, and experts in every other
//! layer.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Block, Decoder, Dense, Experts, FeedForward, Heads, Mamba, Mixer, Router, Scoring, SelfAttention, Sizes,
};
use super::loader::{Loader, Norms};
use crate::Result;
use crate::backend::Activation;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let block = |layer| {
        let mixer: Box<dyn Mixer> = if loader.recurrent(layer)? {
            Box::new(Mamba::load(loader, layer, width)?)
        } else {
            let heads = Heads::load(loader, layer, width)?;
            Box::new(SelfAttention { rope: None, ..SelfAttention::load(loader, layer, width, heads)? })
        };
        let feed_forward: Box<dyn FeedForward> = if loader.has(&format!("blk.{layer}.ffn_gate_inp.weight")) {
            let inner = loader.size_at("feed_forward_length", layer)?;
            let router = Router::load(loader, layer, Scoring::Softmax, false)?;
            Box::new(Experts::load(loader, layer, width, inner, Activation::Silu, router)?)
        } else {
            Box::new(Dense::gated(loader, layer, width, Activation::Silu)?)
        };
        Block::new(loader, layer, width, Norms::Rms, mixer, feed_forward)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![], block)?))
}
