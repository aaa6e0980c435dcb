//! LFM 2 (Liquid AI 2025): short convolutions between two gates, and some layers of attention with norms of each head's
//! queries and keys; with experts `lfm2moe`.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Block, Decoder, Dense, Experts, FeedForward, Heads, Linear, Mixer, Router, Scoring, SelfAttention, Sizes,
    Turned, convolution,
};
use super::loader::{Loader, Norms};
use super::pass::Pass;
use super::rope::Rope;
use crate::Result;
use crate::backend::{Act, Activation, Convolution, LayerShape, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let dense = loader.count_at("leading_dense_block_count", 0)?.unwrap_or(sizes.layers);
    let ropes = Heads::first(loader, sizes)?
        .map(|heads| Rope::load(loader, Pairing::Halves, heads.shape.key_dim))
        .transpose()?;
    let block = |layer| {
        let mixer: Box<dyn Mixer> = if loader.recurrent(layer)? {
            Box::new(ShortConvolution::load(loader, layer, width)?)
        } else {
            let heads = Heads::load(loader, layer, width)?;
            Box::new(SelfAttention::load(loader, layer, width, heads)?.need_norms(loader, layer)?)
        };
        let feed_forward: Box<dyn FeedForward> = if layer < dense {
            Box::new(Dense::gated(loader, layer, width, Activation::Silu)?)
        } else {
            let inner = loader.size_at("expert_feed_forward_length", layer)?;
            let router = Router::load(loader, layer, Scoring::Sigmoid, true)?;
            Box::new(Experts::load(loader, layer, width, inner, Activation::Silu, router)?)
        };
        Block::new(loader, layer, width, Norms::Rms, mixer, feed_forward)
    };
    Ok(Box::new(Decoder::load_named(
        loader,
        sizes,
        Norms::Rms,
        "token_embd_norm",
        ropes.into_iter().collect(),
        block,
    )?))
}

/// `out(c * convolve(b * x))`.
struct ShortConvolution {
    /// `b`, `c` and `x`, in this order.
    input: [Linear; 3],
    convolution: Convolution,
    output: Linear,
}

impl ShortConvolution {
    fn load(loader: &Loader<'_>, layer: usize, width: usize) -> Result<Self> {
        let name = |name: &str| format!("blk.{layer}.shortconv.{name}");
        let taps = loader.size("shortconv.l_cache")?;
        let part = |i: usize| {
            Linear::load_rows(loader, &name("in_proj"), 3 * width, width, i * width..(i + 1) * width)
        };
        Ok(ShortConvolution {
            input: [part(0)?, part(1)?, part(2)?],
            convolution: convolution(loader, &name("conv"), width, taps)?,
            output: Linear::load(loader, &name("out_proj"), width, width)?,
        })
    }
}

impl Mixer for ShortConvolution {
    fn shape(&self) -> LayerShape {
        LayerShape::default()
    }

    fn state_len(&self) -> usize {
        self.convolution.state_len()
    }

    fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, _: &Turned) -> Result<Act> {
        let state = pass.state(layer, 0, self.state_len())?;
        let [b, c, x] = [
            self.input[0].forward(pass, x)?,
            self.input[1].forward(pass, x)?,
            self.input[2].forward(pass, x)?,
        ];
        pass.backend.gated(Activation::Identity, b, x)?;
        let mixed = pass.backend.convolve(&self.convolution, state, b)?;
        pass.keep_state(layer, 0, state)?;
        pass.backend.gated(Activation::Identity, c, mixed)?;
        self.output.forward(pass, c)
    }
}
