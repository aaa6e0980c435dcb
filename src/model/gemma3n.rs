//! Gemma 3n (Google 2025): several streams of the tokens, of which each layer works on one and corrects the others (AltUp:
//! Baykal and others 2023); beside attention a short way past it (Laurel); embeddings for each layer; sparse gates in the
//! first layers; last layers that attend to the keys and values of earlier ones.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{
    Dense, FeedForward, KeptAttention, Linear, Mixer, PerLayer, PerLayerBlock, Sizes, Turned, magnitudes,
};
use super::loader::{Loader, Norms};
use super::pass::Pass;
use super::rope::Rope;
use crate::backend::{Act, Activation, Constant, LayerShape, Map, Matrix, Norm};
use crate::{Error, Result};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let Sizes { width, layers, vocabulary } = sizes;
    let dim = loader.size("attention.key_length")?;
    let (streams, active) = (loader.size("altup.num_inputs")?, loader.count_at("altup.active_idx", 0)?);
    let active = active.unwrap_or(0);
    if active >= streams {
        let (key, found) = (loader.key("altup.active_idx"), active.to_string());
        return Err(Error::MetadataType { key, expected: "one of the streams", found });
    }
    let missing = || loader.missing("per_layer_token_embd.weight".to_owned());
    let per_layer = PerLayer::load(loader, layers, width)?.ok_or_else(missing)?;
    let key = loader.key("activation_sparsity_scale");
    let sparsity = loader.metadata().f32s(&key)?.map(|all| all.into_owned()).unwrap_or_default();
    let layer = |layer| Layer::load(loader, layer, sizes, streams, &sparsity, per_layer.dim);
    let projections = |name: &str| {
        let part = |i| Linear::nth(loader, name, streams - 1, i, width, width);
        (0..streams - 1).map(part).collect::<Result<Vec<_>>>()
    };
    Ok(Box::new(Gemma3n {
        embedding: loader.matrix("token_embd.weight", vocabulary, width)?,
        ropes: Rope::load_with_windows(loader, dim, "rope.freq_base_swa")?,
        active,
        into_streams: projections("altup_proj.weight")?,
        out_of_streams: projections("altup_unembd_proj.weight")?,
        layers: (0..layers).map(layer).collect::<Result<_>>()?,
        output_norm: Norms::Rms.load(loader, "output_norm", width)?,
        logit_cap: loader.optional_float("final_logit_softcapping")?.unwrap_or(30.0),
        per_layer,
    }))
}

struct Gemma3n {
    embedding: Matrix,
    ropes: [Rope; 2],
    /// The stream that layers work on.
    active: usize,
    into_streams: Vec<Linear>,
    out_of_streams: Vec<Linear>,
    per_layer: PerLayer,
    layers: Vec<Layer>,
    output_norm: Norm,
    logit_cap: f32,
}

struct Layer {
    attention_norm: Norm,
    attention: KeptAttention,
    attention_post_norm: Norm,
    laurel: [Linear; 2],
    laurel_norm: Norm,
    feed_forward_norm: Norm,
    feed_forward: Dense,
    feed_forward_post_norm: Norm,
    router: Linear,
    router_norm: Norm,
    predict: Linear,
    correct: Linear,
    correct_scale: Constant,
    per_layer: PerLayerBlock,
}

impl Layer {
    fn load(
        loader: &Loader<'_>,
        layer: usize,
        sizes: Sizes,
        streams: usize,
        sparsity: &[f32],
        dim: usize,
    ) -> Result<Self> {
        let (width, name) = (sizes.width, |name: &str| format!("blk.{layer}.{name}"));
        let norm = |part: &str| Norms::Rms.load(loader, &name(part), width);
        let linear = |part: &str, rows, len| Linear::load(loader, &name(part), rows, len);
        let rank = loader.vocabulary(&name("laurel_l.weight"))?;
        let mut router_norm = norm("altup_router_norm")?;
        if let Norm::Rms { weight, .. } = &mut router_norm {
            *weight = weight.iter().map(|weight| weight / width as f32).collect::<Vec<_>>().into();
        }
        Ok(Layer {
            attention_norm: norm("attn_norm")?,
            attention: KeptAttention::load(loader, layer, sizes)?,
            attention_post_norm: norm("post_attention_norm")?,
            laurel: [linear("laurel_l", rank, width)?, linear("laurel_r", width, rank)?],
            laurel_norm: norm("laurel_post_norm")?,
            feed_forward_norm: norm("ffn_norm")?,
            feed_forward: Dense {
                sparsity: sparsity.get(layer).copied().filter(|x| x.is_finite()),
                ..Dense::gated(loader, layer, width, Activation::GeluTanh)?
            },
            feed_forward_post_norm: norm("post_ffw_norm")?,
            router: linear("altup_router", streams, width)?,
            router_norm,
            predict: linear("altup_predict_coef", streams * streams, streams)?,
            correct: linear("altup_correct_coef", streams, streams)?,
            correct_scale: loader.vector(&name("altup_correct_scale.weight"), width)?.into(),
            per_layer: PerLayerBlock::load(loader, layer, width, dim)?,
        })
    }

    /// The coefficients that `by` makes of a stream, `[tokens, by's outputs]`.
    fn coefficients(&self, pass: &mut Pass<'_>, by: &Linear, x: Act) -> Result<Vec<f32>> {
        let normed = pass.backend.norm(&self.router_norm, x)?;
        let routed = self.router.forward(pass, normed)?;
        // A cap of one is the hyperbolic tangent.
        pass.backend.map(Map::SoftCap(1.0), routed)?;
        let coefficients = by.forward(pass, routed)?;
        Ok(pass.backend.read(coefficients)?.to_vec())
    }

    /// Attention, the way past it and the feed-forward network.
    fn work(&self, pass: &mut Pass<'_>, layer: usize, x: Act, turned: &Turned) -> Result<Act> {
        let normed = pass.backend.norm(&self.attention_norm, x)?;
        let [down, up] = &self.laurel;
        let past = down.forward(pass, normed)?;
        let past = up.forward(pass, past)?;
        pass.backend.norm_in_place(&self.laurel_norm, past)?;
        pass.backend.add(past, normed)?;
        let y = self.attention.forward(pass, layer, normed, turned)?;
        pass.backend.norm_in_place(&self.attention_post_norm, y)?;
        pass.backend.add(y, x)?;
        pass.backend.add(y, past)?;
        pass.backend.map(Map::Scale(core::f32::consts::FRAC_1_SQRT_2), y)?;
        let normed = pass.backend.norm(&self.feed_forward_norm, y)?;
        let fed = self.feed_forward.forward(pass, normed)?;
        pass.backend.norm_in_place(&self.feed_forward_post_norm, fed)?;
        pass.backend.add(y, fed)?;
        Ok(y)
    }

    /// One layer over the streams, in place.
    fn forward(
        &self,
        pass: &mut Pass<'_>,
        layer: usize,
        streams: &[Act],
        active: usize,
        turned: &Turned,
        vectors: Act,
    ) -> Result<()> {
        let gone = || Error::Internal { what: "a stream that is gone" };
        let count = streams.len();
        let chosen = *streams.get(active).ok_or_else(gone)?;
        let coefficients = self.coefficients(pass, &self.predict, chosen)?;
        let mut predicted = Vec::new();
        for (i, &stream) in streams.iter().enumerate() {
            let to = pass.copy(stream)?;
            let rows = coefficients.chunks_exact(count * count);
            let own = rows.flat_map(|row| row.iter().skip(i * count).take(count).enumerate());
            let factors: Vec<f32> = own.map(|(j, x)| if j == i { x + 1.0 } else { *x }).collect();
            pass.backend.blend(to, streams, &factors)?;
            predicted.push(to);
        }
        let chosen = *predicted.get(active).ok_or_else(gone)?;
        let worked = self.work(pass, layer, chosen, turned)?;

        let coefficients = self.coefficients(pass, &self.correct, worked)?;
        for (i, (&stream, &predicted)) in streams.iter().zip(&predicted).enumerate() {
            let own = coefficients.iter().skip(i).step_by(count).map(|x| x + 1.0);
            let factors: Vec<f32> = own.flat_map(|x| [1.0, x, -x]).collect();
            pass.backend.blend(stream, &[predicted, worked, chosen], &factors)?;
        }
        let first = pass.copy(*streams.get(active).ok_or_else(gone)?)?;
        pass.backend.scale_columns(&self.correct_scale, first)?;
        let own = self.per_layer.forward(pass, layer, first, vectors)?;
        streams.iter().skip(1).try_for_each(|&stream| pass.backend.add(stream, own))
    }
}

impl Network for Gemma3n {
    fn vocabulary(&self) -> usize {
        self.embedding.rows
    }

    fn cache_layers(&self) -> Vec<LayerShape> {
        self.layers.iter().map(|layer| layer.attention.shape()).collect()
    }

    fn most_positions(&self) -> Option<usize> {
        None
    }

    fn hidden(&self, pass: &mut Pass<'_>) -> Result<Option<Act>> {
        let tokens: Vec<usize> = pass.tokens.iter().map(|&token| token as usize).collect();
        let x = pass.backend.lookup(&self.embedding, &tokens)?;
        pass.backend.map(Map::Scale(libm::sqrtf(x.width as f32)), x)?;
        let vectors = self.per_layer.vectors(pass, x)?;
        let turned = self
            .ropes
            .iter()
            .map(|rope| rope.turns(pass.positions(), pass.context))
            .collect::<Result<Vec<_>>>()?;

        let sizes = magnitudes(pass, x)?;
        let mut streams = vec![x];
        for matrix in &self.into_streams {
            streams.push(matrix.forward_to_sizes(pass, x, &sizes)?);
        }
        for (layer, part) in self.layers.iter().enumerate() {
            pass.begin_layer(layer)?;
            let mark = pass.backend.mark();
            part.forward(pass, layer, &streams, self.active, &turned, vectors)?;
            pass.backend.release(mark);
        }
        if pass.outputs.is_empty() {
            return Ok(None);
        }

        let mut wanted = Vec::new();
        for &stream in &streams {
            wanted.push(pass.backend.select(stream, pass.outputs)?);
        }
        let [first, others @ ..] = wanted.as_slice() else { return Ok(None) };
        let sizes = magnitudes(pass, *first)?;
        let mut parts = vec![*first];
        for (matrix, &stream) in self.out_of_streams.iter().zip(others) {
            parts.push(matrix.forward_to_sizes(pass, stream, &sizes)?);
        }
        let x = pass.copy(*first)?;
        let shares = vec![1.0 / parts.len() as f32; parts.len() * x.rows];
        pass.backend.blend(x, &parts, &shares)?;
        pass.backend.norm_in_place(&self.output_norm, x)?;
        Ok(Some(x))
    }

    fn logits(&self, pass: &mut Pass<'_>, hidden: Act) -> Result<Act> {
        let logits = pass.backend.linear(&self.embedding, None, hidden)?;
        pass.backend.map(Map::SoftCap(self.logit_cap), logits)?;
        Ok(logits)
    }
}
