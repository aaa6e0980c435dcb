//! A mixture of experts (Shazeer and others 2017): each token goes through a few of many feed-forward networks.
#![forbid(unsafe_code)]

use super::feed_forward::FeedForward;
use super::linear::Linear;
use crate::backend::{Act, Activation, Constant, Grouped, Matrix, Router, Scoring, Slots};
use crate::model::loader::Loader;
use crate::model::pass::Pass;
use crate::{Error, Result};

impl Router {
    /// From `expert_*` and the layer's `exp_probs_b`.
    pub fn load(loader: &Loader<'_>, layer: usize, scoring: Scoring, normalize: bool) -> Result<Self> {
        let count = loader.size("expert_count")?;
        let used = loader.size_at("expert_used_count", layer)?;
        let scoring = match loader.optional_size("expert_gating_func")? {
            None => scoring,
            Some(1) => Scoring::Softmax,
            Some(2) => Scoring::Sigmoid,
            Some(3) => Scoring::SoftmaxOfChosen,
            Some(other) => {
                return Err(loader.unsupported(format!("the function {other} of a router's scores")));
            }
        };
        let groups = loader.optional_size("expert_group_count")?.unwrap_or(1);
        let used_groups = loader.optional_size("expert_group_used_count")?.unwrap_or(groups);
        let bias = loader.optional_vector(&format!("blk.{layer}.exp_probs_b.bias"), count)?;
        if used > count || !count.is_multiple_of(groups) || used > count / groups * used_groups.min(groups) {
            let found = format!("{used} of {count} experts in {used_groups} of {groups} groups");
            let key = loader.key("expert_used_count");
            return Err(Error::MetadataType { key, expected: "no more experts than there are", found });
        }
        let scale = loader.optional_float("expert_weights_scale")?.filter(|&scale| scale != 0.0);
        let normalize = loader.metadata().bool(&loader.key("expert_weights_norm"))?.unwrap_or(normalize);
        let groups = (groups, used_groups.min(groups));
        let expert_scales = loader.optional_vector(&format!("blk.{layer}.ffn_down_exps.scale"), count)?;
        let (bias, expert_scales) = (bias.map(Constant::from), expert_scales.map(Constant::from));
        let scale = scale.unwrap_or(1.0);
        Ok(Router { scoring, count, used, normalize, scale, groups, bias, expert_scales, choice: None })
    }
}

/// An expert that every token goes through, where there is one.
pub(crate) struct Shared {
    pub network: Box<dyn FeedForward>,
    /// One row: the expert's weight is this one's sigmoid.
    pub gate: Option<Linear>,
}

/// The same matrix of every expert, `[experts * rows, len]`, and biases of `[experts * rows]`.
pub(crate) struct ExpertMatrix(Grouped);

impl ExpertMatrix {
    /// `name.weight` `[experts, rows, len]`, and `name.bias` where it is there.
    pub fn load(loader: &Loader<'_>, name: &str, experts: usize, rows: usize, len: usize) -> Result<Self> {
        let weights = loader.experts(&format!("{name}.weight"), experts, rows, len)?;
        let bias = loader.optional_table(&format!("{name}.bias"), experts, rows)?;
        Ok(ExpertMatrix(Grouped { weights, of: rows, first: 0, rows, bias: bias.map(Constant::from) }))
    }

    /// One half of the rows of each matrix of `name.weight` `[experts, 2 * rows, len]`.
    fn half(
        loader: &Loader<'_>,
        name: &str,
        experts: usize,
        (half, rows): (usize, usize),
        len: usize,
    ) -> Result<Self> {
        let weights = loader.experts(&format!("{name}.weight"), experts, 2 * rows, len)?;
        Ok(ExpertMatrix(Grouped { weights, of: 2 * rows, first: half * rows, rows, bias: None }))
    }

    fn forward(&self, pass: &mut Pass<'_>, slots: &Slots, x: Act) -> Result<Act> {
        pass.backend.linear_grouped(&self.0, slots, x)
    }
}

/// A mixture of experts, in place of a feed-forward network.
pub(crate) struct Experts {
    pub router: Router,
    pub scores: Matrix,
    pub score_bias: Option<Constant>,
    pub activation: Activation,
    pub gate: Option<ExpertMatrix>,
    pub up: ExpertMatrix,
    pub down: ExpertMatrix,
    /// Whether an expert's input is weighted rather than its output.
    pub weigh_input: bool,
    pub shared: Option<Shared>,
}

impl Experts {
    /// `ffn_gate_inp` and `ffn_{gate,up,down}_exps` of a layer, of `inner` values, or the fused `ffn_gate_up_exps`.
    pub fn load(
        loader: &Loader<'_>,
        layer: usize,
        width: usize,
        inner: usize,
        activation: Activation,
        router: Router,
    ) -> Result<Self> {
        let name = format!("blk.{layer}.ffn_gate_inp");
        let scores = loader.matrix(&format!("{name}.weight"), router.count, width)?;
        let bias = loader.optional_vector(&format!("{name}.bias"), router.count)?;
        Self::load_with(loader, layer, width, inner, activation, router, (scores, bias))
    }

    /// As [`Experts::load`], with a matrix of the router's scores and its bias that may take other inputs.
    pub fn load_with(
        loader: &Loader<'_>,
        layer: usize,
        width: usize,
        inner: usize,
        activation: Activation,
        router: Router,
        (scores, score_bias): (Matrix, Option<Vec<f32>>),
    ) -> Result<Self> {
        let prefix = format!("blk.{layer}");
        let name = |part: &str| format!("{prefix}.ffn_{part}_exps");
        let matrix = |part: &str, rows, len| ExpertMatrix::load(loader, &name(part), router.count, rows, len);
        let (gate, up) = if loader.has(&format!("{}.weight", name("gate_up"))) {
            let half =
                |half| ExpertMatrix::half(loader, &name("gate_up"), router.count, (half, inner), width);
            (Some(half(0)?), half(1)?)
        } else {
            let gated = loader.has(&format!("{}.weight", name("gate")));
            (gated.then(|| matrix("gate", inner, width)).transpose()?, matrix("up", inner, width)?)
        };
        Ok(Experts {
            scores,
            score_bias: score_bias.map(Constant::from),
            activation,
            gate,
            up,
            down: matrix("down", width, inner)?,
            weigh_input: false,
            shared: None,
            router,
        })
    }
}

impl Experts {
    /// The router's scores of `x`, `[tokens, experts]`.
    pub fn scores(&self, pass: &mut Pass<'_>, x: Act) -> Result<Act> {
        pass.backend.linear(&self.scores, self.score_bias.as_ref(), x)
    }

    /// Mixes the experts that the scores `[tokens, experts]` choose for `x`.
    pub fn mix(&self, pass: &mut Pass<'_>, scores: Act, x: Act) -> Result<Act> {
        let slots = pass.backend.route(&self.router, scores)?;
        let input = pass.backend.select(x, &slots.tokens)?;
        if self.weigh_input {
            pass.backend.weigh_slots(&slots, input)?;
        }
        let inner = match &self.gate {
            Some(gate) => {
                let (gate, up) = (gate.forward(pass, &slots, input)?, self.up.forward(pass, &slots, input)?);
                pass.backend.gated(self.activation, gate, up)?;
                gate
            }
            None => {
                let up = self.up.forward(pass, &slots, input)?;
                pass.backend.activate(self.activation, up)?;
                up
            }
        };
        let outputs = self.down.forward(pass, &slots, inner)?;
        pass.backend.combine(&slots, !self.weigh_input, outputs)
    }
}

impl FeedForward for Experts {
    fn forward(&self, pass: &mut Pass<'_>, x: Act) -> Result<Act> {
        let scores = self.scores(pass, x)?;
        let mixed = self.mix(pass, scores, x)?;
        if let Some(shared) = &self.shared {
            let y = shared.network.forward(pass, x)?;
            if let Some(gate) = &shared.gate {
                let gate = gate.forward(pass, x)?;
                pass.backend.activate(Activation::Sigmoid, gate)?;
                pass.backend.scale_rows(y, gate)?;
            }
            pass.backend.add(mixed, y)?;
        }
        Ok(mixed)
    }
}
