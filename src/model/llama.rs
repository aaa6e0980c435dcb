//! Llama 1 to 3, and the many that share its layers: Mistral, TinyLlama, SmolLM (Touvron and others 2023).
//!
//! RMS norms before attention and feed-forward, rotary embedding of neighbours, grouped queries, SiLU gate.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, FeedForward, Heads, Linear, SelfAttention};
use super::loader::Loader;
use super::rope::Rope;
use crate::Result;
use crate::backend::{Activation, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    load_with(loader, Pairing::Neighbours)
}

/// The same layers with another pairing of the rotary embedding.
pub(crate) fn load_with(loader: &Loader<'_>, pairing: Pairing) -> Result<Box<dyn Network>> {
    // ---- parameters
    let width = loader.size("embedding_length")?;
    let layers = loader.size("block_count")?;
    let heads = Heads::load(loader, width)?;
    if let Some(experts) = loader.metadata().u32(&loader.key("expert_count"))?.filter(|&experts| experts > 0)
    {
        return Err(loader.unsupported(format!("a mixture of {experts} experts")));
    }

    // ---- tensors
    let vocabulary = loader.vocabulary("token_embd.weight")?;
    let block = |layer: usize| {
        let prefix = format!("blk.{layer}");
        Ok(Block {
            attention_norm: loader.rms_norm(&format!("{prefix}.attn_norm"), width)?,
            attention: SelfAttention::load(loader, &prefix, width, heads)?,
            feed_forward_norm: loader.rms_norm(&format!("{prefix}.ffn_norm"), width)?,
            feed_forward: FeedForward::gated(loader, &prefix, width, Activation::Silu)?,
        })
    };
    Ok(Box::new(Decoder {
        embedding: loader.matrix("token_embd.weight", vocabulary, width)?,
        positions: None,
        rope: Some(Rope::load(loader, pairing, heads.shape.key_dim)?),
        blocks: (0..layers).map(block).collect::<Result<_>>()?,
        output_norm: loader.rms_norm("output_norm", width)?,
        output: Linear::load_output(loader, vocabulary, width)?,
    }))
}
