//! Mamba (Gu and Dao 2023), Falcon Mamba: layers of state spaces alone.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Mamba, Sizes};
use super::loader::{Loader, Norms};
use crate::Result;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let block = |layer| {
        let mixer = Mamba::load(loader, layer, sizes.width)?;
        Block::mixer_alone(loader, layer, sizes.width, mixer)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![], block)?))
}
