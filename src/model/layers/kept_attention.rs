//! Attention whose last layers attend to the keys and values of earlier ones (Google 2025, Gemma 3n).
#![forbid(unsafe_code)]

use super::decoder::{Mixer, Sizes, Turned};
use super::linear::Linear;
use crate::Result;
use crate::backend::{Act, Attention, LayerShape, Norm, Sees};
use crate::model::loader::{Loader, Norms};
use crate::model::pass::Pass;

/// Attention with norms of queries, keys and values, or to an earlier layer's keys and values.
pub(crate) struct KeptAttention {
    spec: Attention,
    rope: usize,
    query: Linear,
    query_norm: Norm,
    /// Keys, values (where they are not the keys again) and their norms; an earlier layer's where there are none.
    own: Option<(Linear, Option<Linear>, Norm, Norm)>,
    /// The layer whose keys and values are attended to.
    source: usize,
    output: Linear,
}

impl KeptAttention {
    /// `attn_{q,k,v,output}` and `attn_{q,k}_norm` of a layer. Layers with windows, of six the first five where the file does
    /// not say which, may have heads of a size of their own, and turn by the decoder's second angles.
    pub fn load(loader: &Loader<'_>, layer: usize, sizes: Sizes) -> Result<Self> {
        let (width, name) = (sizes.width, |name: &str| format!("blk.{layer}.{name}"));
        let window = |layer| loader.window(layer, 6);
        let sees = window(layer)?.map_or(Sees::Past, Sees::Last);
        let local = loader.optional_size("attention.key_length_swa")?.filter(|_| sees != Sees::Past);
        let dim = local.map_or_else(|| loader.size("attention.key_length"), Ok)?;
        let count = loader.size_at("attention.head_count", layer)?;
        let heads = loader.size_at("attention.head_count_kv", layer)?;
        let shape = LayerShape { heads, key_dim: dim, value_dim: dim, sees };
        // The last layers attend to what the last layer before them that sees as much has kept.
        let first_shared = sizes.layers
            - loader.count_at("attention.shared_kv_layers", layer)?.unwrap_or(0).min(sizes.layers);
        let mut source = layer;
        if layer >= first_shared {
            for earlier in 0..first_shared {
                if window(earlier)?.is_some() == window(layer)?.is_some() {
                    source = earlier;
                }
            }
        }
        let own = if source == layer {
            let value = Linear::optional(loader, &name("attn_v"), heads * dim, width)?;
            let key = Linear::load(loader, &name("attn_k"), heads * dim, width)?;
            let norm = Norms::Rms.load(loader, &name("attn_k_norm"), dim)?;
            Some((key, value, norm, Norms::unit(loader, dim)?))
        } else {
            None
        };
        Ok(KeptAttention {
            spec: Attention { heads: count, shape, scale: 1.0, ..Attention::default() },
            rope: usize::from(sees != Sees::Past),
            query: Linear::load(loader, &name("attn_q"), count * dim, width)?,
            query_norm: Norms::Rms.load(loader, &name("attn_q_norm"), dim)?,
            own,
            source,
            output: Linear::load(loader, &name("attn_output"), width, count * dim)?,
        })
    }
}

impl Mixer for KeptAttention {
    fn shape(&self) -> LayerShape {
        if self.own.is_some() { self.spec.shape } else { LayerShape::default() }
    }

    fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, turned: &Turned) -> Result<Act> {
        let dim = self.spec.shape.key_dim;
        let turn = |pass: &mut Pass<'_>, act: Act, norm: &Norm| {
            pass.backend.norm_in_place(norm, act.split(dim))?;
            turned.get(self.rope).map_or(Ok(()), |turns| pass.backend.rope(turns, dim, act))
        };
        let q = self.query.forward(pass, x)?;
        turn(pass, q, &self.query_norm)?;
        let heads = match &self.own {
            Some((key, value, key_norm, value_norm)) => {
                let k = key.forward(pass, x)?;
                let v = match value {
                    Some(value) => value.forward(pass, x)?,
                    None => pass.backend.columns(&[(k, 0..k.width)])?,
                };
                turn(pass, k, key_norm)?;
                pass.backend.norm_in_place(value_norm, v.split(dim))?;
                pass.backend.attention(&self.spec, pass.cache, layer, pass.start, q, k, v)?
            }
            None => pass.backend.attend_again(&self.spec, pass.cache, self.source, pass.start, q)?,
        };
        self.output.forward(pass, heads)
    }
}
