//! What makes scores of texts, in models that rerank.
#![forbid(unsafe_code)]

use super::linear::Linear;
use crate::Result;
use crate::backend::{Act, Activation, Map, Norm};
use crate::model::loader::{Loader, Norms};
use crate::model::pass::Pass;

/// A dense layer, and one that gives the scores: either may lack. The public fields are what architectures change after
/// [`RankHead::load`].
pub(crate) struct RankHead {
    dense: Option<Linear>,
    /// What bends the dense layer's results, where it is not tanh.
    pub activation: Option<Activation>,
    norm: Option<Norm>,
    scores: Option<Linear>,
    /// Whether the mean of all tokens is scored, not one of them.
    pub of_mean: bool,
    /// Whether scores are made probabilities.
    pub softmax: bool,
}

impl RankHead {
    /// `cls`, `cls.norm`, `cls.output`; `None` where neither layer is there.
    pub fn load(loader: &Loader<'_>, width: usize) -> Result<Option<Self>> {
        let rows = |name: &str| {
            let name = format!("{name}.weight");
            loader.has(&name).then(|| loader.vocabulary(&name)).transpose()
        };
        let (own, count) = (rows("cls")?, rows("cls.output")?);
        if own.is_none() && count.is_none() {
            return Ok(None);
        }
        // Alone, the dense layer gives the scores.
        let inner = own.filter(|_| count.is_none()).unwrap_or(width);
        let dense = Linear::optional(loader, "cls", inner, width)?;
        let scores = count.map(|count| Linear::load(loader, "cls.output", count, width)).transpose()?;
        let norm = loader.has("cls.norm.weight").then(|| Norms::Layer.load(loader, "cls.norm", inner));
        let pooling = loader.metadata().u32(&loader.key("classifier.pooling_type"))?;
        Ok(Some(RankHead {
            dense,
            activation: None,
            norm: norm.transpose()?,
            scores,
            of_mean: pooling == Some(1),
            softmax: false,
        }))
    }

    /// The scores of pooled vectors `[texts, width]`.
    pub fn forward(&self, pass: &mut Pass<'_>, mut x: Act) -> Result<Act> {
        if let Some(dense) = &self.dense {
            x = dense.forward(pass, x)?;
            match self.activation {
                Some(activation) => pass.backend.activate(activation, x)?,
                // That is tanh.
                None => pass.backend.map(Map::SoftCap(1.0), x)?,
            }
            if let Some(norm) = &self.norm {
                pass.backend.norm_in_place(norm, x)?;
            }
        }
        if let Some(scores) = &self.scores {
            x = scores.forward(pass, x)?;
        }
        if self.softmax {
            let mut scores = pass.backend.read(x)?.to_vec();
            scores.chunks_mut(x.width.max(1)).for_each(softmax);
            x = pass.backend.write(x.width, &scores)?;
        }
        Ok(x)
    }
}

/// Makes scores probabilities.
fn softmax(scores: &mut [f32]) {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = libm::expf(*score - most));
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_to_one() {
        let mut scores = [1000.0, 1000.0 + std::f32::consts::LN_2, f32::NEG_INFINITY];
        softmax(&mut scores);
        for (found, expected) in scores.iter().zip([1.0 / 3.0, 2.0 / 3.0, 0.0]) {
            assert!((found - expected).abs() < 1e-4, "{scores:?}");
        }
    }
}
