//! RWKV 7 (Peng and others 2025): no attention at all; each token is mixed with the one before it, and a matrix of each head
//! carries what is kept of the others.
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Linear, Narrow, Sizes};
use super::loader::{Loader, Norms};
use super::pass::Pass;
use crate::backend::{Act, Activation, Constant, Convolution, LayerShape, Map, Matrix, Norm, Wkv};
use crate::{Error, Result};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let dim = loader.size("wkv.head_size")?;
    if !width.is_multiple_of(dim) || !dim.is_multiple_of(8) {
        return Err(loader.unsupported(format!("recurrent heads of {dim} values for a width of {width}")));
    }
    Ok(Box::new(Rwkv7 {
        embedding: loader.matrix("token_embd.weight", sizes.vocabulary, width)?,
        embedding_norm: Norms::Layer.load(loader, "token_embd_norm", width)?,
        layers: (0..sizes.layers)
            .map(|layer| Layer::load(loader, layer, width, dim))
            .collect::<Result<_>>()?,
        output_norm: Norms::Layer.load(loader, "output_norm", width)?,
        output: Linear::load(loader, "output", sizes.vocabulary, width)?,
    }))
}

struct Rwkv7 {
    embedding: Matrix,
    embedding_norm: Norm,
    layers: Vec<Layer>,
    output_norm: Norm,
    output: Linear,
}

struct Layer {
    sizes: Wkv,
    norms: [Norm; 2],
    /// How each input is mixed with the token before: of receptance, decay, key, value, `a` and gate.
    mixes: Vec<Convolution>,
    receptance: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    decay: Narrow,
    rate: Narrow,
    /// How much of the first layer's values is taken; none in the first layer.
    value_mix: Option<Narrow>,
    gate: Narrow,
    key_direction: Constant,
    key_rate: Constant,
    bonus: Constant,
    unit_norm: Norm,
    head_norm: Norm,
    head_scale: Constant,
    head_shift: Constant,
    channel_mix: Convolution,
    channel_key: Linear,
    channel_value: Linear,
}

impl Layer {
    fn load(loader: &Loader<'_>, layer: usize, width: usize, dim: usize) -> Result<Self> {
        let prefix = format!("blk.{layer}");
        let name = |part: &str| format!("{prefix}.{part}");
        let vector = |part: &str| loader.vector_of(&name(&format!("{part}.weight")), width);
        let linear = |part: &str, rows, len| Linear::load(loader, &name(part), rows, len);
        let norm = |part: &str| Norms::Layer.load(loader, &name(part), width);
        let narrow = |part: &str| Narrow::load(loader, &name(&format!("time_mix_{part}")), width);
        let inner = loader.size_at("feed_forward_length", layer)?;
        let mixes = loader.vector_of(&name("time_mix_lerp_fused.weight"), 6 * width)?;
        Ok(Layer {
            sizes: Wkv { heads: width / dim, dim },
            norms: [norm("attn_norm")?, norm("attn_norm_2")?],
            mixes: mixes.chunks(width).map(with_token_before).collect(),
            receptance: linear("time_mix_receptance", width, width)?,
            key: linear("time_mix_key", width, width)?,
            value: linear("time_mix_value", width, width)?,
            output: linear("time_mix_output", width, width)?,
            decay: narrow("w")?,
            rate: narrow("a")?,
            value_mix: (layer > 0).then(|| narrow("v")).transpose()?,
            gate: narrow("g")?,
            key_direction: vector("time_mix_k_k")?.into(),
            key_rate: vector("time_mix_k_a")?.into(),
            bonus: vector("time_mix_r_k")?.into(),
            // A sum of squares in the place of their mean.
            unit_norm: Norm::Rms { weight: vec![1.0 / libm::sqrtf(dim as f32); dim].into(), eps: 1e-24 },
            head_norm: Norm::Layer { weight: vec![1.0; dim].into(), bias: vec![0.0; dim].into(), eps: 64e-5 },
            head_scale: vector("time_mix_ln")?.into(),
            head_shift: loader.vector(&name("time_mix_ln.bias"), width)?.into(),
            channel_mix: with_token_before(&vector("channel_mix_lerp_k")?),
            channel_key: linear("channel_mix_key", inner, width)?,
            channel_value: linear("channel_mix_value", width, inner)?,
        })
    }

    fn state_len(&self) -> usize {
        2 * self.channel_mix.state_len() + self.sizes.state_len()
    }

    /// Of `x` `[tokens, width]`, already normed, what the tokens before add.
    fn mix_tokens(
        &self,
        pass: &mut Pass<'_>,
        layer: usize,
        x: Act,
        first_value: Option<Act>,
    ) -> Result<(Act, Act)> {
        let dim = self.sizes.dim;
        let mut mixed = Vec::new();
        for (i, mix) in self.mixes.iter().enumerate() {
            let last = pass.state(layer, 0, mix.state_len())?;
            mixed.push(pass.backend.convolve(mix, last, x)?);
            if i == 0 {
                pass.keep_state(layer, 0, last)?;
            }
        }
        let [r, w, k, v, a, g] = *mixed.as_slice() else {
            return Err(Error::Internal { what: "mixes that are gone" });
        };
        let r = self.receptance.forward(pass, r)?;
        // A cap of one is the hyperbolic tangent.
        let w = self.decay.forward(pass, w, |pass, x| pass.backend.map(Map::SoftCap(1.0), x))?;
        pass.backend.activate(Activation::Sigmoid, w)?;
        pass.backend.map(Map::Scale(-0.606_531), w)?;
        pass.backend.map(Map::Exp, w)?;
        let k = self.key.forward(pass, k)?;
        let value_input = v;
        let v = self.value.forward(pass, v)?;
        if let (Some(value_mix), Some(first)) = (&self.value_mix, first_value) {
            let share = value_mix.forward(pass, value_input, |_, _| Ok(()))?;
            pass.backend.activate(Activation::Sigmoid, share)?;
            let difference = pass.copy(first)?;
            pass.backend.blend(difference, &[first, v], &[1.0, -1.0].repeat(x.rows))?;
            pass.backend.gated(Activation::Identity, share, difference)?;
            pass.backend.add(v, share)?;
        }
        let a = self.rate.forward(pass, a, |_, _| Ok(()))?;
        pass.backend.activate(Activation::Sigmoid, a)?;
        let g = self.gate.forward(pass, g, |pass, x| pass.backend.activate(Activation::Sigmoid, x))?;

        let direction = pass.copy(k)?;
        pass.backend.scale_columns(&self.key_direction, direction)?;
        pass.backend.norm_in_place(&self.unit_norm, direction.split(dim))?;
        let added = pass.copy(a)?;
        pass.backend.gated(Activation::Identity, added, direction)?;
        pass.backend.map(Map::Scale(-1.0), direction)?;
        // k + (a - 1) k key_rate
        let part = pass.copy(k)?;
        pass.backend.scale_columns(&self.key_rate, part)?;
        pass.backend.gated(Activation::Identity, a, part)?;
        pass.backend.add(k, a)?;
        pass.backend.map(Map::Scale(-1.0), part)?;
        pass.backend.add(k, part)?;

        let state = pass.state(layer, 1, self.sizes.state_len())?;
        let y = pass.backend.wkv(&self.sizes, state, [r, w, k, direction, added, v])?;
        pass.keep_state(layer, 1, state)?;
        pass.backend.norm_in_place(&self.head_norm, y.split(dim))?;
        pass.backend.scale_columns(&self.head_scale, y)?;
        pass.backend.shift_columns(&self.head_shift, y)?;
        // What the token's own key gives of its own value.
        pass.backend.gated(Activation::Identity, r, k)?;
        pass.backend.scale_columns(&self.bonus, r)?;
        let heads = pass.backend.read(r)?.chunks_exact(dim);
        let bonus: Vec<f32> = heads.map(|head| head.iter().sum()).collect();
        let own = pass.copy(v)?;
        pass.backend.weigh(&bonus, own.split(dim))?;
        pass.backend.add(y, own)?;
        pass.backend.gated(Activation::Identity, g, y)?;
        Ok((self.output.forward(pass, g)?, v))
    }

    fn mix_channels(&self, pass: &mut Pass<'_>, layer: usize, x: Act) -> Result<Act> {
        let last = pass.state(layer, 2, self.channel_mix.state_len())?;
        let mixed = pass.backend.convolve(&self.channel_mix, last, x)?;
        pass.keep_state(layer, 2, last)?;
        let key = self.channel_key.forward(pass, mixed)?;
        pass.backend.activate(Activation::ReluSquared, key)?;
        self.channel_value.forward(pass, key)
    }
}

/// `x + mix (before - x)` for each value.
fn with_token_before(mix: &[f32]) -> Convolution {
    let own = mix.iter().map(|mix| 1.0 - mix);
    Convolution {
        weights: mix.iter().copied().chain(own).collect::<Vec<_>>().into(),
        bias: None,
        channels: mix.len(),
    }
}

impl Network for Rwkv7 {
    fn vocabulary(&self) -> usize {
        self.embedding.rows
    }

    fn cache_layers(&self) -> Vec<LayerShape> {
        vec![LayerShape::default(); self.layers.len()]
    }

    fn state_len(&self) -> usize {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.state_len()))
    }

    fn most_positions(&self) -> Option<usize> {
        None
    }

    fn hidden(&self, pass: &mut Pass<'_>) -> Result<Option<Act>> {
        let tokens: Vec<usize> = pass.tokens.iter().map(|&token| token as usize).collect();
        let x = pass.backend.lookup(&self.embedding, &tokens)?;
        pass.backend.norm_in_place(&self.embedding_norm, x)?;
        let first_value = pass.copy(x)?;
        for (layer, part) in self.layers.iter().enumerate() {
            pass.begin_layer(layer)?;
            let mark = pass.backend.mark();
            let normed = pass.backend.norm(&part.norms[0], x)?;
            let known = (layer > 0).then_some(first_value);
            let (y, value) = part.mix_tokens(pass, layer, normed, known)?;
            if layer == 0 {
                pass.backend.blend(first_value, &[value], &vec![1.0; x.rows])?;
            }
            pass.backend.add(x, y)?;
            let normed = pass.backend.norm(&part.norms[1], x)?;
            let y = part.mix_channels(pass, layer, normed)?;
            pass.backend.add(x, y)?;
            pass.backend.release(mark);
        }
        if pass.outputs.is_empty() {
            return Ok(None);
        }
        let x = pass.backend.select(x, pass.outputs)?;
        pass.backend.norm_in_place(&self.output_norm, x)?;
        Ok(Some(x))
    }

    fn logits(&self, pass: &mut Pass<'_>, hidden: Act) -> Result<Act> {
        self.output.forward(pass, hidden)
    }
}
