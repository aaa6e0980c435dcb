//! BitNet b1.58 (Ma and others 2025): norms before the last matrices of attention and feed-forward network.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Dense, Heads, SelfAttention, Sizes};
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
        let norm = |name: &str, len| Norms::Rms.load(loader, &format!("blk.{layer}.{name}"), len).map(Some);
        let attention = SelfAttention {
            output_norm: norm("attn_sub_norm", width)?,
            ..SelfAttention::load(loader, layer, width, Heads::load(loader, layer, width)?)?
        };
        let feed_forward = Dense {
            norm: norm("ffn_sub_norm", loader.size("feed_forward_length")?)?,
            ..Dense::gated(loader, layer, width, Activation::Silu)?
        };
        Block::new(loader, layer, width, Norms::Rms, attention, feed_forward)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![rope], block)?))
}
