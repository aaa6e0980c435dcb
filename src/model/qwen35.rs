//! Qwen 3.5 (Qwen 2026): Qwen 3 Next's layers with dense feed-forward networks; with experts `qwen35moe`.
#![forbid(unsafe_code)]

use super::layers::Dense;
use super::loader::Loader;
use super::{Network, qwen2moe, qwen3next};
use crate::Result;
use crate::backend::Activation;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let dense = |layer, width| Dense::gated(loader, layer, width, Activation::Silu);
    Ok(Box::new(qwen3next::hybrid(loader, true, dense)?))
}

/// Loads a model of the architecture with experts.
pub(crate) fn load_with_experts(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let experts = |layer, width| qwen2moe::experts(loader, layer, width, true);
    Ok(Box::new(qwen3next::hybrid(loader, true, experts)?))
}
