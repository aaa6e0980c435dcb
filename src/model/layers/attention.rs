//! Self-attention of grouped queries.
#![forbid(unsafe_code)]

use super::decoder::{Mixer, Sizes, Turned};
use super::linear::Linear;
use crate::backend::{Act, Activation, Attention, LayerShape, Map, Norm, Sees};
use crate::model::loader::{Loader, Norms};
use crate::model::pass::Pass;
use crate::{Error, Result};

/// The sizes of an attention.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Heads of queries.
    pub count: usize,
    /// Heads of keys and values, and their sizes.
    pub shape: LayerShape,
}

impl Heads {
    /// From `attention.*`, for layer `layer` of a model of `width`.
    pub fn load(loader: &Loader<'_>, layer: usize, width: usize) -> Result<Self> {
        let count = loader.size_at("attention.head_count", layer)?;
        let kv = loader.optional_size_at("attention.head_count_kv", layer)?.unwrap_or(count);
        if !count.is_multiple_of(kv) {
            let key = loader.key("attention.head_count_kv");
            let found = format!("{kv} for {count} heads");
            return Err(Error::MetadataType { key, expected: "a divisor of the number of heads", found });
        }
        let equal_parts = width / count;
        let key_dim = loader.optional_size("attention.key_length")?.unwrap_or(equal_parts);
        let value_dim = loader.optional_size("attention.value_length")?.unwrap_or(equal_parts);
        let too_large = |dim: usize| count.checked_mul(dim).is_none_or(|values| values > 1 << 24);
        if key_dim == 0 || value_dim == 0 || too_large(key_dim) || too_large(value_dim) {
            let key = loader.key("attention.key_length");
            let found = format!("{count} heads of {key_dim} and {value_dim}");
            return Err(Error::MetadataType { key, expected: "heads of a sensible size", found });
        }
        let sees = if loader.causal()? { Sees::Past } else { Sees::All };
        Ok(Heads { count, shape: LayerShape { heads: kv, key_dim, value_dim, sees } })
    }

    /// As [`Heads::load`], for encoders, whatever the file says: queries see all positions.
    pub fn of_encoder(loader: &Loader<'_>, layer: usize, width: usize) -> Result<Self> {
        let heads = Self::load(loader, layer, width)?;
        Ok(Heads { shape: LayerShape { sees: Sees::All, ..heads.shape }, ..heads })
    }

    /// Those of the first layer that has attention.
    pub fn first(loader: &Loader<'_>, sizes: Sizes) -> Result<Option<Self>> {
        for layer in 0..sizes.layers {
            if !loader.recurrent(layer)? {
                return Self::load(loader, layer, sizes.width).map(Some);
            }
        }
        Ok(None)
    }
}

/// Queries that grow with their position (Meta 2025, Llama 4): by `ln(floor((position + offset) / floor) + 1) scale + 1`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Temperature {
    pub scale: f32,
    /// Positions for which the factor is the same.
    pub floor: usize,
    pub offset: f32,
}

impl Temperature {
    fn at(self, position: usize) -> f32 {
        let step = libm::floorf((position as f32 + self.offset) / self.floor as f32);
        libm::logf(step + 1.0) * self.scale + 1.0
    }
}

/// Self-attention of grouped queries. The public fields are what architectures change after [`SelfAttention::load`].
pub(crate) struct SelfAttention {
    pub spec: Attention,
    /// Which of the decoder's angles turn queries and keys; `None`: not turned at all.
    pub rope: Option<usize>,
    /// Whether the norms of queries and keys come after the turn.
    pub turn_first: bool,
    pub temperature: Option<Temperature>,
    /// The bound of queries', keys' and values' magnitudes.
    pub clamp: Option<f32>,
    pub query: Linear,
    /// Whether each head's query is followed by a gate: the attention is multiplied by its sigmoid.
    pub gated_query: bool,
    pub key: Linear,
    pub value: Linear,
    pub output: Linear,
    /// Norms of queries and keys: of each head's, or of all heads' together.
    pub query_norm: Option<Norm>,
    pub key_norm: Option<Norm>,
    /// The norm before the output matrix.
    pub output_norm: Option<Norm>,
}

impl SelfAttention {
    /// As [`SelfAttention::load`], where each head's rows of `attn_q` are its query's and then its gate's.
    pub fn load_gated(loader: &Loader<'_>, layer: usize, width: usize, heads: Heads) -> Result<Self> {
        let query = |rows| Linear::load(loader, &format!("blk.{layer}.attn_q"), 2 * rows, width);
        Ok(SelfAttention { gated_query: true, ..Self::load_with(loader, layer, width, heads, query)? })
    }

    /// `attn_{q,k,v,output}` of a layer, or the fused `attn_qkv`, and the root mean square norms `attn_{q,k}_norm` where
    /// they are there. Queries and keys turn by the decoder's first angles.
    pub fn load(loader: &Loader<'_>, layer: usize, width: usize, heads: Heads) -> Result<Self> {
        let query = |rows| {
            let fused = format!("blk.{layer}.attn_qkv");
            if loader.has(&format!("{fused}.weight")) {
                let (keys, values) = (heads.shape.key_dim, heads.shape.value_dim);
                let all = rows + heads.shape.heads * (keys + values);
                Linear::load_rows(loader, &fused, all, width, 0..rows)
            } else {
                Linear::load(loader, &format!("blk.{layer}.attn_q"), rows, width)
            }
        };
        Self::load_with(loader, layer, width, heads, query)
    }

    fn load_with(
        loader: &Loader<'_>,
        layer: usize,
        width: usize,
        heads: Heads,
        query: impl FnOnce(usize) -> Result<Linear>,
    ) -> Result<Self> {
        let prefix = format!("blk.{layer}");
        let Heads { count, shape } = heads;
        let sizes = [count * shape.key_dim, shape.heads * shape.key_dim, shape.heads * shape.value_dim];
        let [queries, keys, values] = sizes;
        let fused = format!("{prefix}.attn_qkv");
        let part = |name: &str, start: usize, len: usize| {
            if loader.has(&format!("{fused}.weight")) {
                Linear::load_rows(loader, &fused, sizes.iter().sum(), width, start..start + len)
            } else {
                Linear::load(loader, &format!("{prefix}.{name}"), len, width)
            }
        };
        let norm = |name: &str, all: usize| {
            let name = format!("{prefix}.{name}");
            let found = loader.len(&format!("{name}.weight"));
            let len = if found == Some(all) { all } else { shape.key_dim };
            found.map(|_| Norms::Rms.load(loader, &name, len)).transpose()
        };
        let scale = loader.optional_float("attention.scale")?.filter(|&scale| scale != 0.0);
        Ok(SelfAttention {
            spec: Attention {
                heads: count,
                shape,
                scale: scale.unwrap_or(1.0 / libm::sqrtf(shape.key_dim as f32)),
                ..Attention::default()
            },
            rope: Some(0),
            turn_first: false,
            temperature: None,
            clamp: None,
            query: query(queries)?,
            gated_query: false,
            key: part("attn_k", queries, keys)?,
            value: part("attn_v", queries + keys, values)?,
            output: Linear::load(loader, &format!("{prefix}.attn_output"), width, count * shape.value_dim)?,
            query_norm: norm("attn_q_norm", queries)?,
            key_norm: norm("attn_k_norm", keys)?,
            output_norm: None,
        })
    }

    /// Lets queries see no more than a window, where there is one; in an encoder half of it lies on each side.
    pub fn see_window(&mut self, window: Option<usize>) {
        let sees = &mut self.spec.shape.sees;
        *sees = match (sees.both_sides(), window) {
            (false, window) => window.map_or(Sees::Past, Sees::Last),
            (true, window) => window.map_or(Sees::All, |window| Sees::Near(window / 2)),
        };
    }

    /// As [`SelfAttention::see_window`], with the angles of [`crate::model::rope::Rope::load_with_windows`]: a layer with a
    /// window turns by the decoder's second ones.
    pub fn turn_in_window(&mut self, window: Option<usize>) {
        self.see_window(window);
        self.rope = Some(usize::from(window.is_some()));
    }

    /// Lets scores fall with the distance instead of turning queries and keys (ALiBi: Press, Smith and Lewis 2022); the
    /// slopes are powers of two from `2^-bias` up.
    pub fn fall_with_distance(&mut self, bias: f32) {
        let count = self.spec.heads;
        // The slopes of the next smaller power of two, and between them those of the one above.
        let below = if count.is_power_of_two() { count } else { count.next_power_of_two() / 2 };
        let slope = |head: usize| match head.checked_sub(below) {
            None => libm::exp2f(-bias * (head + 1) as f32 / below as f32),
            Some(head) => libm::exp2f(-bias / 2.0 * (2 * head + 1) as f32 / below as f32),
        };
        self.spec.slopes = (0..count).map(slope).collect::<Vec<_>>().into();
        self.rope = None;
    }

    /// Refuses a model without norms of queries and keys.
    pub fn need_norms(self, loader: &Loader<'_>, layer: usize) -> Result<Self> {
        match (&self.query_norm, &self.key_norm) {
            (Some(_), Some(_)) => Ok(self),
            (None, _) => Err(loader.missing(format!("blk.{layer}.attn_q_norm.weight"))),
            (_, None) => Err(loader.missing(format!("blk.{layer}.attn_k_norm.weight"))),
        }
    }

    /// The norms and the turn of queries or keys, in place.
    fn prepare(&self, pass: &mut Pass<'_>, x: Act, norm: Option<&Norm>, turned: &Turned) -> Result<()> {
        let dim = self.spec.shape.key_dim;
        let turns = self.rope.and_then(|rope| turned.get(rope));
        if let (true, Some(turns)) = (self.turn_first, turns) {
            pass.backend.rope(turns, dim, x)?;
        }
        if let Some(norm) = norm {
            pass.backend.norm_in_place(norm, x.split(norm.len()))?;
        }
        if let (false, Some(turns)) = (self.turn_first, turns) {
            pass.backend.rope(turns, dim, x)?;
        }
        Ok(())
    }
}

impl Mixer for SelfAttention {
    fn shape(&self) -> LayerShape {
        self.spec.shape
    }

    fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, turned: &Turned) -> Result<Act> {
        let (mut q, k) = (self.query.forward(pass, x)?, self.key.forward(pass, x)?);
        let mut gate = None;
        if self.gated_query {
            let (dim, both) = (self.spec.shape.key_dim, q.split(2 * self.spec.shape.key_dim));
            gate = Some(pass.backend.columns(&[(both, dim..2 * dim)])?.split(q.width / 2));
            q = pass.backend.columns(&[(both, 0..dim)])?.split(q.width / 2);
        }
        let v = self.value.forward(pass, x)?;
        if let Some(bound) = self.clamp {
            for act in [q, k, v] {
                pass.backend.map(Map::Clamp(bound), act)?;
            }
        }
        self.prepare(pass, q, self.query_norm.as_ref(), turned)?;
        self.prepare(pass, k, self.key_norm.as_ref(), turned)?;
        if let Some(temperature) = self.temperature {
            let factors: Vec<f32> = pass.positions().map(|position| temperature.at(position)).collect();
            pass.backend.weigh(&factors, q)?;
        }
        let mut heads = pass.backend.attention(&self.spec, pass.cache, layer, pass.start, q, k, v)?;
        if let Some(gate) = gate {
            pass.backend.gated(Activation::Sigmoid, gate, heads)?;
            heads = gate;
        }
        if let Some(norm) = &self.output_norm {
            pass.backend.norm_in_place(norm, heads)?;
        }
        self.output.forward(pass, heads)
    }
}
