//! The gated delta net (Yang, Kautz and Hatamizadeh 2025): linear attention whose state forgets by a gate and is corrected
//! rather than added to.
#![forbid(unsafe_code)]

use super::decoder::{Mixer, Turned};
use super::linear::Linear;
use crate::backend::{Act, Activation, Constant, Convolution, LayerShape, Map, Norm, Recurrence};
use crate::model::loader::{Loader, Norms};
use crate::model::pass::Pass;
use crate::{Error, Result};

/// Where the gates of heads come from.
pub(crate) enum Gates {
    /// `[beta, alpha]` of heads of values side by side for each head of keys.
    Fused(Linear),
    /// `beta` and `alpha` of all heads.
    Apart(Linear, Linear),
}

/// A layer of the gated delta net.
pub(crate) struct DeltaNet {
    sizes: Recurrence,
    /// Queries, keys and values, in this order.
    input: Linear,
    convolution: Convolution,
    gates: Gates,
    /// Factors and biases of the decays, one for each head.
    decay: Constant,
    decay_bias: Constant,
    query_norm: Norm,
    key_norm: Norm,
    /// The gate of the results.
    gate: Linear,
    norm: Norm,
    output: Linear,
}

impl DeltaNet {
    /// `attn_qkv`, `attn_gate` and `ssm_*` of a layer.
    pub fn load(loader: &Loader<'_>, layer: usize, width: usize, tiled: bool) -> Result<Self> {
        let prefix = format!("blk.{layer}");
        let (dim, key_heads) = (loader.size("ssm.state_size")?, loader.size("ssm.group_count")?);
        let heads = loader.size("ssm.time_step_rank")?;
        let taps = loader.size("ssm.conv_kernel")?;
        if heads.checked_mul(dim) != Some(loader.size("ssm.inner_size")?) || !heads.is_multiple_of(key_heads)
        {
            let found = format!("{heads} heads of {dim}, {key_heads} of keys");
            let key = loader.key("ssm.inner_size");
            return Err(Error::MetadataType { key, expected: "heads of equal parts", found });
        }
        if !dim.is_multiple_of(8) {
            return Err(loader.unsupported(format!("recurrent heads of {dim} values (no multiple of 8)")));
        }
        let (keys, values) = (key_heads * dim, heads * dim);
        let channels = 2 * keys + values;
        let fused = format!("{prefix}.ssm_ba");
        let gates = if loader.has(&format!("{fused}.weight")) {
            Gates::Fused(Linear::load(loader, &fused, 2 * heads, width)?)
        } else {
            let gate = |name: &str| Linear::load(loader, &format!("{prefix}.{name}"), heads, width);
            Gates::Apart(gate("ssm_beta")?, gate("ssm_alpha")?)
        };
        // A sum of squares in the place of their mean: all weights take the root of the count.
        let unit = |factor: f32| Norm::Rms { weight: vec![factor; dim].into(), eps: 1e-6 / dim as f32 };
        let root = 1.0 / libm::sqrtf(dim as f32);
        Ok(DeltaNet {
            sizes: Recurrence { heads, key_heads, key_dim: dim, value_dim: dim, delta: true, tiled },
            input: Linear::load(loader, &format!("{prefix}.attn_qkv"), channels, width)?,
            convolution: convolution(loader, &format!("{prefix}.ssm_conv1d"), channels, taps)?,
            gates,
            decay: loader.vector(&format!("{prefix}.ssm_a"), heads)?.into(),
            decay_bias: loader.vector(&format!("{prefix}.ssm_dt.bias"), heads)?.into(),
            query_norm: unit(root * root),
            key_norm: unit(root),
            gate: Linear::load(loader, &format!("{prefix}.attn_gate"), values, width)?,
            norm: Norms::Rms.load(loader, &format!("{prefix}.ssm_norm"), dim)?,
            output: Linear::load(loader, &format!("{prefix}.ssm_out"), width, values)?,
        })
    }

    /// The betas and alphas of all tokens, `[tokens, heads]`.
    fn gates(&self, pass: &mut Pass<'_>, x: Act) -> Result<(Act, Act)> {
        match &self.gates {
            Gates::Apart(beta, alpha) => Ok((beta.forward(pass, x)?, alpha.forward(pass, x)?)),
            Gates::Fused(both) => {
                let both = both.forward(pass, x)?;
                let per_key = self.sizes.heads / self.sizes.key_heads;
                let both = both.split(2 * per_key);
                let betas = pass.backend.columns(&[(both, 0..per_key)])?;
                let alphas = pass.backend.columns(&[(both, per_key..2 * per_key)])?;
                Ok((betas.split(self.sizes.heads), alphas.split(self.sizes.heads)))
            }
        }
    }
}

/// `name.weight` `[channels, taps]` and `name.bias` where it is there.
pub(crate) fn convolution(
    loader: &Loader<'_>,
    name: &str,
    channels: usize,
    taps: usize,
) -> Result<Convolution> {
    let weights = loader.table(&format!("{name}.weight"), channels, taps)?;
    let tap = |tap| weights.iter().skip(tap).step_by(taps).copied();
    Ok(Convolution {
        weights: (0..taps).flat_map(tap).collect::<Vec<_>>().into(),
        bias: loader.optional_vector(&format!("{name}.bias"), channels)?.map(Constant::from),
        channels,
    })
}

impl Mixer for DeltaNet {
    fn shape(&self) -> LayerShape {
        LayerShape::default()
    }

    fn state_len(&self) -> usize {
        self.convolution.state_len() + self.sizes.state_len()
    }

    fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, _: &Turned) -> Result<Act> {
        let last_tokens = pass.state(layer, 0, self.convolution.state_len())?;
        let state = pass.state(layer, 1, self.sizes.state_len())?;
        let mixed = self.input.forward(pass, x)?;
        let mixed = pass.backend.convolve(&self.convolution, last_tokens, mixed)?;
        pass.backend.activate(Activation::Silu, mixed)?;
        let keys = self.sizes.key_heads * self.sizes.key_dim;
        let q = pass.backend.columns(&[(mixed, 0..keys)])?;
        let k = pass.backend.columns(&[(mixed, keys..2 * keys)])?;
        let v = pass.backend.columns(&[(mixed, 2 * keys..mixed.width)])?;
        pass.backend.norm_in_place(&self.query_norm, q.split(self.sizes.key_dim))?;
        pass.backend.norm_in_place(&self.key_norm, k.split(self.sizes.key_dim))?;

        let (rates, decays) = self.gates(pass, x)?;
        pass.backend.activate(Activation::Sigmoid, rates)?;
        pass.backend.shift_columns(&self.decay_bias, decays)?;
        pass.backend.map(Map::Softplus, decays)?;
        pass.backend.scale_columns(&self.decay, decays)?;
        pass.backend.map(Map::Exp, decays)?;
        let y = pass.backend.recur(&self.sizes, state, [q, k, v], [decays, rates])?;
        pass.keep_state(layer, 0, last_tokens)?;
        pass.keep_state(layer, 1, state)?;

        pass.backend.norm_in_place(&self.norm, y.split(self.sizes.value_dim))?;
        let gate = self.gate.forward(pass, x)?;
        pass.backend.gated(Activation::Silu, gate, y)?;
        self.output.forward(pass, gate)
    }
}
