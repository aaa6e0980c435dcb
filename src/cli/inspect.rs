//! `grist inspect`: what a file holds, whether or not it can be run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use gristmill::embed::Pooling;
use gristmill::generate::Evidence;
use gristmill::gguf::{Array, Metadata, Value};
use gristmill::model::file::ModelFile;
use gristmill::text::Tokenizer;
use gristmill::text::template::ChatTemplate;
use gristmill::{CacheType, CacheTypes, Model};
use serde_json::{Map, Value as Json, json};

use super::Done;
use super::args::Common;
use super::model::Source;
use super::output::{Out, count, size};

/// Describe a model's file: metadata, tensor types, memory, tokenizer, base or instruct
#[derive(Args)]
pub struct Inspect {
    /// A .gguf file, with weights or with a vocabulary only [default: the built-in model]
    model: Option<PathBuf>,
    /// List the tensors
    #[arg(long)]
    tensors: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Inspect, common: &Common) -> Done {
    let source = Source::new(&args.model);
    let file = source.file()?;
    let about = About::new(&file, source.model(common), common);
    let mut out = Out::new();
    if args.json {
        let mut json = about.json();
        if let Some(json) = json.as_object_mut().filter(|_| args.tensors) {
            json.insert("tensors".into(), tensors_json(&file));
        }
        return out.text(&format!("{json:#}\n"));
    }
    about.print(&mut out)?;
    if args.tensors {
        print_tensors(&file, &mut out)?;
    }
    Ok(())
}

/// Weights of one type, or of all.
#[derive(Clone, Copy, Default)]
struct Amount {
    tensors: u64,
    weights: u64,
    bytes: u64,
}

impl Amount {
    fn add(&mut self, weights: u64, bytes: u64) {
        self.tensors += 1;
        self.weights = self.weights.saturating_add(weights);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// `None` where there are no weights.
    fn bits_per_weight(&self) -> Option<f64> {
        (self.weights > 0).then(|| self.bytes as f64 * 8.0 / self.weights as f64)
    }

    fn json(&self) -> Map<String, Json> {
        let json = json!({
            "tensors": self.tensors,
            "weights": self.weights,
            "bytes": self.bytes,
            "bits_per_weight": self.bits_per_weight(),
        });
        match json {
            Json::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

/// What is known of a file.
struct About<'a> {
    file: &'a ModelFile,
    architecture: Option<&'a str>,
    /// Why the model cannot be run.
    refusal: Option<String>,
    total: Amount,
    types: BTreeMap<&'static str, Amount>,
    tokenizer: Result<Tokenizer, String>,
    /// The vocabulary's size, by tokenizer or table.
    vocabulary: Option<usize>,
    /// `None` without a template; else whether it compiles.
    template: Option<Result<(), String>>,
    evidence: Evidence,
    /// Whether it is a model for embeddings alone.
    encoder: bool,
    /// How its tokens' vectors become one, where the file says so.
    pooling: Option<&'static str>,
    /// Tokens, precision and bytes of a full cache.
    cache: Option<(usize, CacheTypes, usize)>,
}

impl<'a> About<'a> {
    fn new(file: &'a ModelFile, model: Done<Model>, common: &Common) -> Self {
        let metadata = file.metadata();
        let mut total = Amount::default();
        let mut types: BTreeMap<&'static str, Amount> = BTreeMap::new();
        for tensor in file.tensors() {
            let (weights, bytes) = (tensor.info.elements() as u64, tensor.info.bytes());
            total.add(weights, bytes);
            types.entry(tensor.info.ty.name()).or_default().add(weights, bytes);
        }
        let tokenizer =
            Tokenizer::with_options(metadata, &common.tokenizer()).map_err(|error| error.to_string());
        let tokens = || metadata.strings("tokenizer.ggml.tokens").ok().flatten().map(|tokens| tokens.len());
        let evidence = Evidence::from_metadata(metadata);
        let template = text(metadata, "tokenizer.chat_template").filter(|_| evidence.template);
        let template =
            template.map(|source| ChatTemplate::new(source).map(drop).map_err(|error| error.to_string()));
        let ty = common.cache(CacheType::F16);
        let cache = model.as_ref().ok().and_then(|model| {
            let tokens = common.ctx.map(|ctx| ctx as usize).or(model.trained_context())?;
            Some((tokens, ty, model.cache_bytes(ty, tokens)))
        });
        let runs = model.as_ref().ok();
        About {
            file,
            encoder: runs.is_some_and(Model::is_encoder),
            pooling: runs.and_then(|model| model.pooling().ok().flatten()).map(Pooling::name),
            architecture: text(metadata, "general.architecture"),
            refusal: model.err().map(|failure| failure.to_string()),
            total,
            types,
            vocabulary: tokenizer.as_ref().ok().map(Tokenizer::vocab_len).or_else(tokens),
            tokenizer,
            template,
            evidence,
            cache,
        }
    }

    /// A value under the architecture's name.
    fn value(&self, key: &str) -> Option<&Value> {
        self.file.metadata().get(&format!("{}.{key}", self.architecture?))
    }

    /// The figures of the shape: what people call them, and their keys.
    const SHAPE: [(&'static str, &'static str); 6] = [
        ("layers", "block_count"),
        ("width", "embedding_length"),
        ("feed_forward", "feed_forward_length"),
        ("heads", "attention.head_count"),
        ("kv_heads", "attention.head_count_kv"),
        ("context", "context_length"),
    ];

    fn print(&self, out: &mut Out) -> Done {
        let mut row = |name: &str, what: &str| out.line(format_args!("{name:<13} {what}"));
        let header = self.file.header();
        row("name", self.evidence.name.as_deref().unwrap_or("none"))?;
        let path = self.file.path().map(|path| path.display().to_string());
        row("file", path.as_deref().unwrap_or("built into the program"))?;
        row("format", &format!("GGUF {}, {} part(s)", header.version, self.file.parts().len()))?;
        row("architecture", self.architecture.unwrap_or("none"))?;
        match &self.refusal {
            None => row("runs", "yes")?,
            Some(why) => row("runs", &format!("no: {why}"))?,
        }
        row("parameters", &format!("{} ({})", count(self.total.weights), self.total.weights))?;
        let shape = Self::SHAPE.iter().filter_map(|(name, key)| Some((*name, self.value(key)?)));
        for (name, value) in shape {
            row(&name.replace('_', " "), &value.to_string())?;
        }
        row("vocabulary", &self.vocabulary.map_or_else(|| "none".to_owned(), |len| len.to_string()))?;
        match &self.tokenizer {
            Ok(tokenizer) => {
                let explanation = tokenizer.explain().to_string();
                let mut lines = explanation.lines();
                row("tokenizer", lines.next().unwrap_or_default().trim_start_matches("tokenizer "))?;
                lines.try_for_each(|line| row("", line))?;
            }
            Err(why) => row("tokenizer", &format!("none that can be used: {why}"))?,
        }
        for (index, (name, amount)) in self.types.iter().enumerate() {
            row(if index == 0 { "tensors" } else { "" }, &print_amount(name, amount))?;
        }
        row(if self.types.is_empty() { "tensors" } else { "" }, &print_amount("all", &self.total))?;
        let file = self.file.file_bytes();
        match self.cache {
            Some((tokens, ty, cache)) => row(
                "memory",
                &format!(
                    "{}: file {} + cache {} ({tokens} tokens, {})",
                    size(file.saturating_add(cache as u64)),
                    size(file),
                    size(cache as u64),
                    cache_name(ty),
                ),
            )?,
            None => row("memory", &format!("file {}", size(file)))?,
        }
        row(
            "template",
            &match &self.template {
                None => "none".to_owned(),
                Some(Ok(())) => "yes, and it compiles".to_owned(),
                Some(Err(why)) => format!("yes, but: {why}"),
            },
        )?;
        if self.encoder {
            row(
                "kind",
                &format!("encoder, for embeddings (pooling: {})", self.pooling.unwrap_or("not named")),
            )?;
        } else {
            let kind = if self.evidence.is_instruct() { "instruct" } else { "base" };
            row("kind", &format!("{kind} ({})", self.evidence))?;
        }
        out.line(format_args!("\nmetadata"))?;
        for (key, value) in self.file.metadata().iter() {
            out.line(format_args!("  {key} = {}", shown(value)))?;
        }
        Ok(())
    }

    fn json(&self) -> Json {
        let types: Vec<Json> = self
            .types
            .iter()
            .map(|(name, amount)| {
                let mut json = Map::from_iter([("type".to_owned(), Json::from(*name))]);
                json.extend(amount.json());
                Json::Object(json)
            })
            .collect();
        let mut json = json!({
            "name": self.evidence.name,
            "file": self.file.path().map(|path| path.to_string_lossy()),
            "gguf_version": self.file.header().version,
            "parts": self.file.parts().len(),
            "architecture": self.architecture,
            "runs": self.refusal.is_none(),
            "refusal": self.refusal,
            "parameters": self.total.weights,
        });
        let tokenizer = match &self.tokenizer {
            Ok(tokenizer) => {
                let explained = tokenizer.explain();
                json!({
                    "model": explained.model,
                    "kind": format!("{:?}", explained.kind),
                    "pre": explained.pre.map(|(name, _)| name),
                    "add_bos": explained.bos.add,
                    "bos": explained.bos.to_string(),
                    "add_eos": explained.add_eos,
                })
            }
            Err(why) => json!({ "error": why }),
        };
        let file = self.file.file_bytes();
        let memory = match self.cache {
            Some((tokens, ty, cache)) => json!({
                "file_bytes": file,
                "cache_bytes": cache,
                "cache_tokens": tokens,
                "cache_type": cache_name(ty),
                "total_bytes": file.saturating_add(cache as u64),
            }),
            None => json!({ "file_bytes": file }),
        };
        let metadata = self.file.metadata().iter().map(|(key, value)| (key.to_owned(), value_json(value)));
        if let Some(json) = json.as_object_mut() {
            let shape = Self::SHAPE.iter().map(|(name, key)| (*name, self.value(key).map(value_json)));
            json.extend(shape.map(|(name, value)| (name.to_owned(), value.unwrap_or_default())));
            json.extend([
                ("vocabulary".to_owned(), json!(self.vocabulary)),
                ("tokenizer".to_owned(), tokenizer),
                ("types".to_owned(), Json::Array(types)),
                ("total".to_owned(), Json::Object(self.total.json())),
                ("memory".to_owned(), memory),
                ("template".to_owned(), json!(self.template.is_some())),
                ("template_compiles".to_owned(), json!(self.template.as_ref().map(Result::is_ok))),
                ("encoder".to_owned(), json!(self.encoder)),
                ("pooling".to_owned(), json!(self.pooling)),
                ("instruct".to_owned(), json!(self.evidence.is_instruct())),
                (
                    "evidence".to_owned(),
                    json!({
                        "template": self.evidence.template,
                        "end_of_turn": self.evidence.end_of_turn,
                        "name": self.evidence.name,
                    }),
                ),
                ("metadata".to_owned(), Json::Object(metadata.collect())),
            ]);
        }
        json
    }
}

fn text<'a>(metadata: &'a Metadata, key: &str) -> Option<&'a str> {
    metadata.str(key).ok().flatten()
}

pub fn cache_name(types: CacheTypes) -> String {
    match types {
        CacheTypes { keys, values } if keys == values => keys.to_string(),
        CacheTypes { keys, values } => format!("{keys} and {values}"),
    }
}

fn print_amount(name: &str, amount: &Amount) -> String {
    let bits = amount.bits_per_weight().map_or_else(|| "none".to_owned(), |bits| format!("{bits:.3}"));
    format!(
        "{name:<8} {:>5} tensors {:>10} weights {:>11} {bits:>7} bits per weight",
        amount.tensors,
        count(amount.weights),
        size(amount.bytes),
    )
}

/// A metadata value on one line: the beginning of what is long, and how long it is.
fn shown(value: &Value) -> String {
    const SHOWN: usize = 100;
    let text = value.to_string();
    let Some((at, _)) = text.char_indices().nth(SHOWN) else { return text };
    let start = text.get(..at).unwrap_or_default();
    match value {
        Value::Array(array) => format!("{start} ... {} in all", array.len()),
        Value::String(bytes) => format!("{start} ... {} bytes in all", bytes.len()),
        _ => text,
    }
}

/// A metadata value; long arrays are told by their kind and length only.
fn value_json(value: &Value) -> Json {
    const SHOWN: usize = 64;
    match value {
        Value::U8(value) => json!(value),
        Value::I8(value) => json!(value),
        Value::U16(value) => json!(value),
        Value::I16(value) => json!(value),
        Value::U32(value) => json!(value),
        Value::I32(value) => json!(value),
        Value::F32(value) => json!(value),
        Value::Bool(value) => json!(value),
        Value::U64(value) => json!(value),
        Value::I64(value) => json!(value),
        Value::F64(value) => json!(value),
        Value::String(bytes) => json!(String::from_utf8_lossy(bytes)),
        Value::Array(array) if array.len() > SHOWN => {
            json!({ "array_of": array.element_ty().to_string(), "length": array.len() })
        }
        Value::Array(array) => array_json(array),
    }
}

fn array_json(array: &Array) -> Json {
    (0..array.len()).filter_map(|index| array.get(index)).map(|value| value_json(&value)).collect()
}

fn print_tensors(file: &ModelFile, out: &mut Out) -> Done {
    let longest = file.tensors().map(|tensor| tensor.info.name.chars().count()).max().unwrap_or(0).min(60);
    out.line(format_args!(
        "\n{:<longest$}  {:<8} {:>11}  shape (row length first)",
        "tensor", "type", "bytes"
    ))?;
    for tensor in file.tensors() {
        let info = tensor.info;
        out.line(format_args!(
            "{:<longest$}  {:<8} {:>11}  {}",
            info.name,
            info.ty.name(),
            info.bytes(),
            info.shape_text(),
        ))?;
    }
    Ok(())
}

fn tensors_json(file: &ModelFile) -> Json {
    let tensor = |info: &gristmill::gguf::TensorInfo| {
        json!({
            "name": info.name,
            "type": info.ty.name(),
            "shape": info.shape(),
            "bytes": info.bytes(),
            "offset": info.range.start,
        })
    };
    file.tensors().map(|view| tensor(view.info)).collect()
}
