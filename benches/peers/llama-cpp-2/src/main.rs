//! llama.cpp's tokens per second through the crate llama-cpp-2, measured and printed as `llama-bench` does:
//! `bench-llama-cpp-2 -m MODEL.gguf [-p N] [-n N] [-d N] [-t THREADS] [-r RUNS] [-fa auto|on|off]
//!  [-ctk f16|q8_0] [-ctv f16|q8_0] [-o json]`
//!
//! ppN feeds a prompt of N random tokens, tgN feeds N random tokens one by one; both after `-d` tokens that are not
//! timed. Prompts go in batches of 2048 and microbatches of 512, which are llama-bench's own.
#![forbid(unsafe_code)]

use std::error::Error;
use std::num::NonZeroU32;
use std::time::Instant;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use serde_json::{Value as Json, json};

const BATCH: usize = 2048;
const MICROBATCH: u32 = 512;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Settings {
    model: String,
    prompt: usize,
    generate: usize,
    depth: usize,
    threads: i32,
    runs: usize,
    /// llama.cpp's number for on (1), off (0) and as it likes (-1).
    flash: i32,
    /// Types of the cache's keys and values.
    cache: [KvCacheType; 2],
}

fn main() -> Result<()> {
    let settings = Settings::parse(std::env::args().skip(1))?;
    let mut backend = LlamaBackend::init()?;
    backend.void_logs();
    let model = LlamaModel::load_from_file(&backend, &settings.model, &LlamaModelParams::default())?;
    let mut tests = Vec::new();
    for (prompt, generate) in [(settings.prompt, 0), (0, settings.generate)] {
        if prompt + generate > 0 {
            tests.push(measure(&settings, &backend, &model, prompt, generate)?);
        }
    }
    println!("{:#}", Json::from(tests));
    Ok(())
}

impl Settings {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Settings> {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as i32);
        let mut settings = Settings {
            model: String::new(),
            prompt: 512,
            generate: 128,
            depth: 0,
            threads,
            runs: 5,
            flash: -1,
            cache: [KvCacheType::F16; 2],
        };
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("expected a value after {flag}, found none"))?;
            match flag.as_str() {
                "-m" => settings.model = value,
                "-p" => settings.prompt = value.parse()?,
                "-n" => settings.generate = value.parse()?,
                "-d" => settings.depth = value.parse()?,
                "-t" => settings.threads = value.parse()?,
                "-r" => settings.runs = value.parse()?,
                "-fa" => {
                    settings.flash = match value.as_str() {
                        "auto" => -1,
                        "off" | "0" => 0,
                        "on" | "1" => 1,
                        _ => return Err(format!("-fa: expected auto, on or off, found {value}").into()),
                    }
                }
                "-ctk" => settings.cache[0] = cache_type(&value)?,
                "-ctv" => settings.cache[1] = cache_type(&value)?,
                "-o" if value == "json" => {}
                _ => {
                    return Err(format!(
                        "expected -m, -p, -n, -d, -t, -r, -fa, -ctk, -ctv or -o json, found {flag} {value}"
                    )
                    .into());
                }
            }
        }
        match settings.model.is_empty() {
            true => Err("expected -m MODEL.gguf, found none".into()),
            false => Ok(settings),
        }
    }
}

fn cache_type(name: &str) -> Result<KvCacheType> {
    match name {
        "f16" => Ok(KvCacheType::F16),
        "q8_0" => Ok(KvCacheType::Q8_0),
        _ => Err(format!("expected a cache of f16 or q8_0, found {name}").into()),
    }
}

/// One test, as llama-bench's JSON says it.
fn measure(
    settings: &Settings,
    backend: &LlamaBackend,
    model: &LlamaModel,
    prompt: usize,
    generate: usize,
) -> Result<Json> {
    let &Settings { depth, threads, flash, .. } = settings;
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(u32::try_from(depth + prompt + generate)?))
        .with_n_batch(BATCH as u32)
        .with_n_ubatch(MICROBATCH)
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        .with_type_k(settings.cache[0])
        .with_type_v(settings.cache[1])
        .with_flash_attention_policy(flash);
    let mut run = Run { context: model.new_context(backend, params)?, model, random: 1, position: 0 };
    // Warms up.
    run.feed(prompt, BATCH)?;
    run.feed(generate.min(1), 1)?;
    let (mut nanoseconds, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..settings.runs {
        // As llama-bench keeps the state of the depth, from the second run on only what is timed is computed.
        if nanoseconds.is_empty() || !run.rewind(depth)? {
            run.clear();
            run.feed(depth, BATCH)?;
        }
        let began = Instant::now();
        run.feed(prompt, BATCH)?;
        run.feed(generate, 1)?;
        let took = began.elapsed();
        nanoseconds.push(took.as_nanos() as u64);
        rates.push((prompt + generate) as f64 / took.as_secs_f64());
    }
    Ok(json!({
        "build_commit": "llama-cpp-2 0.1.160, llama-cpp-sys-2 0.1.161",
        "model_filename": settings.model,
        "model_size": model.size(),
        "model_n_params": model.n_params(),
        "n_batch": BATCH,
        "n_ubatch": MICROBATCH,
        "n_threads": threads,
        "flash_attn": flash,
        "n_prompt": prompt,
        "n_gen": generate,
        "n_depth": depth,
        "samples_ns": nanoseconds,
        "samples_ts": rates,
    }))
}

/// A sequence that is being fed.
struct Run<'a> {
    context: LlamaContext<'a>,
    model: &'a LlamaModel,
    /// State of Knuth's MMIX generator.
    random: u64,
    position: usize,
}

impl Run<'_> {
    /// BOS where the model begins with it, else a random token.
    fn token(&mut self) -> LlamaToken {
        let vocabulary = self.model.vocab();
        if self.position == 0 && vocabulary.should_add_bos() {
            return vocabulary.bos();
        }
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        LlamaToken::new((self.random >> 33) as i32 % self.model.n_vocab().max(1))
    }

    /// Feeds random tokens, so many at a time, and waits for the last; logits are computed of the last of each time.
    fn feed(&mut self, tokens: usize, at_a_time: usize) -> Result<()> {
        let mut batch = LlamaBatch::new(at_a_time, 1);
        let end = self.position + tokens;
        while self.position < end {
            batch.clear();
            let last = (self.position + at_a_time).min(end) - 1;
            for position in self.position..=last {
                let token = self.token();
                batch.add(token, i32::try_from(position)?, &[0], position == last)?;
                self.position += 1;
            }
            self.context.decode(&mut batch)?;
            self.context.synchronize();
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.context.clear_kv_cache();
        self.position = 0;
    }

    /// Forgets what came after the first tokens; false where the model's memory cannot.
    fn rewind(&mut self, tokens: usize) -> Result<bool> {
        let kept = self.context.kv_cache_seq_rm(0, Some(u32::try_from(tokens)?), None).is_ok();
        self.position = tokens;
        Ok(kept)
    }
}
