//! Multi-head latent attention (DeepSeek-AI 2024): of each token one short vector is kept, which all heads share as key and
//! value; what makes it the heads' own is applied to queries and results instead.
#![forbid(unsafe_code)]

use super::decoder::{Mixer, Turned};
use super::linear::Linear;
use crate::backend::{Act, Attention, Grouped, LayerShape, Norm, Sees, Slots};
use crate::model::loader::{Loader, Norms};
use crate::model::pass::Pass;
use crate::{Error, Result};

/// A layer of latent attention.
pub(crate) struct LatentAttention {
    spec: Attention,
    /// Values of a query that are turned, and that are not.
    turned: usize,
    plain: usize,
    /// Values of the latent vector.
    latent: usize,
    /// Values of a head's result.
    value: usize,
    /// The first of the two matrices of queries, and the norm between them.
    query_down: Option<(Linear, Norm)>,
    query: Linear,
    /// The latent vector and the turned part of the key.
    key: Linear,
    key_norm: Norm,
    /// From each head's query to the latent vector, and from that to its value.
    into_latent: Grouped,
    out_of_latent: Grouped,
    output: Linear,
}

impl LatentAttention {
    /// `attn_{q_a,q_b,q,kv_a_mqa,k_b,v_b,output}` of a layer. `magnitude` is the factor of scores beside the usual one.
    pub fn load(loader: &Loader<'_>, layer: usize, width: usize, magnitude: f32) -> Result<Self> {
        let name = |name: &str| format!("blk.{layer}.attn_{name}");
        let heads = loader.size("attention.head_count")?;
        let latent = loader.size("attention.kv_lora_rank")?;
        let (key, value) =
            (loader.size("attention.key_length_mla")?, loader.size("attention.value_length_mla")?);
        let turned = loader.size("rope.dimension_count")?;
        let plain =
            key.checked_sub(turned).filter(|&plain| plain > 0).ok_or_else(|| Error::MetadataType {
                key: loader.key("attention.key_length_mla"),
                expected: "longer than the part that turns",
                found: key.to_string(),
            })?;
        if !loader.has(&format!("{}.weight", name("k_b"))) {
            return Err(
                loader.unsupported("latent attention in its older form (convert it again)".to_owned())
            );
        }
        let (query_down, from) = match loader.has(&format!("{}.weight", name("q_a"))) {
            true => {
                let rank = loader.size("attention.q_lora_rank")?;
                let norm = Norms::Rms.load(loader, &name("q_a_norm"), rank)?;
                (Some((Linear::load(loader, &name("q_a"), rank, width)?, norm)), rank)
            }
            false => (None, width),
        };
        let query = if query_down.is_some() { name("q_b") } else { name("q") };
        let grouped = |name: String, rows, len| {
            let weights = loader.experts(&format!("{name}.weight"), heads, rows, len)?;
            Ok::<_, Error>(Grouped { weights, of: rows, first: 0, rows, bias: None })
        };
        Ok(LatentAttention {
            spec: Attention {
                heads,
                shape: LayerShape { heads: 1, key_dim: turned + latent, value_dim: latent, sees: Sees::Past },
                scale: magnitude / libm::sqrtf(key as f32),
                ..Attention::default()
            },
            turned,
            plain,
            latent,
            value,
            query_down,
            query: Linear::load(loader, &query, heads * key, from)?,
            key: Linear::load(loader, &name("kv_a_mqa"), latent + turned, width)?,
            key_norm: Norms::Rms.load(loader, &name("kv_a_norm"), latent)?,
            into_latent: grouped(name("k_b"), latent, plain)?,
            out_of_latent: grouped(name("v_b"), value, latent)?,
            output: Linear::load(loader, &name("output"), width, heads * value)?,
        })
    }

    /// `x` `[tokens * heads, inputs]` times each head's own matrix: `[tokens * heads, outputs]`.
    fn by_head(&self, pass: &mut Pass<'_>, matrices: &Grouped, slots: &Slots, x: Act) -> Result<Act> {
        let sorted = pass.backend.select(x, &slots.tokens)?;
        let y = pass.backend.linear_grouped(matrices, slots, sorted)?;
        pass.backend.select(y, &slots.chosen)
    }
}

/// The rows of all tokens' heads, sorted by head.
fn head_slots(tokens: usize, heads: usize) -> Slots {
    Slots {
        runs: (0..heads).map(|head| (head, head * tokens..(head + 1) * tokens)).collect(),
        tokens: (0..heads).flat_map(|head| (0..tokens).map(move |token| token * heads + head)).collect(),
        weights: Vec::new(),
        chosen: (0..tokens).flat_map(|token| (0..heads).map(move |head| head * tokens + token)).collect(),
        per_token: 1,
        held: None,
    }
}

impl Mixer for LatentAttention {
    fn shape(&self) -> LayerShape {
        self.spec.shape
    }

    fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, turned: &Turned) -> Result<Act> {
        let (heads, tokens) = (self.spec.heads, x.rows);
        let query = match &self.query_down {
            Some((down, norm)) => {
                let short = down.forward(pass, x)?;
                pass.backend.norm_in_place(norm, short)?;
                self.query.forward(pass, short)?
            }
            None => self.query.forward(pass, x)?,
        };
        let query = query.split(self.plain + self.turned);
        let plain = pass.backend.columns(&[(query, 0..self.plain)])?;
        let query_turned = pass.backend.columns(&[(query, self.plain..query.width)])?;
        let key = self.key.forward(pass, x)?;
        let latent = pass.backend.columns(&[(key, 0..self.latent)])?;
        let key_turned = pass.backend.columns(&[(key, self.latent..key.width)])?;
        pass.backend.norm_in_place(&self.key_norm, latent)?;
        if let Some(turns) = turned.first() {
            pass.backend.rope(turns, self.turned, query_turned.split(heads * self.turned))?;
            pass.backend.rope(turns, self.turned, key_turned)?;
        }

        let slots = head_slots(tokens, heads);
        let absorbed = self.by_head(pass, &self.into_latent, &slots, plain)?;
        let q = pass.backend.columns(&[(query_turned, 0..self.turned), (absorbed, 0..self.latent)])?;
        let q = q.split(heads * (self.turned + self.latent));
        let k = pass.backend.columns(&[(key_turned, 0..self.turned), (latent, 0..self.latent)])?;
        let attended = pass.backend.attention(&self.spec, pass.cache, layer, pass.start, q, k, latent)?;
        let values = self.by_head(pass, &self.out_of_latent, &slots, attended.split(self.latent))?;
        self.output.forward(pass, values.split(heads * self.value))
    }
}
