//! Gemma 4 (Google 2026): Gemma 3's layers with heads of another size in layers that see all, norms of values, embeddings for
//! each layer, last layers that attend to the keys and values of earlier ones, and in one size experts beside a dense
//! network.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Block, Decoder, Dense, Experts, FeedForward, Linear, Mixer, PerLayer, PerLayerBlock, Router, Scoring, Sizes,
    Turned,
};
use super::loader::{Loader, Norms};
use super::pass::Pass;
use super::rope::Rope;
use crate::Result;
use crate::backend::{Act, Activation, Attention, LayerShape, Matrix, Norm, Pairing, Sees};

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

/// Attention with norms of queries, keys and values, or to an earlier layer's keys and values.
struct KeptAttention {
    spec: Attention,
    rope: usize,
    query: Linear,
    query_norm: Norm,
    /// Keys, values (where they are not the keys again) and their norms; an earlier layer's where there are none.
    own: Option<(Linear, Option<Linear>, Norm, Norm)>,
    /// The layer whose keys and values are attended to.
    source: usize,
    output: Linear,
}

impl KeptAttention {
    fn load(loader: &Loader<'_>, layer: usize, sizes: Sizes) -> Result<Self> {
        let (width, name) = (sizes.width, |name: &str| format!("blk.{layer}.{name}"));
        let window = |layer| loader.window(layer, 6);
        let sees = window(layer)?.map_or(Sees::Past, Sees::Last);
        let key = if sees == Sees::Past { "attention.key_length" } else { "attention.key_length_swa" };
        let dim = loader.size(key)?;
        let count = loader.size_at("attention.head_count", layer)?;
        let heads = loader.size_at("attention.head_count_kv", layer)?;
        let shape = LayerShape { heads, key_dim: dim, value_dim: dim, sees };
        // The last layers attend to what the last layer before them that sees as much has kept.
        let first_shared = sizes.layers
            - loader.count_at("attention.shared_kv_layers", layer)?.unwrap_or(0).min(sizes.layers);
        let mut source = layer;
        if layer >= first_shared {
            for earlier in 0..first_shared {
                if window(earlier)?.is_some() == window(layer)?.is_some() {
                    source = earlier;
                }
            }
        }
        let own = if source == layer {
            let value = Linear::optional(loader, &name("attn_v"), heads * dim, width)?;
            let key = Linear::load(loader, &name("attn_k"), heads * dim, width)?;
            let norm = Norms::Rms.load(loader, &name("attn_k_norm"), dim)?;
            Some((key, value, norm, Norms::unit(loader, dim)?))
        } else {
            None
        };
        Ok(KeptAttention {
            spec: Attention { heads: count, shape, scale: 1.0, ..Attention::default() },
            rope: usize::from(sees != Sees::Past),
            query: Linear::load(loader, &name("attn_q"), count * dim, width)?,
            query_norm: Norms::Rms.load(loader, &name("attn_q_norm"), dim)?,
            own,
            source,
            output: Linear::load(loader, &name("attn_output"), width, count * dim)?,
        })
    }
}

impl Mixer for KeptAttention {
    fn shape(&self) -> LayerShape {
        if self.own.is_some() { self.spec.shape } else { LayerShape::default() }
    }

    fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, turned: &Turned) -> Result<Act> {
        let dim = self.spec.shape.key_dim;
        let turn = |pass: &mut Pass<'_>, act: Act, norm: &Norm| {
            pass.backend.norm_in_place(norm, act.split(dim))?;
            turned.get(self.rope).map_or(Ok(()), |turns| pass.backend.rope(turns, dim, act))
        };
        let q = self.query.forward(pass, x)?;
        turn(pass, q, &self.query_norm)?;
        let heads = match &self.own {
            Some((key, value, key_norm, value_norm)) => {
                let k = key.forward(pass, x)?;
                let v = match value {
                    Some(value) => value.forward(pass, x)?,
                    None => pass.backend.columns(&[(k, 0..k.width)])?,
                };
                turn(pass, k, key_norm)?;
                pass.backend.norm_in_place(value_norm, v.split(dim))?;
                pass.backend.attention(&self.spec, pass.cache, layer, pass.start, q, k, v)?
            }
            None => pass.backend.attend_again(&self.spec, pass.cache, self.source, pass.start, q)?,
        };
        self.output.forward(pass, heads)
    }
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
            *weight = loader.vector(&format!("blk.{layer}.ffn_gate_inp.scale"), width)?;
            weight.iter_mut().for_each(|weight| *weight /= root);
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
