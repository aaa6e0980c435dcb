//! Gemma 4 (Google 2026): Gemma 3's layers with heads of another size in layers that see all, norms of values, embeddings for
//! each layer, last layers that attend to the keys and values of earlier ones, and in one size experts beside a dense
//! network.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Block, Decoder, Dense, Experts, FeedForward, KeptAttention, PerLayer, PerLayerBlock, Router, Scoring,
    Sizes,
};
use super::loader::{Loader, Norms};
use super::pass::Pass;
use super::rope::Rope;
use crate::Result;
use crate::backend::{Act, Activation, Matrix, Norm, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let turned = |name| loader.size(name);
    let (all, local) = (turned("rope.dimension_count")?, turned("rope.dimension_count_swa")?);
    let ropes = vec![
        Rope::load(loader, Pairing::Halves, all)?,
        Rope::unscaled(loader, Pairing::Halves, local, "rope.freq_base_swa", 10_000.0)?.0,
    ];
    let per_layer = PerLayer::load(loader, sizes.layers, width)?;
    let dim = per_layer.as_ref().map(|per_layer| per_layer.dim);
    let block = |layer| {
        let attention = KeptAttention::load(loader, layer, sizes)?;
        let experts = loader.has(&format!("blk.{layer}.ffn_gate_inp.weight"));
        let feed_forward: Box<dyn FeedForward> = if experts {
            Box::new(DenseAndExperts::load(loader, layer, width)?)
        } else {
            Box::new(Dense::gated(loader, layer, width, Activation::GeluTanh)?)
        };
        let block = match experts {
            // They norm their inputs themselves.
            true => Block::without_second_norm(loader, layer, width, Norms::Rms, attention, feed_forward)?,
            false => Block::new(loader, layer, width, Norms::Rms, attention, feed_forward)?,
        };
        let scale = loader.optional_vector(&format!("blk.{layer}.layer_output_scale.weight"), 1)?;
        Ok(Block {
            per_layer: dim.map(|dim| PerLayerBlock::load(loader, layer, width, dim)).transpose()?,
            output_scale: scale.and_then(|scale| scale.first().copied()).unwrap_or(1.0),
            ..block.with_post_norms(loader, layer, width)?
        })
    };
    Ok(Box::new(Decoder {
        embedding_scale: libm::sqrtf(width as f32),
        logit_cap: loader.optional_float("final_logit_softcapping")?.filter(|&cap| cap > 0.0),
        per_layer,
        ..Decoder::load(loader, sizes, Norms::Rms, ropes, block)?
    }))
}

/// A dense network and experts side by side, each between norms of its own.
struct DenseAndExperts {
    dense_norms: [Norm; 2],
    dense: Dense,
    experts_norms: [Norm; 2],
    experts: Experts,
    router_norm: Norm,
    router: Matrix,
}

impl DenseAndExperts {
    fn load(loader: &Loader<'_>, layer: usize, width: usize) -> Result<Self> {
        let norm = |name: &str| Norms::Rms.load(loader, &format!("blk.{layer}.{name}"), width);
        let inner = loader.size_at("expert_feed_forward_length", layer)?;
        let router = Router::load(loader, layer, Scoring::Softmax, true)?;
        let mut router_norm = Norms::unit(loader, width)?;
        if let Norm::Rms { weight, .. } = &mut router_norm {
            let root = libm::sqrtf(width as f32);
            let scale = loader.vector(&format!("blk.{layer}.ffn_gate_inp.scale"), width)?;
            *weight = scale.into_iter().map(|weight| weight / root).collect::<Vec<_>>().into();
        }
        Ok(DenseAndExperts {
            dense_norms: [norm("ffn_norm")?, norm("post_ffw_norm_1")?],
            dense: Dense::gated(loader, layer, width, Activation::GeluTanh)?,
            experts_norms: [norm("pre_ffw_norm_2")?, norm("post_ffw_norm_2")?],
            router: loader.matrix(&format!("blk.{layer}.ffn_gate_inp.weight"), router.count, width)?,
            experts: Experts::load(loader, layer, width, inner, Activation::GeluTanh, router)?,
            router_norm,
        })
    }
}

impl FeedForward for DenseAndExperts {
    fn forward(&self, pass: &mut Pass<'_>, x: Act) -> Result<Act> {
        let [before, after] = &self.dense_norms;
        let input = pass.backend.norm(before, x)?;
        let dense = self.dense.forward(pass, input)?;
        pass.backend.norm_in_place(after, dense)?;

        let routed = pass.backend.norm(&self.router_norm, x)?;
        let scores = pass.backend.linear(&self.router, None, routed)?;
        let [before, after] = &self.experts_norms;
        let input = pass.backend.norm(before, x)?;
        let mixed = self.experts.mix(pass, scores, input)?;
        pass.backend.norm_in_place(after, mixed)?;
        pass.backend.add(mixed, dense)?;
        Ok(mixed)
    }
}
