//! gpt-oss (OpenAI 2025): experts with biases whose scores alone share the weight, sinks of attention, and a window in every
//! other layer.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Experts, Heads, Router, Scoring, SelfAttention, Sizes};
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
        let heads = Heads::load(loader, layer, width)?;
        let mut attention = SelfAttention::load(loader, layer, width, heads)?;
        attention.see_window(loader.window(layer, 2)?);
        attention.spec.sinks = loader.vector(&format!("blk.{layer}.attn_sinks.weight"), heads.count)?.into();
        let inner = loader.size_at("expert_feed_forward_length", layer)?;
        let router = Router::load(loader, layer, Scoring::SoftmaxOfChosen, false)?;
        let experts = Experts::load(loader, layer, width, inner, Activation::SwigluClamped, router)?;
        let norm = format!("blk.{layer}.post_attention_norm");
        Ok(Block {
            feed_forward_norm: Some(Norms::Rms.load(loader, &norm, width)?),
            ..Block::without_second_norm(loader, layer, width, Norms::Rms, attention, experts)?
        })
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?))
}
