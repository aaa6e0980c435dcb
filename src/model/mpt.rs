//! MPT (MosaicML 2023): layer norms without biases, scores that fall with the distance (ALiBi), and in some sizes a bound of
//! queries, keys and values.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Dense, Heads, SelfAttention, Sizes};
use super::loader::{Loader, Norms};
use crate::Result;
use crate::backend::Activation;

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let positive = |name| loader.optional_float(name).map(|x| x.filter(|&x| x > 0.0));
    let (bias, bound) = (positive("attention.max_alibi_bias")?, positive("attention.clamp_kqv")?);
    for tensor in ["position_embd.weight", "blk.0.attn_q_norm.weight", "blk.0.ffn_act.scales"] {
        if loader.has(tensor) {
            return Err(loader.unsupported(format!("the tensor `{tensor}`")));
        }
    }
    let block = |layer| {
        let heads = Heads::load(loader, layer, width)?;
        let mut attention = SelfAttention::load(loader, layer, width, heads)?;
        (attention.rope, attention.clamp) = (None, bound);
        if let Some(bias) = bias {
            attention.fall_with_distance(bias);
        }
        let feed_forward = Dense::plain(loader, layer, width, Activation::Gelu)?;
        Block::new(loader, layer, width, Norms::Layer, attention, feed_forward)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Layer, vec![], block)?))
}
