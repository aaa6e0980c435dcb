//! A mixture of experts (Shazeer and others 2017): each token goes through a few of many feed-forward networks.
#![forbid(unsafe_code)]

use super::feed_forward::FeedForward;
use super::linear::Linear;
use crate::backend::{Act, Activation, Constant, Grouped, Matrix, Slots};
use crate::model::loader::Loader;
use crate::model::pass::Pass;
use crate::{Error, Result};

/// What a router makes of its scores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scoring {
    /// Shares of all experts, which sum to one.
    Softmax,
    /// Each expert by itself.
    Sigmoid,
    /// Shares of the chosen experts alone.
    SoftmaxOfChosen,
}

/// From a token's scores to its experts and their weights.
pub(crate) type Choice = fn(&[f32]) -> Vec<(usize, f32)>;

/// Which experts a token goes to, and with what weights.
pub(crate) struct Router {
    pub scoring: Scoring,
    /// Experts in all.
    pub count: usize,
    /// Experts for a token.
    pub used: usize,
    /// Whether the weights of the chosen are made to sum to one.
    pub normalize: bool,
    /// Factor of the weights.
    pub scale: f32,
    /// Groups of experts, and how many of them a token may choose from.
    pub groups: (usize, usize),
    /// Added to the scores for the choice alone.
    pub bias: Option<Vec<f32>>,
    /// Factors of each expert's weight.
    pub expert_scales: Option<Vec<f32>>,
    /// What chooses in place of all this, `used` of them.
    pub choice: Option<Choice>,
}

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
        let scale = scale.unwrap_or(1.0);
        Ok(Router { scoring, count, used, normalize, scale, groups, bias, expert_scales, choice: None })
    }

    /// The experts of one token with their weights, the best first. Of equal scores the first expert's counts more.
    fn choose(&self, logits: &[f32]) -> Vec<(usize, f32)> {
        if let Some(choice) = self.choice {
            return choice(logits);
        }
        let scores = match self.scoring {
            Scoring::Softmax => softmax(logits),
            Scoring::Sigmoid => logits.iter().map(|&x| 1.0 / (1.0 + libm::expf(-x))).collect(),
            Scoring::SoftmaxOfChosen => logits.to_vec(),
        };
        let biases = self.bias.as_deref().unwrap_or_default().iter().copied().chain(std::iter::repeat(0.0));
        let mut ranks: Vec<f32> = scores.iter().zip(biases).map(|(score, bias)| score + bias).collect();
        let (groups, used_groups) = self.groups;
        if used_groups < groups {
            let best_two = |group: &[f32]| {
                let order = descending(group);
                order.iter().take(2).filter_map(|&i| group.get(i)).sum::<f32>()
            };
            let len = self.count / groups;
            let sums: Vec<f32> = ranks.chunks(len).map(best_two).collect();
            for &group in descending(&sums).iter().skip(used_groups) {
                let left_out = ranks.iter_mut().skip(group * len).take(len);
                left_out.for_each(|rank| *rank = f32::NEG_INFINITY);
            }
        }
        let chosen: Vec<usize> = descending(&ranks).into_iter().take(self.used).collect();
        let mut weights: Vec<f32> = chosen.iter().filter_map(|&expert| scores.get(expert).copied()).collect();
        if self.scoring == Scoring::SoftmaxOfChosen {
            weights = softmax(&weights);
        }
        if self.normalize {
            // The bound is llama.cpp's: the smallest normal number of half precision.
            let sum = weights.iter().sum::<f32>().max(6.103_515_6e-5);
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        let own = |expert: usize| {
            let scales = self.expert_scales.as_ref();
            scales.and_then(|scales| scales.get(expert)).copied().unwrap_or(1.0)
        };
        let weighted = chosen.into_iter().zip(weights);
        weighted.map(|(expert, weight)| (expert, weight * self.scale * own(expert))).collect()
    }
}

fn softmax(x: &[f32]) -> Vec<f32> {
    let max = x.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    let mut e: Vec<f32> = x.iter().map(|&x| libm::expf(x - max)).collect();
    let sum: f32 = e.iter().sum();
    e.iter_mut().for_each(|e| *e /= sum);
    e
}

/// The indices of `x`, the largest value's first, and of equal ones the first.
fn descending(x: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    let value = |i: usize| x.get(i).copied().unwrap_or(f32::NEG_INFINITY);
    order.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    order
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
        let rows = pass.backend.read(scores)?.chunks_exact(self.router.count.max(1));
        let chosen: Vec<_> = rows.map(|logits| self.router.choose(logits)).collect();
        let slots = Slots::new(&chosen);
        let input = pass.backend.select(x, &slots.tokens)?;
        if self.weigh_input {
            pass.backend.weigh(&slots.weights, input)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Router = Router {
        scoring: Scoring::Softmax,
        count: 4,
        used: 2,
        normalize: true,
        scale: 2.0,
        groups: (1, 1),
        bias: None,
        expert_scales: None,
        choice: None,
    };

    #[test]
    fn the_best_experts_come_first_and_share_the_weight() {
        let ln = |x: f32| x.ln();
        let chosen = ROUTER.choose(&[ln(1.0), ln(3.0), ln(2.0), ln(1.0)]);
        assert_eq!(chosen.iter().map(|c| c.0).collect::<Vec<_>>(), [1, 2]);
        assert!((chosen[0].1 - 1.2).abs() < 1e-6 && (chosen[1].1 - 0.8).abs() < 1e-6, "{chosen:?}");
        let plain = Router { normalize: false, scale: 1.0, ..ROUTER }.choose(&[0.0; 4]);
        assert_eq!(plain, [(0, 0.25), (1, 0.25)]);
    }

    #[test]
    fn a_bias_changes_the_choice_but_not_the_weights() {
        let router = Router {
            scoring: Scoring::Sigmoid,
            normalize: false,
            scale: 1.0,
            bias: Some(vec![0.0, 0.0, 0.0, 1.0]),
            ..ROUTER
        };
        assert_eq!(router.choose(&[-9.0, 0.0, -9.0, 0.0]), [(3, 0.5), (1, 0.5)]);
    }

    #[test]
    fn experts_come_from_the_best_groups_alone() {
        let router = Router { scoring: Scoring::Sigmoid, groups: (2, 1), ..ROUTER };
        // The best expert is alone in its group: the other group's two best sum to more.
        let chosen = router.choose(&[0.1, -9.0, 0.0, 0.0]);
        assert_eq!(chosen.iter().map(|c| c.0).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn scores_of_the_chosen_alone_may_be_shared() {
        let router = Router { scoring: Scoring::SoftmaxOfChosen, normalize: false, scale: 1.0, ..ROUTER };
        assert_eq!(router.choose(&[1.0, 5.0, 1.0, 5.0]), [(1, 0.5), (3, 0.5)]);
    }
}
