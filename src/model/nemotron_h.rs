//! Nemotron H and Nemotron 3 (NVIDIA 2025): each layer is one thing alone, a state space, attention without positions, a
//! feed-forward network or (in `nemotron_h_moe`) experts with a shared one.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Block, Decoder, Dense, Experts, FeedForward, Heads, Linear, Mamba2, Mixer, Router, Scoring,
    SelfAttention, Shared, Sizes, Turned,
};
use super::loader::{Loader, Norms};
use super::pass::Pass;
use crate::Result;
use crate::backend::{Act, Activation, LayerShape};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    // The last layers of a file may predict further tokens; they are no part of the decoder.
    let ahead = loader.count_at("nextn_predict_layers", 0)?.unwrap_or(0);
    let sizes = Sizes::load(loader)?;
    let sizes = Sizes { layers: sizes.layers.saturating_sub(ahead), ..sizes };
    let width = sizes.width;
    let block = |layer| {
        let has = |name: &str| loader.has(&format!("blk.{layer}.{name}.weight"));
        let mixer: Box<dyn Mixer> = if has("ssm_in") {
            Box::new(Mamba2::load(loader, layer, width)?)
        } else if has("ffn_gate_inp") {
            Box::new(Alone(experts(loader, layer, width)?))
        } else if has("ffn_up") {
            Box::new(Alone(Dense::plain(loader, layer, width, Activation::ReluSquared)?))
        } else {
            let heads = Heads::load(loader, layer, width)?;
            Box::new(SelfAttention { rope: None, ..SelfAttention::load(loader, layer, width, heads)? })
        };
        Block::mixer_alone(loader, layer, width, mixer)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::Rms, vec![], block)?))
}

fn experts(loader: &Loader<'_>, layer: usize, width: usize) -> Result<ShortExperts> {
    let name = |name: &str| format!("blk.{layer}.{name}");
    let inner = loader.size_at("expert_feed_forward_length", layer)?;
    let shared = loader.size("expert_shared_feed_forward_length")?;
    let router = Router::load(loader, layer, Scoring::Sigmoid, true)?;
    let short = loader.count_at("moe_latent_size", layer)?.unwrap_or(0);
    let (short, len) = if short == 0 {
        (None, width)
    } else {
        let down = Linear::load(loader, &name("ffn_latent_down"), short, width)?;
        (Some((down, Linear::load(loader, &name("ffn_latent_up"), width, short)?)), short)
    };
    let scores = loader.matrix(&name("ffn_gate_inp.weight"), router.count, width)?;
    let network = Dense::plain_named(loader, &name("ffn"), "_shexp", width, shared, Activation::ReluSquared)?;
    let experts =
        Experts::load_with(loader, layer, len, inner, Activation::ReluSquared, router, (scores, None))?;
    Ok(ShortExperts { experts, short, shared: Shared { network: Box::new(network), gate: None } })
}

/// Experts that may work on a shorter form of the tokens than the shared one.
struct ShortExperts {
    experts: Experts,
    short: Option<(Linear, Linear)>,
    shared: Shared,
}

impl FeedForward for ShortExperts {
    fn forward(&self, pass: &mut Pass<'_>, x: Act) -> Result<Act> {
        let scores = self.experts.scores(pass, x)?;
        let mixed = match &self.short {
            Some((down, up)) => {
                let input = down.forward(pass, x)?;
                let mixed = self.experts.mix(pass, scores, input)?;
                up.forward(pass, mixed)?
            }
            None => self.experts.mix(pass, scores, x)?,
        };
        let y = self.shared.network.forward(pass, x)?;
        pass.backend.add(mixed, y)?;
        Ok(mixed)
    }
}

/// A feed-forward network in the place of a mixer.
struct Alone<F>(F);

impl<F: FeedForward> Mixer for Alone<F> {
    fn shape(&self) -> LayerShape {
        LayerShape::default()
    }

    fn forward(&self, pass: &mut Pass<'_>, _: usize, x: Act, _: &Turned) -> Result<Act> {
        self.0.forward(pass, x)
    }
}
