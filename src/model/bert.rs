//! BERT (Devlin and others 2019) and RoBERTa (Liu and others 2019): an encoder with learned positions.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Dense, Encoder, EncoderLayer, SelfAttention};
use super::loader::Loader;
use crate::Result;
use crate::backend::Activation;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let mut encoder = Encoder::load(loader, |layer, sizes, heads| {
        let mut attention = SelfAttention::load(loader, layer, sizes.width, heads)?;
        attention.rope = None;
        let feed_forward = Dense::plain(loader, layer, sizes.width, Activation::Gelu)?;
        EncoderLayer::new(loader, layer, sizes.width, attention, feed_forward)
    })?;
    let (context, width) = (loader.size("context_length")?, loader.size("embedding_length")?);
    encoder.positions = Some(loader.matrix("position_embd.weight", context, width)?);
    Ok(Box::new(encoder))
}
