//! Phi 3.5 with experts (Abdin and others 2024): layer norms, biases, LongRoPE, two experts chosen one after the other
//! (SparseMixer: Liu and others 2023).
#![forbid(unsafe_code)]

use super::Network;
use super::layers::{Block, Decoder, Experts, Heads, Router, Scoring, SelfAttention, Sizes};
use super::loader::{Loader, Norms};
use super::rope::Rope;
use crate::Result;
use crate::backend::{Activation, Pairing};

/// Loads a model of this architecture.
pub(crate) fn load(loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    let sizes = Sizes::load(loader)?;
    let width = sizes.width;
    let rope = Rope::load(loader, Pairing::Halves, Heads::load(loader, 0, width)?.shape.key_dim)?;
    let block = |layer| {
        let attention = SelfAttention::load(loader, layer, width, Heads::load(loader, layer, width)?)?;
        let inner = loader.size_at("feed_forward_length", layer)?;
        let mut router = Router::load(loader, layer, Scoring::Softmax, true)?;
        router.choice = Some(sparse_mixer);
        let experts = Experts::load(loader, layer, width, inner, Activation::Silu, router)?;
        Block::new(loader, layer, width, Norms::LayerByRmsKey, attention, experts)
    };
    Ok(Box::new(Decoder::load(loader, sizes, Norms::LayerByRmsKey, vec![rope], block)?))
}

/// How near a score must be to the best for the two to share the weight: twice the jitter of the training.
const NEAR: f32 = 0.02;

/// The best expert, and then the best of the others; each shares its weight with those whose scores are near its own.
fn sparse_mixer(scores: &[f32]) -> Vec<(usize, f32)> {
    let mut left: Vec<f32> = scores.to_vec();
    let mut chosen = Vec::new();
    for _ in 0..2 {
        let best = left.iter().enumerate().max_by(|(i, a), (j, b)| a.total_cmp(b).then(j.cmp(i)));
        let Some((expert, &best)) = best else { break };
        let near = |&(_, &score): &(&f32, &f32)| (best - score) / score.abs().max(best) <= NEAR;
        let sum: f32 = left.iter().zip(scores).filter(near).map(|(left, _)| libm::expf(left - best)).sum();
        chosen.push((expert, 1.0 / sum));
        if let Some(left) = left.get_mut(expert) {
            *left = f32::NEG_INFINITY;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_share_the_weight_with_those_near_them() {
        assert_eq!(sparse_mixer(&[1.0, 4.0, 2.0]), [(1, 1.0), (2, 1.0)]);
        assert_eq!(sparse_mixer(&[2.0, 2.0, -1.0]), [(0, 0.5), (1, 1.0)]);
    }
}
