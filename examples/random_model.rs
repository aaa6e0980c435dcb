//! Writes a model with random weights, of any Llama's or Qwen 3's shape and any type, to measure speed with:
//! `cargo run --release --example random_model -- [--arch llama|qwen3] [--layers 16] [--width 2048] [--heads 32]
//!  [--kv-heads 8] [--head-dim N] [--ffn 8192] [--vocab 128256] [--type q4_K] [--output-type q6_K] OUT.gguf`
//!
//! The defaults are Llama 3.2 1B's shape. The embedding, which is the output too, is of `--output-type`; without it, of
//! `--type`. The same arguments give the same file. The tokenizer knows bytes alone; the other tokens are never used.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example says what it wrote, or why not")]

#[path = "../benches/kernels/random.rs"]
mod random;

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::process::ExitCode;

use gristmill::GgmlType;
use gristmill::gguf::{DataWriter, Metadata, Strings, Writer};
use random::Random;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Weights that are made once; tensors repeat them from random places on.
const POOL: usize = 1 << 18;

/// The kinds of tokens in `tokenizer.ggml.token_type`.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

struct Shape {
    architecture: String,
    layers: usize,
    width: usize,
    heads: usize,
    kv_heads: usize,
    /// 0: the width, divided by the heads.
    head_dim: usize,
    ffn: usize,
    vocabulary: usize,
    ty: GgmlType,
    output_ty: Option<GgmlType>,
    out: Option<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("random_model: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let shape = Shape::parse(std::env::args().skip(1))?;
    let out = shape.out.as_deref().ok_or("expected the name of a file to write, found none")?;
    let tensors = shape.tensors();
    let mut writer = Writer::new(shape.metadata())?;
    let mut random = Random(1);
    let mut pools: Vec<(GgmlType, Vec<u8>)> = Vec::new();
    for (name, sizes, ty) in &tensors {
        writer.tensor(name, sizes, *ty)?;
        if sizes.len() > 1 && !pools.iter().any(|(pooled, _)| pooled == ty) {
            pools.push((*ty, pool(*ty, &mut random)?));
        }
    }
    let mut data = writer.start(BufWriter::new(File::create(out)?))?;
    let mut weights = 0;
    for (name, sizes, ty) in &tensors {
        let count = sizes.iter().product::<usize>();
        weights += count;
        if sizes.len() == 1 {
            // Norms' weights are near 1.
            let values = (0..count).flat_map(|_| (1.0 + 0.1 * random.unit()).to_le_bytes());
            data.write(name, &values.collect::<Vec<u8>>())?;
            continue;
        }
        let pool = pools.iter().find(|(pooled, _)| pooled == ty).map_or(&[][..], |(_, pool)| pool);
        let bytes = ty.row_bytes(count).ok_or_else(|| format!("{name}: too large"))?;
        write_from(&mut data, name, bytes, pool, ty.block_bytes(), &mut random)?;
    }
    data.finish()?;
    let bytes = File::open(out)?.metadata()?.len();
    println!("{out}: {:.1} million weights, {:.1} MB", weights as f64 / 1e6, bytes as f64 / 1e6);
    Ok(())
}

/// Blocks of random bits that are sensible weights.
fn pool(ty: GgmlType, random: &mut Random) -> Result<Vec<u8>> {
    let mut pool = Vec::new();
    for _ in 0..POOL / ty.block_len() {
        pool.extend(
            random.block(ty).ok_or_else(|| format!("expected a type that weights have, found {ty}"))?,
        );
    }
    Ok(pool)
}

/// Writes so many bytes of the pool, each run of them from a random block on.
fn write_from(
    data: &mut DataWriter<BufWriter<File>>,
    name: &str,
    mut bytes: usize,
    pool: &[u8],
    block_bytes: usize,
    random: &mut Random,
) -> Result<()> {
    let blocks = (pool.len() / block_bytes).max(1) as u64;
    while bytes > 0 {
        let begin = (random.next() % blocks) as usize * block_bytes;
        let run = pool.get(begin..).unwrap_or_default();
        let run = run.get(..bytes).unwrap_or(run);
        data.write(name, run)?;
        bytes -= run.len();
    }
    Ok(())
}

impl Shape {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Shape> {
        let mut shape = Shape {
            architecture: "llama".into(),
            layers: 16,
            width: 2048,
            heads: 32,
            kv_heads: 8,
            head_dim: 0,
            ffn: 8192,
            vocabulary: 128_256,
            ty: GgmlType::Q4_K,
            output_ty: None,
            out: None,
        };
        while let Some(arg) = args.next() {
            if !arg.starts_with("--") {
                shape.out = Some(arg);
                continue;
            }
            let value = args.next().ok_or_else(|| format!("expected a value after {arg}, found none"))?;
            let number = || value.parse::<usize>().ok().filter(|&number| number > 0);
            let number =
                || number().ok_or_else(|| format!("{arg}: expected a number above 0, found {value}"));
            let ty = || {
                GgmlType::from_name(&value)
                    .ok_or_else(|| format!("{arg}: expected a type such as q4_K, found {value}"))
            };
            match arg.as_str() {
                "--arch" => shape.architecture.clone_from(&value),
                "--layers" => shape.layers = number()?,
                "--width" => shape.width = number()?,
                "--heads" => shape.heads = number()?,
                "--kv-heads" => shape.kv_heads = number()?,
                "--head-dim" => shape.head_dim = number()?,
                "--ffn" => shape.ffn = number()?,
                "--vocab" => shape.vocabulary = number()?,
                "--type" => shape.ty = ty()?,
                "--output-type" => shape.output_ty = Some(ty()?),
                _ => {
                    return Err(
                        format!("expected a flag of the first lines of the source, found {arg}").into()
                    );
                }
            }
        }
        if !["llama", "qwen3"].contains(&shape.architecture.as_str()) {
            return Err(format!("--arch: expected llama or qwen3, found {}", shape.architecture).into());
        }
        if !shape.heads.is_multiple_of(shape.kv_heads) {
            return Err("--heads: expected a multiple of --kv-heads".into());
        }
        if shape.head_dim == 0 {
            shape.head_dim = shape.width / shape.heads;
        }
        if shape.vocabulary < 259 {
            return Err(format!("--vocab: expected 259 or more, found {}", shape.vocabulary).into());
        }
        Ok(shape)
    }

    fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new();
        let key = |name: &str| format!("{}.{name}", self.architecture);
        metadata.set("general.architecture", self.architecture.as_str());
        metadata.set("general.name", format!("random {} {}", self.architecture, self.ty));
        metadata.set(&key("context_length"), 32_768_u32);
        for (name, size) in [
            ("block_count", self.layers),
            ("embedding_length", self.width),
            ("feed_forward_length", self.ffn),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("rope.dimension_count", self.head_dim),
            ("vocab_size", self.vocabulary),
        ] {
            metadata.set(&key(name), size as u32);
        }
        metadata.set(&key("attention.layer_norm_rms_epsilon"), 1e-5_f32);
        metadata.set(&key("rope.freq_base"), 500_000.0_f32);
        // Three specials, the 256 bytes, and names for the rest.
        let mut tokens: Vec<(String, i32)> =
            vec![("<unk>".into(), UNKNOWN), ("<s>".into(), CONTROL), ("</s>".into(), CONTROL)];
        tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), BYTE)));
        tokens.extend((tokens.len()..self.vocabulary).map(|id| (format!("<unused{id}>"), UNUSED)));
        metadata.set("tokenizer.ggml.model", "llama");
        metadata.set(
            "tokenizer.ggml.tokens",
            tokens.iter().map(|(text, _)| text.as_bytes()).collect::<Strings>(),
        );
        metadata.set("tokenizer.ggml.scores", vec![0.0_f32; tokens.len()]);
        metadata.set("tokenizer.ggml.token_type", tokens.iter().map(|&(_, kind)| kind).collect::<Vec<i32>>());
        metadata.set("tokenizer.ggml.unknown_token_id", 0_u32);
        metadata.set("tokenizer.ggml.bos_token_id", 1_u32);
        metadata.set("tokenizer.ggml.eos_token_id", 2_u32);
        metadata
    }

    /// Names, sizes (a row's length first) and types, in the order of the file.
    fn tensors(&self) -> Vec<(String, Vec<usize>, GgmlType)> {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let output_ty = self.output_ty.unwrap_or(self.ty);
        let mut tensors =
            vec![("token_embd.weight".to_owned(), vec![self.width, self.vocabulary], output_ty)];
        for layer in 0..self.layers {
            let mut add = |name: &str, sizes: &[usize]| {
                let ty = if sizes.len() == 1 { GgmlType::F32 } else { self.ty };
                tensors.push((format!("blk.{layer}.{name}.weight"), sizes.to_vec(), ty));
            };
            add("attn_norm", &[self.width]);
            add("attn_q", &[self.width, queries]);
            add("attn_k", &[self.width, keys]);
            add("attn_v", &[self.width, keys]);
            if self.architecture == "qwen3" {
                add("attn_q_norm", &[self.head_dim]);
                add("attn_k_norm", &[self.head_dim]);
            }
            add("attn_output", &[queries, self.width]);
            add("ffn_norm", &[self.width]);
            add("ffn_gate", &[self.width, self.ffn]);
            add("ffn_up", &[self.width, self.ffn]);
            add("ffn_down", &[self.ffn, self.width]);
        }
        tensors.push(("output_norm.weight".to_owned(), vec![self.width], GgmlType::F32));
        tensors
    }
}
