//! EmbeddingGemma (Vera and others 2025): Gemma 3's layers as an encoder, and two dense layers that the pooled vector goes
//! through.
#![forbid(unsafe_code)]

use super::Network;
use super::gemma3;
use super::layers::{Decoder, Heads, Linear};
use super::loader::Loader;
use crate::Result;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let decoder = gemma3::decoder(loader, Heads::of_encoder)?;
    let mut after_pooling = Vec::new();
    let mut width = loader.size("embedding_length")?;
    for name in ["dense_2", "dense_3"] {
        if loader.has(&format!("{name}.weight")) {
            let rows = loader.size(&format!("{name}_feat_out"))?;
            after_pooling.push(Linear::load(loader, name, rows, width)?);
            width = rows;
        }
    }
    Ok(Box::new(Decoder { after_pooling, ..decoder }))
}
