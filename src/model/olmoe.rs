//! OLMoE (Muennighoff and others 2024): norms of all heads' queries and keys together, experts whose weights do not sum to
//! one.
#![forbid(unsafe_code)]

use super::loader::Loader;
use super::{Network, qwen3moe};
use crate::Result;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    qwen3moe::load_with(loader, "feed_forward_length", false)
}
