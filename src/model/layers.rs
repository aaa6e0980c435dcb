//! The parts that architectures are made of: products with a bias, attention, feed-forward networks, blocks.
#![forbid(unsafe_code)]

use super::Network;
use super::loader::Loader;
use super::pass::Pass;
use super::rope::Rope;
use crate::backend::{Act, Activation, Attention, LayerShape, Matrix, Norm, Sees, Turns};
use crate::{Error, Result};

/// A matrix and, where the model has one, a bias.
pub(crate) struct Linear {
    weights: Matrix,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// `name.weight` of `rows` outputs and `len` inputs, and `name.bias` where it is there.
    pub fn load(loader: &Loader<'_>, name: &str, rows: usize, len: usize) -> Result<Self> {
        Self::load_rows(loader, name, rows, len, 0..rows)
    }

    /// A part of a fused matrix: `rows` of its `all` outputs.
    pub fn load_rows(
        loader: &Loader<'_>,
        name: &str,
        all: usize,
        len: usize,
        rows: std::ops::Range<usize>,
    ) -> Result<Self> {
        let bias = loader.optional_vector(&format!("{name}.bias"), all)?;
        let bias = bias.map(|bias| bias.get(rows.clone()).unwrap_or_default().to_vec());
        Ok(Linear { weights: loader.matrix_rows(&format!("{name}.weight"), all, len, rows)?, bias })
    }

    /// The matrix `output`, where the model has one of its own rather than the embedding again.
    pub fn load_output(loader: &Loader<'_>, vocabulary: usize, width: usize) -> Result<Option<Self>> {
        let own = loader.has("output.weight");
        own.then(|| Linear::load(loader, "output", vocabulary, width)).transpose()
    }

    pub fn forward(&self, pass: &mut Pass<'_>, x: Act) -> Result<Act> {
        pass.backend.linear(&self.weights, self.bias.as_deref(), x)
    }
}

/// The sizes of an attention.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Heads of queries.
    pub count: usize,
    /// Heads of keys and values, and their sizes.
    pub shape: LayerShape,
}

impl Heads {
    /// From `attention.*`, for a model of `width`.
    pub fn load(loader: &Loader<'_>, width: usize) -> Result<Self> {
        let count = loader.size("attention.head_count")?;
        let kv = loader.optional_size("attention.head_count_kv")?.unwrap_or(count);
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
        Ok(Heads { count, shape: LayerShape { heads: kv, key_dim, value_dim, sees: Sees::Past } })
    }
}

/// Causal self-attention of grouped queries.
pub(crate) struct SelfAttention {
    spec: Attention,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    /// Norms of each head's queries and keys.
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
}

impl SelfAttention {
    /// `prefix.attn_{q,k,v,output}`, or the fused `prefix.attn_qkv`, and the norms `prefix.attn_{q,k}_norm` where they
    /// are there.
    pub fn load(loader: &Loader<'_>, prefix: &str, width: usize, heads: Heads) -> Result<Self> {
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
        let norm = |name: &str| {
            let name = format!("{prefix}.{name}");
            loader.has(&format!("{name}.weight")).then(|| loader.rms_norm(&name, shape.key_dim)).transpose()
        };
        let scale = loader.optional_float("attention.scale")?.filter(|&scale| scale != 0.0);
        Ok(SelfAttention {
            spec: Attention {
                heads: count,
                shape,
                scale: scale.unwrap_or(1.0 / libm::sqrtf(shape.key_dim as f32)),
                ..Attention::default()
            },
            query: part("attn_q", 0, queries)?,
            key: part("attn_k", queries, keys)?,
            value: part("attn_v", queries + keys, values)?,
            output: Linear::load(loader, &format!("{prefix}.attn_output"), width, count * shape.value_dim)?,
            query_norm: norm("attn_q_norm")?,
            key_norm: norm("attn_k_norm")?,
        })
    }

    /// `x` `[tokens, width]` to `[tokens, width]`.
    fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, turns: Option<&Turns>) -> Result<Act> {
        let (q, k) = (self.query.forward(pass, x)?, self.key.forward(pass, x)?);
        let v = self.value.forward(pass, x)?;
        let dim = self.spec.shape.key_dim;
        for (act, norm) in [(q, &self.query_norm), (k, &self.key_norm)] {
            if let Some(norm) = norm {
                pass.backend.norm_in_place(norm, act.split(dim))?;
            }
            if let Some(turns) = turns {
                pass.backend.rope(turns, dim, act)?;
            }
        }
        let heads = pass.backend.attention(&self.spec, pass.cache, layer, pass.start, q, k, v)?;
        self.output.forward(pass, heads)
    }
}

/// The feed-forward network: with a gate, `down(activation(gate x) * up x)`, or without, `down(activation(up x))`.
pub(crate) struct FeedForward {
    activation: Activation,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

impl FeedForward {
    /// `prefix.ffn_{gate,up,down}`.
    pub fn gated(loader: &Loader<'_>, prefix: &str, width: usize, activation: Activation) -> Result<Self> {
        let inner = loader.size("feed_forward_length")?;
        let gate = Linear::load(loader, &format!("{prefix}.ffn_gate"), inner, width)?;
        Ok(FeedForward { gate: Some(gate), ..Self::plain(loader, prefix, width, activation)? })
    }

    /// `prefix.ffn_{up,down}`.
    pub fn plain(loader: &Loader<'_>, prefix: &str, width: usize, activation: Activation) -> Result<Self> {
        let inner = loader.size("feed_forward_length")?;
        Ok(FeedForward {
            activation,
            gate: None,
            up: Linear::load(loader, &format!("{prefix}.ffn_up"), inner, width)?,
            down: Linear::load(loader, &format!("{prefix}.ffn_down"), width, inner)?,
        })
    }

    fn forward(&self, pass: &mut Pass<'_>, x: Act) -> Result<Act> {
        let inner = match &self.gate {
            Some(gate) => {
                let (gate, up) = (gate.forward(pass, x)?, self.up.forward(pass, x)?);
                pass.backend.gated(self.activation, gate, up)?;
                gate
            }
            None => {
                let up = self.up.forward(pass, x)?;
                pass.backend.activate(self.activation, up)?;
                up
            }
        };
        self.down.forward(pass, inner)
    }
}

/// One layer with norms before its parts: `x += attention(norm x)`, then `x += feed_forward(norm x)`.
pub(crate) struct Block {
    pub attention_norm: Norm,
    pub attention: SelfAttention,
    pub feed_forward_norm: Norm,
    pub feed_forward: FeedForward,
}

/// The layers of a decoder, and what comes before and after them.
pub(crate) struct Decoder {
    pub embedding: Matrix,
    /// Positions that are learned, not turned.
    pub positions: Option<Matrix>,
    pub rope: Option<Rope>,
    pub blocks: Vec<Block>,
    pub output_norm: Norm,
    /// The output matrix, where it is not the embedding.
    pub output: Option<Linear>,
}

impl Network for Decoder {
    fn vocabulary(&self) -> usize {
        self.embedding.rows
    }

    fn cache_layers(&self) -> Vec<LayerShape> {
        self.blocks.iter().map(|block| block.attention.spec.shape).collect()
    }

    fn most_positions(&self) -> Option<usize> {
        self.positions.as_ref().map(|table| table.rows)
    }

    fn forward(&self, pass: &mut Pass<'_>) -> Result<Option<Act>> {
        let tokens: Vec<usize> = pass.tokens.iter().map(|&token| token as usize).collect();
        let mut x = pass.backend.lookup(&self.embedding, &tokens)?;
        if let Some(table) = &self.positions {
            let positions: Vec<usize> = pass.positions().collect();
            let positions = pass.backend.lookup(table, &positions)?;
            pass.backend.add(x, positions)?;
        }
        let turns = self.rope.as_ref().map(|rope| rope.turns(pass.positions())).transpose()?;
        for (layer, block) in self.blocks.iter().enumerate() {
            pass.begin_layer(layer)?;
            let mark = pass.backend.mark();
            let normed = pass.backend.norm(&block.attention_norm, x)?;
            let mut attended = block.attention.forward(pass, layer, normed, turns.as_ref())?;
            let last = layer + 1 == self.blocks.len();
            if last {
                // What follows the last attention is only needed where logits are wanted.
                if pass.outputs.is_empty() {
                    return Ok(None);
                }
                x = pass.backend.select(x, pass.outputs)?;
                attended = pass.backend.select(attended, pass.outputs)?;
            }
            pass.backend.add(x, attended)?;
            let normed = pass.backend.norm(&block.feed_forward_norm, x)?;
            let fed = block.feed_forward.forward(pass, normed)?;
            pass.backend.add(x, fed)?;
            if !last {
                pass.backend.release(mark);
            }
        }
        pass.backend.norm_in_place(&self.output_norm, x)?;
        match &self.output {
            Some(output) => output.forward(pass, x).map(Some),
            None => pass.backend.linear(&self.embedding, None, x).map(Some),
        }
    }
}
