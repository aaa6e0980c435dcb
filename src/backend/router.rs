//! Which experts a token goes to (Shazeer and others 2017), and with what weights.
#![forbid(unsafe_code)]

use super::{Constant, Slots};

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
    pub bias: Option<Constant>,
    /// Factors of each expert's weight.
    pub expert_scales: Option<Constant>,
    /// What chooses in place of all this, `used` of them.
    pub choice: Option<Choice>,
}

impl Router {
    /// The slots of tokens by their scores `[tokens, experts]`.
    pub fn slots(&self, scores: &[f32]) -> Slots {
        let rows = scores.chunks_exact(self.count.max(1));
        Slots::new(&rows.map(|logits| self.choose(logits)).collect::<Vec<_>>())
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
            bias: Some(vec![0.0, 0.0, 0.0, 1.0].into()),
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
