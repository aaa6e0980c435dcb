//! Gemma 3 (Kamath and others 2025): Gemma's layers with norms after attention and feed-forward network too, norms of each
//! head's queries and keys, and windows in five layers of six, which turn by a base of their own.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Dense, Heads, SelfAttention, Sizes};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use crate::Result;
use crate::backend::Activation;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    Ok(Box::new(decoder(loader, Heads::load)?))
}

/// The layers, with attention of the heads that `heads` reads.
pub(super) fn decoder(
    loader: &Loader<'_>,
    heads: fn(&Loader<'_>, usize, usize) -> Result<Heads>,
) -> Result<Decoder> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let dim = Heads::load(loader, 0, width)?.shape.key_dim;
    let ropes = Rope::load_with_windows(loader, dim, "rope.freq_base_swa")?.into();
    let block = |layer| {
        let heads = heads(loader, layer, width)?;
        let mut attention = SelfAttention::load(loader, layer, width, heads)?.need_norms(loader, layer)?;
        attention.turn_in_window(loader.window(layer, 6)?);
        // Of all sizes 27B alone scales by the width, and no parameter says so.
        if sizes.layers == 62 {
            attention.spec.scale = 1.0 / libm::sqrtf((width / heads.count) as f32);
        }
        let feed_forward = Dense::gated(loader, layer, width, Activation::GeluTanh)?;
        Block::new(loader, layer, width, Norms::Rms, attention, feed_forward)?
            .with_post_norms(loader, layer, width)
    };
    Ok(Decoder {
        embedding_scale: libm::sqrtf(width as f32),
        logit_cap: loader.optional_float("final_logit_softcapping")?.filter(|&cap| cap > 0.0),
        ..Decoder::load(loader, sizes, Norms::Rms, ropes, block)?
    })
}
