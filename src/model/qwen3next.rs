//! Qwen 3 Next (Qwen 2025): gated delta nets, and every fourth layer gated attention; experts with a shared one.
#![forbid(unsafe_code)]

use super::layers::{Block, Decoder, DeltaNet, FeedForward, Heads, Mixer, SelfAttention, Sizes};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use super::{Network, qwen2moe};
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let experts = |layer, width| qwen2moe::experts(loader, layer, width, true);
    Ok(Box::new(hybrid(loader, false, experts)?))
}

/// Gated delta nets and gated attention, with any feed-forward network. `tiled`: how heads of values share heads of keys.
pub(crate) fn hybrid<F: FeedForward + 'static>(
    loader: &Loader<'_>,
    tiled: bool,
    feed_forward: impl Fn(usize, usize) -> Result<F>,
) -> Result<Decoder> {
    // The last layers of a file may predict further tokens; they are no part of the decoder.
    let ahead = loader.count_at("nextn_predict_layers", 0)?.unwrap_or(0);
    let sizes = Sizes::load(loader)?;
    let sizes = Sizes { layers: sizes.layers.saturating_sub(ahead), ..sizes };
    let width = sizes.width;
    let period = loader.optional_size("full_attention_interval")?.unwrap_or(4);
    // For text all sections of a rotary embedding in sections turn alike.
    let rope = Rope::load(loader, Pairing::Halves, Heads::load(loader, 0, width)?.shape.key_dim)?;
    let block = |layer: usize| {
        let mixer: Box<dyn Mixer> = if (layer + 1).is_multiple_of(period) {
            let heads = Heads::load(loader, layer, width)?;
            Box::new(SelfAttention::load_gated(loader, layer, width, heads)?.need_norms(loader, layer)?)
        } else {
            Box::new(DeltaNet::load(loader, layer, width, tiled)?)
        };
        let norm = format!("blk.{layer}.post_attention_norm");
        let feed_forward = feed_forward(layer, width)?;
        Ok(Block {
            feed_forward_norm: Some(Norms::Rms.load(loader, &norm, width)?),
            ..Block::without_second_norm(loader, layer, width, Norms::Rms, mixer, feed_forward)?
        })
    };
    Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)
}
