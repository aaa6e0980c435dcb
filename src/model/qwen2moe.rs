//! Qwen 1.5 and 2 with experts (Yang and others 2024): Qwen 2's attention, experts whose weights do not sum to one, and a
//! shared expert under a gate.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Block, Decoder, Dense, Experts, Heads, Linear, Router, Scoring, SelfAttention, Shared, Sizes,
};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use crate::Result;
use crate::backend::{Activation, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let rope = Rope::load(loader, Pairing::Halves, Heads::load(loader, 0, width)?.shape.key_dim)?;
    let block = |layer| {
        let attention = SelfAttention::load(loader, layer, width, Heads::load(loader, layer, width)?)?;
        Block::new(loader, layer, width, Norms::Rms, attention, experts(loader, layer, width, false)?)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?))
}

/// The experts of a layer and the shared one with its gate.
pub(crate) fn experts(loader: &Loader<'_>, layer: usize, width: usize, normalize: bool) -> Result<Experts> {
    let inner = loader.size_at("expert_feed_forward_length", layer)?;
    let shared = loader.size("expert_shared_feed_forward_length")?;
    let router = Router::load(loader, layer, Scoring::Softmax, normalize)?;
    let prefix = format!("blk.{layer}");
    let network = Dense::named(loader, &prefix, "_shexp", width, shared, Activation::Silu)?;
    let gate = Linear::load(loader, &format!("{prefix}.ffn_gate_inp_shexp"), 1, width)?;
    Ok(Experts {
        shared: Some(Shared { network: Box::new(network), gate: Some(gate) }),
        ..Experts::load(loader, layer, width, inner, Activation::Silu, router)?
    })
}
