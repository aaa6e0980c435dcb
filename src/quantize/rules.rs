//! Which type each tensor gets: the rules of llama-quantize (`llama-quant.cpp` of llama.cpp, with ggml 0.26).
//!
//! The rules speak of a tensor's part in the model, of the layer it is in or how many of its kind came before, and of a few
//! facts about the model. They are data of another project's making: where one looks odd, it is so there.
#![forbid(unsafe_code)]

use gristmill_kernels::quant::GgmlType;
use regex_automata::meta::Regex;

use super::Options;
use super::mix::Ftype;
use crate::gguf::{Metadata, TensorInfo};
use crate::{Error, Result};

/// A tensor's part, told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    TokenEmbedding,
    Query,
    Value,
    Key,
    QueryKeyValue,
    KeyValueUp,
    AttentionOutput,
    Up,
    Gate,
    Down,
    Output,
    Other,
}

impl Part {
    fn of(name: &str) -> Self {
        const PARTS: [(&str, Part); 9] = [
            ("attn_qkv.weight", Part::QueryKeyValue),
            ("attn_kv_b.weight", Part::KeyValueUp),
            ("attn_v.weight", Part::Value),
            ("attn_k.weight", Part::Key),
            ("attn_q.weight", Part::Query),
            ("attn_output.weight", Part::AttentionOutput),
            ("ffn_up", Part::Up),
            ("ffn_gate", Part::Gate),
            ("ffn_down", Part::Down),
        ];
        match name {
            "output.weight" => Part::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Part::TokenEmbedding,
            _ => PARTS.iter().find(|(inner, _)| name.contains(inner)).map_or(Part::Other, |&(_, part)| part),
        }
    }

    /// Attention values and what holds them: quantized most carefully.
    fn holds_values(self) -> bool {
        matches!(self, Part::Value | Part::QueryKeyValue | Part::KeyValueUp)
    }
}

/// Whether a tensor is one whose type may change.
pub(super) fn may_change(tensor: &TensorInfo, architecture: &str, leave_output: bool) -> bool {
    /// Small or delicate, wherever the name holds one of these.
    const KEPT: [&str; 35] = [
        "_norm.weight",
        "ffn_gate_inp.weight",
        "ffn_gate_tid2eid.weight",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "ssm_conv1d",
        "shortconv.conv.weight",
        "indexer.k_proj.weight",
        "indexer.q_proj.weight",
        "time_mix_first.weight",
        "time_mix_w0.weight",
        "time_mix_w1.weight",
        "time_mix_w2.weight",
        "time_mix_v0.weight",
        "time_mix_v1.weight",
        "time_mix_v2.weight",
        "time_mix_a0.weight",
        "time_mix_a1.weight",
        "time_mix_a2.weight",
        "time_mix_g1.weight",
        "time_mix_g2.weight",
        "time_mix_decay_w1.weight",
        "time_mix_decay_w2.weight",
        "time_mix_lerp_fused.weight",
        "attn_rel_b.weight",
        ".position_embd",
        "sam.pos_embd",
        "sam.neck.",
        "sam.net_",
        ".rel_pos",
        ".patch_embd",
        ".patch_merger",
        "a.rvq.codebook",
        "mm.a.code_embd",
    ];
    /// And of the architecture glm5-next these.
    const KEPT_OF_GLM5_NEXT: [&str; 14] = [
        "hc_",
        "indexer.attn_q_b",
        "indexer.attn_k",
        "indexer.proj",
        "indexer_compressor_gate",
        "indexer_compressor_ape",
        "ssm_f_a.weight",
        "ssm_f_b.weight",
        "ssm_g_a.weight",
        "ssm_g_b.weight",
        "ssm_beta.weight",
        "attn_kv_a_mqa.weight",
        "attn_k_b.weight",
        "attn_v_b.weight",
    ];
    let name = tensor.name.as_str();
    let kept = |names: &[&str]| names.iter().any(|inner| name.contains(inner));
    dims(tensor) >= 2
        && name.ends_with("weight")
        && !(leave_output && name == "output.weight")
        && !matches!(name, "position_embd.weight" | "token_types.weight")
        && !kept(&KEPT)
        && !(architecture == "glm5-next" && kept(&KEPT_OF_GLM5_NEXT))
}

/// Dimensions but those of size 1 at the end.
pub(super) fn dims(tensor: &TensorInfo) -> usize {
    tensor.shape().iter().rposition(|&size| size > 1).map_or(1, |last| last + 1)
}

/// Whether a tensor of this type would be garbage without an importance matrix.
pub(super) fn wants_importance(name: &str, ty: GgmlType, ftype: Ftype) -> bool {
    use GgmlType::*;
    !matches!(Part::of(name), Part::Output | Part::TokenEmbedding)
        && (matches!(ty, IQ3_XXS | IQ2_XXS | IQ2_XS | IQ2_S | IQ1_M | IQ1_S)
            || ty == Q2_K && ftype == Ftype::Q2_K_S)
}

/// The layer that a tensor's name gives.
pub(super) fn layer(name: &str) -> Option<i64> {
    let (number, _) = name.strip_prefix("blk.")?.split_once('.')?;
    number.parse().ok()
}

/// What the rules ask about the model, and how far they have come.
pub(super) struct Rules<'a> {
    options: &'a Options,
    patterns: Vec<(Regex, GgmlType)>,
    architecture: String,
    experts: u32,
    /// Heads that share keys and values.
    sharing: u32,
    is_70b: bool,
    tied: bool,
    layers: i64,
    values: i64,
    values_seen: i64,
    down_seen: i64,
    gate_seen: i64,
    up_seen: i64,
    /// Tensors whose rows do not fit the type that the rules gave them.
    pub fallbacks: usize,
}

/// The first number of a key that may hold one for each layer.
fn first(metadata: &Metadata, key: &str) -> Result<Option<u32>> {
    match metadata.u32(key) {
        Ok(number) => Ok(number),
        Err(error) => match metadata.u32s(key)? {
            Some(numbers) => Ok(numbers.first().copied()),
            None => Err(error),
        },
    }
}

impl<'a> Rules<'a> {
    /// The rules for a model with these metadata and tensors.
    ///
    /// # Errors
    /// [`Error::TensorPattern`], and what is wrong with the metadata.
    pub fn new(options: &'a Options, metadata: &Metadata, tensors: &[&TensorInfo]) -> Result<Self> {
        let architecture = metadata.require::<&str>("general.architecture")?.to_owned();
        let key = |name: &str| format!("{architecture}.{name}");
        let layers = metadata.u32(&key("block_count"))?.unwrap_or(0);
        let heads = first(metadata, &key("attention.head_count"))?.unwrap_or(0);
        let kv_heads = first(metadata, &key("attention.head_count_kv"))?.unwrap_or(heads);
        let experts = metadata.u32(&key("expert_count"))?.unwrap_or(0);
        let is_70b = match architecture.as_str() {
            "llama" => layers == 80 && heads != kv_heads && experts != 8,
            "qwen2" | "deci" | "olmo" => layers == 80,
            "jais2" => layers == 68,
            _ => false,
        };
        let mut patterns = Vec::new();
        for (pattern, ty) in &options.tensor_types {
            let regex = Regex::new(&pattern.to_lowercase()).map_err(|error| Error::TensorPattern {
                pattern: pattern.clone(),
                reason: error.to_string(),
            })?;
            patterns.push((regex, *ty));
        }
        let parts = || tensors.iter().map(|tensor| Part::of(&tensor.name));
        Ok(Self {
            options,
            patterns,
            experts,
            sharing: heads.checked_div(kv_heads).unwrap_or(0),
            is_70b,
            tied: parts().all(|part| part != Part::Output),
            layers: layers.into(),
            values: parts().filter(|part| part.holds_values()).count() as i64,
            values_seen: 0,
            down_seen: 0,
            gate_seen: 0,
            up_seen: 0,
            fallbacks: 0,
            architecture,
        })
    }

    /// The type that a tensor gets. To be asked once for each tensor, in their order.
    ///
    /// # Errors
    /// [`Error::TensorLayer`] where the name of a tensor of a model with experts tells no layer.
    pub fn ty(&mut self, tensor: &TensorInfo) -> Result<GgmlType> {
        let Some(default) = self.options.mix.default_type() else { return Ok(tensor.ty) };
        let part = Part::of(&tensor.name);
        if !may_change(tensor, &self.architecture, self.options.leave_output) {
            return Ok(tensor.ty);
        }
        let named = self.patterns.iter().find(|(pattern, _)| pattern.is_match(tensor.name.as_bytes()));
        if let Some(ty) = self.options.token_embedding_type
            && part == Part::TokenEmbedding
            && !(named.is_some() && tensor.name == "per_layer_token_embd.weight")
        {
            return Ok(ty);
        }
        if let Some(ty) = self.options.output_type
            && part == Part::Output
        {
            return Ok(ty);
        }
        if matches!(default, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16) {
            return Ok(default);
        }
        let ty = match named {
            Some(&(_, ty)) => ty,
            None if self.options.pure => default,
            None => self.ruled(tensor, part, default)?,
        };
        self.fitting(tensor, ty)
    }

    /// A type whose blocks fill the tensor's rows.
    fn fitting(&mut self, tensor: &TensorInfo, ty: GgmlType) -> Result<GgmlType> {
        use GgmlType::*;
        let fits = |ty: GgmlType| tensor.row_len().is_multiple_of(ty.block_len());
        if fits(ty) {
            return Ok(ty);
        }
        self.fallbacks += 1;
        let other = match ty {
            IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S | IQ4_XS => IQ4_NL,
            Q2_0 | Q2_K | Q3_K | TQ1_0 | TQ2_0 => Q4_0,
            Q4_K => Q5_0,
            Q5_K => Q5_1,
            Q6_K => Q8_0,
            _ if ty.block_len() <= 32 => ty,
            _ => {
                let found = tensor.row_len();
                return Err(Error::TensorRow { tensor: tensor.name.clone(), ty, found });
            }
        };
        Ok(if fits(other) { other } else { F16 })
    }

    /// The layer of a tensor: how many of its kind came before; where there are experts, what its name says.
    fn layer_of(&self, tensor: &TensorInfo, seen: i64) -> Result<i64> {
        if self.experts <= 1 {
            return Ok(seen);
        }
        layer(&tensor.name)
            .filter(|layer| (0..self.layers).contains(layer))
            .ok_or_else(|| Error::TensorLayer { tensor: tensor.name.clone(), layers: self.layers as u64 })
    }

    fn ruled(&mut self, tensor: &TensorInfo, part: Part, default: GgmlType) -> Result<GgmlType> {
        use Ftype as F;
        use GgmlType::*;
        let ftype = self.options.mix.0;
        let name = tensor.name.as_str();
        let careful = ["attn_q_a", "attn_q_b", "nextn.eh_proj"].iter().any(|inner| name.contains(inner));
        if self.architecture == "glm5-next" && careful {
            return Ok(Q8_0);
        }
        let falcon = self.architecture == "falcon";
        let low = matches!(ftype, F::IQ2_XXS | F::IQ2_XS | F::IQ2_S | F::IQ2_M | F::IQ1_S | F::IQ1_M);
        let iq2_s_or_m = matches!(ftype, F::IQ2_S | F::IQ2_M);

        if part == Part::Output || self.tied && part == Part::TokenEmbedding {
            return Ok(match self.options.output_type {
                Some(ty) => ty,
                None if ftype == F::MXFP4_MOE => Q8_0,
                None if falcon || !tensor.row_len().is_multiple_of(default.block_len()) => Q8_0,
                None if low || ftype == F::IQ3_XXS => Q5_K,
                None if default != Q8_0 => Q6_K,
                None => default,
            });
        }
        if ftype == F::MXFP4_MOE {
            let expert = matches!(part, Part::Up | Part::Gate | Part::Down);
            let third = tensor.shape().get(2).is_some_and(|&size| size > 1);
            return Ok(if third && (self.architecture != "bailingmoe3" || expert) { MXFP4 } else { Q8_0 });
        }
        if part == Part::TokenEmbedding {
            return Ok(match (self.options.token_embedding_type, ftype) {
                (Some(ty), _) => ty,
                (_, F::IQ2_XXS | F::IQ2_XS | F::IQ1_S | F::IQ1_M) => Q2_K,
                (_, F::IQ2_S | F::IQ2_M | F::IQ3_XXS) => IQ3_S,
                (_, F::TQ1_0 | F::TQ2_0 | F::Q2_0) => Q4_K,
                _ => default,
            });
        }
        if low {
            return Ok(self.ruled_low(part, default, iq2_s_or_m));
        }
        if part.holds_values() {
            let ty = self.ruled_values(default);
            self.values_seen += 1;
            return Ok(ty);
        }
        Ok(match part {
            Part::Key if self.experts == 8 => Q8_0,
            Part::Key | Part::Query if ftype == F::IQ3_XS => IQ3_XXS,
            Part::Key | Part::Query if ftype == F::IQ3_XXS => IQ2_S,
            Part::Down => {
                let layer = self.layer_of(tensor, self.down_seen)?;
                self.down_seen += 1;
                self.ruled_down(layer, default, falcon)
            }
            Part::AttentionOutput => self.ruled_attention_output(default, falcon),
            Part::Gate | Part::Up => {
                let seen = if part == Part::Gate { &mut self.gate_seen } else { &mut self.up_seen };
                let before = *seen;
                *seen += 1;
                let (layer, layers) = (self.layer_of(tensor, before)?, self.layers);
                let inner = layer >= layers / 8 && layer < 7 * layers / 8;
                if ftype == F::IQ3_XS && inner { IQ3_XXS } else { default }
            }
            _ => default,
        })
    }

    /// The mixes of some two bits and less.
    fn ruled_low(&mut self, part: Part, default: GgmlType, iq2_s_or_m: bool) -> GgmlType {
        use Ftype as F;
        use GgmlType::*;
        let better = if iq2_s_or_m { IQ3_S } else { Q2_K };
        match part {
            _ if part.holds_values() => {
                self.values_seen += 1;
                if self.sharing >= 4 || self.experts >= 4 { Q4_K } else { better }
            }
            Part::Key if self.experts == 8 => Q4_K,
            Part::Down => {
                self.down_seen += 1;
                if self.down_seen - 1 < self.layers / 8 { better } else { default }
            }
            Part::AttentionOutput if self.experts == 8 => Q5_K,
            Part::AttentionOutput if iq2_s_or_m => IQ3_S,
            Part::AttentionOutput if matches!(self.options.mix.0, F::IQ1_S | F::IQ1_M) => IQ2_XXS,
            _ => default,
        }
    }

    fn ruled_values(&self, default: GgmlType) -> GgmlType {
        use Ftype as F;
        use GgmlType::*;
        let shared = self.sharing >= 4;
        let seen = self.values_seen;
        let ty = match self.options.mix.0 {
            F::Q2_K => {
                if shared {
                    Q4_K
                } else {
                    Q3_K
                }
            }
            F::Q2_K_S | F::IQ3_XS | F::IQ3_S if shared => Q4_K,
            F::IQ3_XXS if shared => Q4_K,
            F::IQ3_XXS if self.options.imatrix.is_none() => IQ3_S,
            F::IQ3_XXS => IQ3_XXS,
            F::IQ3_M => Q4_K,
            F::Q3_K_M => {
                if seen < 2 {
                    Q5_K
                } else {
                    Q4_K
                }
            }
            F::Q3_K_L => Q5_K,
            F::IQ4_NL | F::IQ4_XS if shared => Q5_K,
            F::Q4_K_M | F::Q5_K_M if more_bits(seen, self.values) => Q6_K,
            F::Q4_K_S if seen < 4 => Q5_K,
            _ => default,
        };
        let ty = if self.is_70b && matches!(ty, Q3_K | Q4_K) { Q5_K } else { ty };
        if self.experts == 8 { Q8_0 } else { ty }
    }

    fn ruled_down(&self, layer: i64, default: GgmlType, falcon: bool) -> GgmlType {
        use Ftype as F;
        use GgmlType::*;
        let layers = self.layers;
        let (eighth, sixteenth) = (layer < layers / 8, layer < layers / 16);
        let more_bits = more_bits(layer, layers);
        let imatrix = self.options.imatrix.is_some();
        match self.options.mix.0 {
            F::Q2_K => Q3_K,
            F::Q2_K_S if eighth => Q4_K,
            F::IQ3_XXS if !imatrix => {
                if eighth {
                    Q4_K
                } else {
                    Q3_K
                }
            }
            F::Q3_K_M if sixteenth => Q5_K,
            F::Q3_K_M if !falcon || more_bits => Q4_K,
            F::Q3_K_M => Q3_K,
            F::IQ3_M if eighth || self.experts == 8 && more_bits => Q4_K,
            F::Q3_K_L => {
                if falcon {
                    Q4_K
                } else {
                    Q5_K
                }
            }
            F::Q4_K_M if falcon && sixteenth => Q6_K,
            F::Q4_K_M if falcon => {
                if more_bits {
                    Q5_K
                } else {
                    Q4_K
                }
            }
            F::Q4_K_M | F::Q5_K_M if more_bits => Q6_K,
            F::IQ4_NL | F::IQ4_XS if eighth && !imatrix => Q5_K,
            F::Q4_K_S if !falcon && eighth => Q5_K,
            F::Q4_0 if imatrix && eighth => Q4_1,
            F::Q5_0 if imatrix && eighth => Q5_1,
            _ => default,
        }
    }

    fn ruled_attention_output(&self, default: GgmlType, falcon: bool) -> GgmlType {
        use Ftype as F;
        use GgmlType::*;
        match self.options.mix.0 {
            F::Q3_K_L if falcon => Q4_K,
            _ if falcon => default,
            F::Q2_K
            | F::IQ3_XS
            | F::IQ3_XXS
            | F::Q3_K_S
            | F::Q3_K_M
            | F::IQ4_NL
            | F::Q4_K_S
            | F::Q4_K_M
            | F::IQ3_S
            | F::IQ3_M
            | F::IQ4_XS
                if self.experts == 8 =>
            {
                Q5_K
            }
            _ if self.experts == 8 => default,
            F::Q2_K => Q3_K,
            F::IQ3_XXS => IQ3_S,
            F::Q3_K_M | F::IQ3_M => Q4_K,
            F::Q3_K_L => Q5_K,
            _ => default,
        }
    }
}

/// The first and the last eighth of the layers, and every third one between.
fn more_bits(layer: i64, layers: i64) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}
