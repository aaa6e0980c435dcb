//! Mamba 2 (Dao and Gu 2024): layers of state spaces alone.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Mamba2, Sizes};
use super::loader::{Loader, Norms};
use crate::Result;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let block = |layer| {
        let mixer = Mamba2::load(loader, layer, sizes.width)?;
        Block::mixer_alone(loader, layer, sizes.width, mixer)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![], block)?))
}
