//! MiniCPM (Hu and others 2024): Llama's layers, with factors of embeddings, residuals and logits that older files leave
//! out.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::SelfAttention;
use super::llama;
use super::loader::Loader;
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let mut decoder = llama::decoder(loader, Pairing::Neighbours, SelfAttention::load)?;
    let factor = |name, default| loader.optional_float(name).map(|x| x.unwrap_or(default));
    let (width, layers) = (decoder.embedding.len as f32, decoder.blocks.len() as f32);
    decoder.embedding_scale = factor("embedding_scale", 12.0)?;
    decoder.logit_scale = 1.0 / factor("logit_scale", width / 256.0)?;
    let residual = factor("residual_scale", 1.4 / libm::sqrtf(layers))?;
    decoder.blocks.iter_mut().for_each(|block| block.residual_scale = residual);
    Ok(Box::new(decoder))
}
