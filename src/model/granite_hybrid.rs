//! Granite 4 (IBM 2025): Granite's layers, most of them state spaces in place of attention; with or without experts, which
//! have a shared one beside them.
#![forbid(unsafe_code)]

use super::layers::{Block, Decoder, Heads, Mamba2, Mixer, SelfAttention, Sizes};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use super::{Network, granite};
use crate::Result;
use crate::backend::Pairing;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    // By this name the files say whether positions are turned at all.
    let turned = loader.metadata().bool(&loader.key("rope.scaling.finetuned"))?.unwrap_or(true);
    let rope = Heads::first(loader, sizes)?
        .map(|heads| Rope::load(loader, Pairing::Neighbours, heads.shape.key_dim))
        .transpose()?;
    let block = |layer| {
        let mixer: Box<dyn Mixer> = if loader.recurrent(layer)? {
            Box::new(Mamba2::load(loader, layer, width)?)
        } else {
            let attention = SelfAttention::load(loader, layer, width, Heads::load(loader, layer, width)?)?;
            Box::new(SelfAttention { rope: turned.then_some(0), ..attention })
        };
        Block::new(loader, layer, width, Norms::Rms, mixer, granite::feed_forward(loader, layer, width)?)
    };
    let decoder = Decoder::load(loader, sizes, Norms::Rms, rope.into_iter().collect(), block)?;
    Ok(Box::new(granite::scaled(loader, decoder)?))
}
