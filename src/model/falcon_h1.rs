//! Falcon H1 (TII 2025): attention and a state space side by side in each layer.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Dense, Heads, Mamba2, Mixer, SelfAttention, Sizes, Turned};
use super::loader::{Loader, Norms};
use super::pass::Pass;
use super::rope::Rope;
use crate::Result;
use crate::backend::{Act, Activation, LayerShape, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let rope = Rope::load(loader, Pairing::Halves, Heads::load(loader, 0, width)?.shape.key_dim)?;
    let block = |layer| {
        let attention = SelfAttention::load(loader, layer, width, Heads::load(loader, layer, width)?)?;
        let both = Both { attention, state_space: Mamba2::load(loader, layer, width)? };
        let feed_forward = Dense::gated(loader, layer, width, Activation::Silu)?;
        Block::new(loader, layer, width, Norms::Rms, both, feed_forward)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?))
}

struct Both {
    attention: SelfAttention,
    state_space: Mamba2,
}

impl Mixer for Both {
    fn shape(&self) -> LayerShape {
        self.attention.shape()
    }

    fn state_len(&self) -> usize {
        self.state_space.state_len()
    }

    fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, turned: &Turned) -> Result<Act> {
        let y = self.state_space.forward(pass, layer, x, turned)?;
        let attended = self.attention.forward(pass, layer, x, turned)?;
        pass.backend.add(y, attended)?;
        Ok(y)
    }
}
