//! Mamba 2 (Dao and Gu 2024): a state space whose heads decay by one number each.
#![forbid(unsafe_code)]

use super::decoder::{Mixer, Turned};
use super::delta_net::convolution;
use super::linear::Linear;
use crate::backend::{Act, Activation, Constant, Convolution, LayerShape, Map, Norm, Recurrence};
use crate::model::loader::Loader;
use crate::model::pass::Pass;
use crate::{Error, Result};

/// A layer of Mamba 2.
pub(crate) struct Mamba2 {
    sizes: Recurrence,
    gate: Linear,
    /// Values, keys and queries (in the paper's words x, B and C).
    input: Linear,
    /// The lengths of the heads' steps.
    steps: Linear,
    convolution: Convolution,
    step_bias: Constant,
    /// One for each head.
    decay: Constant,
    /// What of the values goes past the state, for each value.
    skip: Constant,
    /// The norm of each group, without weights, and then the weights of all values.
    norm: Option<(Norm, Constant)>,
    output: Linear,
}

impl Mamba2 {
    /// `ssm_*` of a layer.
    pub fn load(loader: &Loader<'_>, layer: usize, width: usize) -> Result<Self> {
        let name = |name: &str| format!("blk.{layer}.ssm_{name}");
        let (inner, groups) = (loader.size("ssm.inner_size")?, loader.size("ssm.group_count")?);
        let (key_dim, heads) = (loader.size("ssm.state_size")?, loader.size("ssm.time_step_rank")?);
        let taps = loader.size("ssm.conv_kernel")?;
        if !inner.is_multiple_of(heads) || !heads.is_multiple_of(groups) || !inner.is_multiple_of(groups) {
            let found = format!("{inner} for {heads} heads in {groups} groups");
            let key = loader.key("ssm.inner_size");
            return Err(Error::MetadataType { key, expected: "heads of equal parts", found });
        }
        let value_dim = inner / heads;
        if !value_dim.is_multiple_of(8) {
            return Err(
                loader.unsupported(format!("recurrent heads of {value_dim} values (no multiple of 8)"))
            );
        }
        let sizes = Recurrence { heads, key_heads: groups, key_dim, value_dim, delta: false, tiled: false };
        let channels = inner + 2 * groups * key_dim;
        let part = |start, len| {
            let all = inner + channels + heads;
            Linear::load_rows(loader, &name("in"), all, width, start..start + len)
        };
        let skip = loader.vector_of(&name("d"), heads)?;
        let weights = loader.optional_vector_of(&name("norm.weight"), inner)?;
        let eps = weights.is_some().then(|| loader.rms_epsilon()).transpose()?;
        let group = |eps| Norm::Rms { weight: vec![1.0; inner / groups].into(), eps };
        Ok(Mamba2 {
            sizes,
            gate: part(0, inner)?,
            input: part(inner, channels)?,
            steps: part(inner + channels, heads)?,
            convolution: convolution(loader, &name("conv1d"), channels, taps)?,
            step_bias: loader.vector(&name("dt.bias"), heads)?.into(),
            decay: loader.vector_of(&name("a"), heads)?.into(),
            skip: skip
                .into_iter()
                .flat_map(|skip| std::iter::repeat_n(skip, value_dim))
                .collect::<Vec<_>>()
                .into(),
            norm: eps.map(group).zip(weights.map(Constant::from)),
            output: Linear::load(loader, &name("out"), width, inner)?,
        })
    }
}

impl Mixer for Mamba2 {
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
        let (values, keys) = (self.skip.len(), self.sizes.key_heads * self.sizes.key_dim);
        let v = pass.backend.columns(&[(mixed, 0..values)])?;
        let k = pass.backend.columns(&[(mixed, values..values + keys)])?;
        let q = pass.backend.columns(&[(mixed, values + keys..mixed.width)])?;

        let steps = self.steps.forward(pass, x)?;
        pass.backend.shift_columns(&self.step_bias, steps)?;
        pass.backend.map(Map::Softplus, steps)?;
        let decays = pass.copy(steps)?;
        pass.backend.scale_columns(&self.decay, decays)?;
        pass.backend.map(Map::Exp, decays)?;
        let y = pass.backend.recur(&self.sizes, state, [q, k, v], [decays, steps])?;
        pass.keep_state(layer, 0, last_tokens)?;
        pass.keep_state(layer, 1, state)?;

        pass.backend.scale_columns(&self.skip, v)?;
        pass.backend.add(y, v)?;
        let gate = self.gate.forward(pass, x)?;
        pass.backend.gated(Activation::Silu, gate, y)?;
        if let Some((norm, weights)) = &self.norm {
            pass.backend.norm_in_place(norm, gate.split(norm.len()))?;
            pass.backend.scale_columns(weights, gate)?;
        }
        self.output.forward(pass, gate)
    }
}
