//! GPT-2 (Radford and others 2019): learned positions, layer norms, fused queries, keys and values, GELU.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, FeedForward, Heads, Linear, SelfAttention};
use super::loader::Loader;
use crate::Result;
use crate::backend::Activation;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    // ---- parameters
    let width = loader.size("embedding_length")?;
    let layers = loader.size("block_count")?;
    let context = loader.size("context_length")?;
    let heads = Heads::load(loader, width)?;

    // ---- tensors
    let vocabulary = loader.vocabulary("token_embd.weight")?;
    let block = |layer: usize| {
        let prefix = format!("blk.{layer}");
        Ok(Block {
            attention_norm: loader.layer_norm(&format!("{prefix}.attn_norm"), width)?,
            attention: SelfAttention::load(loader, &prefix, width, heads)?,
            feed_forward_norm: loader.layer_norm(&format!("{prefix}.ffn_norm"), width)?,
            feed_forward: FeedForward::plain(loader, &prefix, width, Activation::GeluTanh)?,
        })
    };
    Ok(Box::new(Decoder {
        embedding: loader.matrix("token_embd.weight", vocabulary, width)?,
        positions: Some(loader.matrix("position_embd.weight", context, width)?),
        rope: None,
        blocks: (0..layers).map(block).collect::<Result<_>>()?,
        output_norm: loader.layer_norm("output_norm", width)?,
        output: Linear::load_output(loader, vocabulary, width)?,
    }))
}
