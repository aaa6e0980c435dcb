//! Embeddings of tokens for each layer (Google 2025, Gemma 3n): each layer mixes a short vector of its own into the tokens.
#![forbid(unsafe_code)]

use super::linear::Linear;
use crate::Result;
use crate::backend::{Act, Activation, Map, Matrix, Norm};
use crate::model::loader::{Loader, Norms};
use crate::model::pass::Pass;

/// What makes the short vectors of all layers.
pub(crate) struct PerLayer {
    /// `[vocabulary, layers * dim]`
    table: Matrix,
    /// `[layers * dim, width]`
    projection: Linear,
    norm: Norm,
    /// Values of a layer's vector.
    pub dim: usize,
}

impl PerLayer {
    /// `per_layer_{token_embd,model_proj,proj_norm}`, where `embedding_length_per_layer_input` is not zero.
    pub fn load(loader: &Loader<'_>, layers: usize, width: usize) -> Result<Option<Self>> {
        let dim = loader.count_at("embedding_length_per_layer_input", 0)?.unwrap_or(0);
        if dim == 0 {
            return Ok(None);
        }
        let rows = loader.vocabulary("per_layer_token_embd.weight")?;
        Ok(Some(PerLayer {
            table: loader.matrix("per_layer_token_embd.weight", rows, layers * dim)?,
            projection: Linear::load(loader, "per_layer_model_proj", layers * dim, width)?,
            norm: Norms::Rms.load(loader, "per_layer_proj_norm", dim)?,
            dim,
        }))
    }

    /// The vectors of the pass's tokens, embedded in `x` `[tokens, width]`, for all layers: `[tokens, layers * dim]`.
    pub fn vectors(&self, pass: &mut Pass<'_>, x: Act) -> Result<Act> {
        let tokens: Vec<usize> = pass.tokens.iter().map(|&token| token as usize).collect();
        let own = pass.backend.lookup(&self.table, &tokens)?;
        pass.backend.map(Map::Scale(libm::sqrtf(self.dim as f32)), own)?;
        let y = self.projection.forward(pass, x)?;
        pass.backend.map(Map::Scale(1.0 / libm::sqrtf(x.width as f32)), y)?;
        pass.backend.norm_in_place(&self.norm, y.split(self.dim))?;
        pass.backend.add(y, own)?;
        pass.backend.map(Map::Scale(core::f32::consts::FRAC_1_SQRT_2), y)?;
        Ok(y)
    }
}

/// How one layer mixes its vectors in: `norm(up(gelu(gate x) * vector))`.
pub(crate) struct PerLayerBlock {
    gate: Linear,
    projection: Linear,
    norm: Norm,
}

impl PerLayerBlock {
    /// `inp_gate`, `proj` and `post_norm` of a layer.
    pub fn load(loader: &Loader<'_>, layer: usize, width: usize, dim: usize) -> Result<Self> {
        let name = |name: &str| format!("blk.{layer}.{name}");
        Ok(PerLayerBlock {
            gate: Linear::load(loader, &name("inp_gate"), dim, width)?,
            projection: Linear::load(loader, &name("proj"), width, dim)?,
            norm: Norms::Rms.load(loader, &name("post_norm"), width)?,
        })
    }

    /// What is added to `x` `[tokens, width]`, from the vectors `[tokens, layers * dim]`.
    pub fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, vectors: Act) -> Result<Act> {
        let gate = self.gate.forward(pass, x)?;
        let own = pass.backend.columns(&[(vectors, layer * gate.width..(layer + 1) * gate.width)])?;
        pass.backend.gated(Activation::GeluTanh, gate, own)?;
        let y = self.projection.forward(pass, gate)?;
        pass.backend.norm_in_place(&self.norm, y)?;
        Ok(y)
    }
}
