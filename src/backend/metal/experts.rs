//! Mixtures of experts: the choice, products by expert, and their sums.
#![forbid(unsafe_code)]

use gristmill_kernels::metal::launch::{self, TILE};

use super::gpu::{Gpu, internal, size, sizes};
use super::queue::Arg;
use crate::Result;
use crate::backend::{Act, Backend, Grouped, Held, Router, Scoring, Slots};

/// Slots of an expert, on average, from which tiles of them are multiplied: as for tokens.
const TILES_FROM: usize = 9;

impl Gpu<'_> {
    /// See [`Backend::route`].
    pub(super) fn choose_experts(&mut self, router: &Router, scores: Act) -> Result<Slots> {
        if scores.width != router.count {
            return Err(internal("scores of other experts"));
        }
        let [tokens, experts, used, groups, used_groups] =
            sizes([scores.rows, router.count, router.used, router.groups.0, router.groups.1])?;
        let route = launch::Route {
            scoring: match router.scoring {
                Scoring::Softmax => launch::Scoring::Softmax,
                Scoring::Sigmoid => launch::Scoring::Sigmoid,
                Scoring::SoftmaxOfChosen => launch::Scoring::SoftmaxOfChosen,
            },
            experts,
            used,
            groups: [groups, used_groups],
            normalize: router.normalize,
            scale: router.scale,
            has: [router.bias.is_some(), router.expert_scales.is_some()],
        };
        // From so many tokens on tiles may be wanted, and for them the slots of an expert side by side: the CPU sorts them.
        if scores.rows >= TILES_FROM || router.choice.is_some() || !route.fits() {
            return Ok(router.slots(self.read(scores)?));
        }
        let bias = self.optional(router.bias.as_ref(), scores)?;
        let scales = self.optional(router.expert_scales.as_ref(), scores)?;
        let (experts, experts_to) = self.make(scores.rows, router.used)?;
        let (weights, weights_to) = self.make(scores.rows, router.used)?;
        let args = [self.reads(scores)?, bias, scales, Arg::write(&experts_to), Arg::write(&weights_to)];
        self.host.run(&route.launch(tokens), &args)?;
        Ok(Slots::held(scores.rows, router.used, Held { experts, weights, count: router.count }))
    }

    /// The weights of slots.
    pub(super) fn slot_weights(&mut self, slots: &Slots) -> Result<Arg> {
        match slots.held {
            Some(held) => self.reads(held.weights),
            None => self.host.upload(&slots.weights),
        }
    }

    /// See [`crate::backend::Backend::linear_grouped`].
    pub(super) fn multiply_by_expert(&mut self, weights: &Grouped, slots: &Slots, x: Act) -> Result<Act> {
        let Grouped { weights: matrix, of, first, rows, bias } = weights;
        let experts = matrix.rows / of.max(&1);
        if x.width != matrix.len
            || x.rows != slots.tokens.len()
            || first + rows > *of
            || slots.runs.iter().any(|(expert, _)| *expert >= experts)
            || slots.held.is_some_and(|held| held.count > experts)
            || bias.as_ref().is_some_and(|bias| bias.len() != experts * rows)
        {
            return Err(internal("slots of experts that do not belong to their activations"));
        }
        let [len, count, columns, of, first] = sizes([matrix.len, *rows, x.rows, *of, *first])?;
        let product = launch::Product { format: matrix.ty, len, rows: count, columns, bias: bias.is_some() };
        let (act, out) = self.make(x.rows, *rows)?;
        let mut whose = Vec::new();
        let launch = if slots.held.is_some() {
            product.by_slot(of, first)
        } else if x.rows < TILES_FROM * slots.runs.len() {
            for (expert, run) in &slots.runs {
                whose.extend(std::iter::repeat_n(size(*expert)?, run.len()));
            }
            product.by_slot(of, first)
        } else {
            for (expert, run) in &slots.runs {
                for start in run.clone().step_by(TILE as usize) {
                    whose.extend(sizes([*expert, start, run.end.min(start + TILE as usize)])?);
                }
            }
            product.by_tile(of, first, size(whose.len() / 3)?)
        };
        let whose = match slots.held {
            Some(held) => self.reads(held.experts)?,
            None => self.host.upload(&whose)?,
        };
        let bias = self.optional(bias.as_ref(), x)?;
        let args = [self.host.weights(matrix)?, self.reads(x)?, bias, whose, Arg::write(&out)];
        self.host.run(&launch, &args)?;
        Ok(act)
    }

    /// See [`crate::backend::Backend::combine`].
    pub(super) fn combine_slots(&mut self, slots: &Slots, weighted: bool, x: Act) -> Result<Act> {
        let tokens = slots.chosen.len() / slots.per_token.max(1);
        if slots.tokens.len() != x.rows {
            return Err(internal("slots of experts that do not belong to their activations"));
        }
        let chosen = Self::rows_of(&slots.chosen, x.rows)?;
        let [count, width, per_token] = sizes([tokens, x.width, slots.per_token])?;
        let (act, out) = self.make(tokens, x.width)?;
        let chosen = self.host.upload(&chosen)?;
        let weights = self.slot_weights(slots)?;
        let args = [self.reads(x)?, chosen, weights, Arg::write(&out)];
        self.host.run(&launch::combine(count, width, per_token, weighted), &args)?;
        Ok(act)
    }
}
