//! ModernBERT (Warner and others 2024): an encoder with norms before its parts, rotary embedding, gated feed-forward
//! networks, and windows in two layers of three, which turn by a base of their own.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Dense, Heads, SelfAttention, Sizes};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use crate::Result;
use crate::backend::{Activation, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    if loader.optional_size("decision.block_count")?.is_some() {
        return Err(loader.unsupported("a head that decides among options".to_owned()));
    }
    let activation = match loader.metadata().str(&loader.key("hidden_activation"))? {
        None | Some("gelu") => Activation::Gelu,
        Some("silu") => Activation::Silu,
        Some(other) => return Err(loader.unsupported(format!("the activation `{other}`"))),
    };
    let dim = Heads::of_encoder(loader, 0, width)?.shape.key_dim;
    let turned = Rope::dimensions(loader, dim)?;
    let (local, _) = Rope::unscaled(loader, Pairing::Halves, turned, "rope.freq_base_swa", 10_000.0)?;
    let ropes = vec![Rope::load(loader, Pairing::Halves, dim)?, local];
    let block = |layer| {
        let heads = Heads::of_encoder(loader, layer, width)?;
        let mut attention = SelfAttention::load(loader, layer, width, heads)?;
        let window = loader.window_after_first(layer, 3)?;
        attention.see_window(window);
        attention.rope = Some(usize::from(window.is_some()));
        let feed_forward = Dense::gated(loader, layer, width, activation)?;
        let norm = |name: &str| Norms::Layer.load(loader, &format!("blk.{layer}.{name}"), width).map(Some);
        // The first layer takes the embeddings as their norm left them.
        let bare = layer == 0 && !loader.has("blk.0.attn_norm.weight");
        Ok(Block {
            mixer_norm: if bare { None } else { norm("attn_norm")? },
            feed_forward_norm: norm("ffn_norm")?,
            ..Block::bare(attention, Some(Box::new(feed_forward)))
        })
    };
    let mut decoder = Decoder::load(loader, sizes, Norms::Layer, ropes, block)?;
    decoder.embedding_norm = Some(Norms::Layer.load(loader, "token_embd_norm", width)?);
    let scored = loader.metadata().contains(&loader.key("classifier.pooling_type"));
    if let Some(head) = &mut decoder.rank_head {
        head.activation = Some(Activation::Gelu);
        head.of_mean |= !scored;
    }
    Ok(Box::new(decoder))
}
