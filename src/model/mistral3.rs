//! Mistral 3, Ministral 3 (Mistral 2025): Llama's layers with YaRN; queries far behind grow with their position.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{SelfAttention, Temperature};
use super::llama;
use super::loader::Loader;
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let scale = loader.optional_float("attention.temperature_scale")?.filter(|&scale| scale != 0.0);
    let temperature = match scale {
        Some(scale) => {
            let floor = loader.size("rope.scaling.original_context_length")?;
            Some(Temperature { scale, floor, offset: 0.0 })
        }
        None => None,
    };
    let attention = |loader: &Loader<'_>, layer, width, heads| {
        Ok(SelfAttention { temperature, ..SelfAttention::load(loader, layer, width, heads)? })
    };
    Ok(Box::new(llama::decoder(loader, Pairing::Neighbours, attention)?))
}
