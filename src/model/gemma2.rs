//! Gemma 2 (Riviere and others 2024): Gemma's layers with norms after attention and feed-forward network too, bounds of
//! scores and logits, and a window in every other layer.
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
    let cap = |name| loader.optional_float(name).map(|cap| cap.filter(|&cap| cap > 0.0));
    let score_cap = cap("attn_logit_softcapping")?;
    let rope = Rope::load(loader, Pairing::Halves, Heads::load(loader, 0, width)?.shape.key_dim)?;
    let block = |layer| {
        let heads = Heads::load(loader, layer, width)?;
        let mut attention = SelfAttention::load(loader, layer, width, heads)?;
        attention.see_window(loader.window(layer, 2)?);
        attention.spec.cap = score_cap;
        // Of all sizes 27B alone scales by the width, and no parameter says so.
        if sizes.layers == 46 {
            attention.spec.scale = 1.0 / libm::sqrtf((width / heads.count) as f32);
        }
        let feed_forward = Dense::gated(loader, layer, width, Activation::GeluTanh)?;
        Block::new(loader, layer, width, Norms::Rms, attention, feed_forward)?
            .with_post_norms(loader, layer, width)
    };
    Ok(Box::new(Decoder {
        embedding_scale: libm::sqrtf(width as f32),
        logit_cap: cap("final_logit_softcapping")?,
        ..Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?
    }))
}
