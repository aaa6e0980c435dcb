//! Baichuan 1 and 2 (Yang and others 2023): Llama's layers; in the size of 40 layers (13B) scores fall with the distance
//! (ALiBi) in place of the rotary embedding.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::SelfAttention;
use super::llama;
use super::loader::Loader;
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let large = loader.size("block_count")? == 40;
    let attention = |loader: &Loader<'_>, layer, width, heads| {
        let mut attention = SelfAttention::load(loader, layer, width, heads)?;
        if large {
            attention.fall_with_distance(8.0);
        }
        Ok(attention)
    };
    Ok(Box::new(llama::decoder(loader, Pairing::Neighbours, attention)?))
}
