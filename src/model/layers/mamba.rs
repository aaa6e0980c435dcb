//! Mamba (Gu and Dao 2023): a state space whose channels choose by their input what they keep.
#![forbid(unsafe_code)]

use super::decoder::{Mixer, Turned};
use super::delta_net::convolution;
use super::linear::Linear;
use crate::Result;
use crate::backend::{Act, Activation, Constant, Convolution, LayerShape, Map, Norm, Scan};
use crate::model::loader::{Loader, Norms};
use crate::model::pass::Pass;

/// A layer of Mamba.
pub(crate) struct Mamba {
    scan: Scan,
    input: Linear,
    gate: Linear,
    convolution: Convolution,
    /// From the inputs to the short form of the steps, and the ways into and out of the states.
    parts: [Linear; 3],
    /// Norms of the three, where the model has them.
    norms: Option<[Norm; 3]>,
    steps: Linear,
    /// What of the inputs goes past the states.
    skip: Constant,
    output: Linear,
}

impl Mamba {
    /// `ssm_*` of a layer.
    pub fn load(loader: &Loader<'_>, layer: usize, width: usize) -> Result<Self> {
        let name = |name: &str| format!("blk.{layer}.ssm_{name}");
        let (inner, states) = (loader.size("ssm.inner_size")?, loader.size("ssm.state_size")?);
        let (taps, rank) = (loader.size("ssm.conv_kernel")?, loader.size("ssm.time_step_rank")?);
        let part =
            |start, len| Linear::load_rows(loader, &name("x"), rank + 2 * states, inner, start..start + len);
        let half =
            |i: usize| Linear::load_rows(loader, &name("in"), 2 * inner, width, i * inner..(i + 1) * inner);
        let rates = loader.table(&name("a"), inner, states)?;
        let unsupported = || loader.unsupported(format!("{inner} channels of states (no multiple of 8)"));
        let norm = |part: &str, len| Norms::Rms.load(loader, &name(part), len);
        let norms = if loader.has(&format!("{}.weight", name("dt_norm"))) {
            Some([norm("dt_norm", rank)?, norm("b_norm", states)?, norm("c_norm", states)?])
        } else if loader.metadata().bool(&loader.key("ssm.dt_b_c_rms"))?.unwrap_or(false) {
            let unit = |len| Norms::unit(loader, len);
            Some([unit(rank)?, unit(states)?, unit(states)?])
        } else {
            None
        };
        Ok(Mamba {
            scan: Scan::new(rates, inner, states).ok_or_else(unsupported)?,
            input: half(0)?,
            gate: half(1)?,
            convolution: convolution(loader, &name("conv1d"), inner, taps)?,
            parts: [part(0, rank)?, part(rank, states)?, part(rank + states, states)?],
            norms,
            steps: Linear::load(loader, &name("dt"), inner, rank)?,
            skip: loader.vector(&name("d"), inner)?.into(),
            output: Linear::load(loader, &name("out"), width, inner)?,
        })
    }
}

impl Mixer for Mamba {
    fn shape(&self) -> LayerShape {
        LayerShape::default()
    }

    fn state_len(&self) -> usize {
        self.convolution.state_len() + self.scan.state_len()
    }

    fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, _: &Turned) -> Result<Act> {
        let last_tokens = pass.state(layer, 0, self.convolution.state_len())?;
        let state = pass.state(layer, 1, self.scan.state_len())?;
        let input = self.input.forward(pass, x)?;
        let input = pass.backend.convolve(&self.convolution, last_tokens, input)?;
        pass.backend.activate(Activation::Silu, input)?;

        let [steps, b, c] = &self.parts;
        let parts = [steps.forward(pass, input)?, b.forward(pass, input)?, c.forward(pass, input)?];
        for (norm, part) in self.norms.iter().flatten().zip(parts) {
            pass.backend.norm_in_place(norm, part)?;
        }
        let [steps, b, c] = parts;
        let steps = self.steps.forward(pass, steps)?;
        pass.backend.map(Map::Softplus, steps)?;
        let y = pass.backend.scan(&self.scan, state, [input, steps, b, c])?;
        pass.keep_state(layer, 0, last_tokens)?;
        pass.keep_state(layer, 1, state)?;

        pass.backend.scale_columns(&self.skip, input)?;
        pass.backend.add(y, input)?;
        let gate = self.gate.forward(pass, x)?;
        pass.backend.gated(Activation::Silu, gate, y)?;
        self.output.forward(pass, gate)
    }
}
