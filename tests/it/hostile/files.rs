//! Hostile files.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use gristmill::generate::{ChatOptions, Sampler, SamplerOptions, StepperOptions};
use gristmill::gguf::{Array, Gguf, Strings, Value};
use gristmill::model::ModelOptions;
use gristmill::model::file::ModelFile;
use gristmill::text::EncodeOptions;
use gristmill::{Error, doctor};
use gristmill_kernels::quant::GgmlType;

use crate::models::Parts;
use crate::{memory, models};

/// Marsaglia's xorshift: the same attacks on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for bytes in bytes.chunks_mut(8) {
            bytes.copy_from_slice(&self.next().to_le_bytes()[..bytes.len()]);
        }
    }
}

/// What became of an attack.
#[derive(Default, Debug)]
struct Counts {
    refused: usize,
    failed: usize,
    not_finite: usize,
    fed: usize,
}

/// A series of attacks, all of whose failures are reported together.
#[derive(Default)]
struct Series {
    counts: Counts,
    failures: String,
    slowest: Duration,
    largest: usize,
}

impl Series {
    /// Opens `file`, feeds three tokens, samples, encodes and decodes a text.
    fn attack(&mut self, what: impl FnOnce() -> String, file: Vec<u8>) {
        let size = file.len();
        let start = Instant::now();
        memory::reset_peak();
        let done = catch_unwind(AssertUnwindSafe(|| use_file(file)));
        let (took, peak) = (start.elapsed(), memory::peak());
        self.slowest = self.slowest.max(took);
        self.largest = self.largest.max(peak);
        let complaint = match done {
            Err(_) => Some("panicked".to_owned()),
            _ if took > Duration::from_secs(5) => Some(format!("took {took:?}")),
            _ if peak > 4 * size + (64 << 20) => Some(format!("took {peak} bytes")),
            Ok(Err(Used::Opening(Error::Internal { what }) | Used::Feeding(Error::Internal { what }))) => {
                Some(format!("internal error: {what}"))
            }
            Ok(Err(Used::Opening(_))) => {
                self.counts.refused += 1;
                None
            }
            Ok(Err(Used::Feeding(_))) => {
                self.counts.failed += 1;
                None
            }
            Ok(Err(Used::Sampling(Error::NonFiniteLogit { .. }))) => {
                self.counts.not_finite += 1;
                None
            }
            Ok(Err(Used::Sampling(error))) => Some(format!("sampling: {error}")),
            Ok(Ok(())) => {
                self.counts.fed += 1;
                None
            }
        };
        if let Some(complaint) = complaint {
            let _ = writeln!(self.failures, "{}: {complaint}", what());
        }
    }

    #[track_caller]
    fn end(self, name: &str) -> Counts {
        assert!(self.failures.is_empty(), "{name}:\n{}", self.failures);
        println!("{name}: {:?}, slowest {:?}, most memory {}", self.counts, self.slowest, self.largest);
        self.counts
    }
}

enum Used {
    Opening(Error),
    Feeding(Error),
    Sampling(Error),
}

fn use_file(file: Vec<u8>) -> Result<(), Used> {
    if let Ok(file) = ModelFile::from_bytes(file.clone()) {
        // Whatever is wrong is a finding.
        let options = doctor::Options { threads: Some(1), ..doctor::Options::default() };
        let examined = doctor::examine_file(&file, &options, |_| ControlFlow::Continue(()));
        assert!(!examined.unwrap().findings.is_empty());
    }
    let model = ModelOptions::default().threads(1).from_bytes(file).map_err(Used::Opening)?;
    let _ = model.evidence();
    if let Ok(tokenizer) = model.tokenizer() {
        for options in [EncodeOptions::PROMPT, EncodeOptions::TEMPLATE] {
            if let Ok(ids) = tokenizer.encode("Once upon a time,\u{e9}\n12 <s>", options) {
                let _ = tokenizer.decode(&ids);
            }
        }
        let _ = tokenizer.decode(&[0, 1, 2, 319, 320, 1 << 20, u32::MAX]);
    }
    if let Ok(mut chat) = model.chat(ChatOptions::default().stepper(StepperOptions::default().context(40))) {
        let _ = chat.send("Hello").and_then(|mut reply| reply.next().transpose());
    }
    let last = model.vocabulary().saturating_sub(1) as u32;
    let mut stepper = model.stepper(StepperOptions::default().context(8)).map_err(Used::Feeding)?;
    stepper.feed(&[0, last / 2, last]).map_err(Used::Feeding)?;
    assert_eq!(stepper.logits().len(), model.vocabulary());
    let mut sampler = Sampler::new(SamplerOptions::default()).map_err(Used::Sampling)?;
    let token = stepper.sample(&mut sampler).map_err(Used::Sampling)?;
    stepper.feed(&[token]).map_err(Used::Feeding)?;
    if stepper.logits().iter().all(|logit| logit.is_finite())
        && let Ok(generation) = stepper.generate(&mut sampler, Default::default())
    {
        // A context of eight: it ends, by itself or by an error.
        assert!(generation.count() <= 8);
    }
    Ok(())
}

fn hostile_values() -> Vec<Value> {
    let mut strings = Strings::new();
    strings.push("a");
    strings.push([0xff, 0xfe]);
    let mut values = Vec::new();
    values.extend([0, 1, 2, 3, 7, 64, 65_536, 1 << 24, 1 << 31, u32::MAX].map(Value::U32));
    values.extend([-1, i32::MIN].map(Value::I32));
    values.extend([1 << 40, u64::MAX].map(Value::U64));
    let floats = [0.0, 0.5, -1.0, 1e-45, 1e38, -1e38, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    values.extend(floats.map(Value::F32));
    values.extend([Value::F64(1e300), Value::Bool(true), Value::I8(-1), Value::from("")]);
    values.extend([Value::from("linear"), Value::from("yarn"), Value::from("\u{0}x")]);
    values.extend([Value::String(vec![0xff; 4]), Value::from(strings), Value::from(Vec::<u32>::new())]);
    values.extend([Value::from(vec![2_u32, 3]), Value::from(vec![2_u32; 2]), Value::from(vec![-1_i32; 320])]);
    values.extend([Value::from(vec![f32::NAN; 320]), Value::from(Array::Array(vec![Array::U8(vec![1])]))]);
    values
}

/// Keys that files may have and these have not.
const MORE_KEYS: &[&str] = &[
    "attention.scale",
    "attention.key_length",
    "attention.value_length",
    "attention.head_count_kv",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "expert_count",
    "vocab_size",
];

#[test]
fn metadata_of_any_value_is_used_or_refused() {
    for name in [models::GPT2, models::LLAMA, models::MISTRAL] {
        let whole = Parts::of(&models::bytes(name));
        let arch = whole.metadata.str("general.architecture").unwrap().unwrap().to_owned();
        let mut keys: Vec<String> = whole.metadata.iter().map(|(key, _)| key.to_owned()).collect();
        keys.extend(MORE_KEYS.iter().map(|key| format!("{arch}.{key}")));
        keys.extend(
            ["tokenizer.chat_template", "tokenizer.ggml.eot_token_id", "split.count"].map(str::to_owned),
        );
        let mut series = Series::default();
        for key in &keys {
            for value in hostile_values() {
                let mut parts = whole.clone();
                parts.metadata.set(key, value.clone());
                if let Ok(file) = parts.file() {
                    series.attack(|| format!("{name}: {key} = {value:?}"), file);
                }
            }
            let mut parts = whole.clone();
            if parts.metadata.remove(key).is_some() {
                series.attack(|| format!("{name}: no {key}"), parts.file().unwrap());
            }
        }
        let counts = series.end(name);
        assert!(counts.refused > 100 && counts.fed > 100, "{counts:?}");
    }
}

#[test]
fn scaled_rotations_of_any_parameters_are_used_or_refused() {
    let whole = Parts::of(&models::bytes(models::LLAMA));
    let numbers = [0.0, 1e-45, 1e-3, 1.0, 8.0, 1e38, -4.0, f32::NAN, f32::INFINITY];
    let mut series = Series::default();
    for scaling in ["none", "linear", "yarn", "longrope", ""] {
        for key in [
            "scaling.factor",
            "scaling.attn_factor",
            "scaling.yarn_beta_fast",
            "scaling.yarn_beta_slow",
            "freq_base",
        ] {
            for number in numbers {
                let mut parts = whole.clone();
                parts.metadata.set("llama.rope.scaling.type", scaling);
                parts.metadata.set("llama.rope.scaling.factor", 4.0_f32);
                parts.metadata.set(&format!("llama.rope.{key}"), number);
                series.attack(|| format!("{scaling}, {key} = {number}"), parts.file().unwrap());
            }
        }
    }
    for factor in numbers {
        let mut parts = whole.clone();
        let factors = parts.tensors.iter_mut().find(|tensor| tensor.name == "rope_freqs.weight").unwrap();
        factors.bytes[4..8].copy_from_slice(&factor.to_le_bytes());
        series.attack(|| format!("factor {factor}"), parts.file().unwrap());
    }
    series.end("rotations");
}

#[test]
fn tensors_that_are_missing_or_misshapen_are_refused() {
    for name in models::ALL {
        let whole = Parts::of(&models::bytes(name));
        let mut series = Series::default();
        for at in 0..whole.tensors.len() {
            let tensor = whole.tensors[at].clone();
            let mut try_with = |what: &str, change: &dyn Fn(&mut Parts)| {
                let mut parts = whole.clone();
                change(&mut parts);
                if let Ok(file) = parts.file() {
                    series.attack(|| format!("{name}: {}: {what}", tensor.name), file);
                }
            };
            try_with("dropped", &|parts| {
                parts.tensors.remove(at);
            });
            try_with("renamed", &|parts| parts.tensors[at].name.push('x'));
            try_with("transposed", &|parts| parts.tensors[at].shape.reverse());
            try_with("flat", &|parts| parts.tensors[at].shape = vec![tensor.shape.iter().product()]);
            try_with("column", &|parts| parts.tensors[at].shape = vec![1, tensor.shape.iter().product()]);
            try_with("one more dimension", &|parts| parts.tensors[at].shape.push(1));
            try_with("three dimensions", &|parts| {
                let (row, shape) = (tensor.shape[0], &mut parts.tensors[at].shape);
                (shape[0], _) = (row / 2, shape.push(2));
            });
            let row_bytes = tensor.bytes.len() / tensor.shape.get(1).copied().unwrap_or(1);
            try_with("one row less", &|parts| {
                let tensor = &mut parts.tensors[at];
                *tensor.shape.last_mut().unwrap() -= 1;
                let bytes = tensor.ty.row_bytes(tensor.shape[0]).unwrap_or(row_bytes);
                tensor.bytes.truncate(bytes * tensor.shape.get(1).copied().unwrap_or(1));
            });
            try_with("halves for singles", &|parts| {
                let tensor = &mut parts.tensors[at];
                tensor.ty = if tensor.ty == GgmlType::F32 { GgmlType::F16 } else { GgmlType::F32 };
                let size = tensor.shape.iter().product::<usize>();
                tensor.bytes.resize(size * if tensor.ty == GgmlType::F32 { 4 } else { 2 }, 0x3c);
            });
        }
        let counts = series.end(name);
        assert!(counts.refused > 3 * whole.tensors.len(), "{name}: {counts:?}");
    }
}

#[test]
fn weights_of_random_bits_in_every_format_give_logits_or_a_typed_error() {
    let file = std::fs::read(models::instruct()).unwrap();
    let mut whole = Parts::of(&file);
    // Fewer layers do as well.
    whole.metadata.set("llama.block_count", 2_u32);
    whole
        .tensors
        .retain(|tensor| ["blk.2", "blk.3", "blk.4", "blk.5"].iter().all(|no| !tensor.name.starts_with(no)));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut series, mut computed) = (Series::default(), 0);
    for ty in GgmlType::ALL {
        let (ty, Some(row)) = (*ty, ty.row_bytes(256)) else { continue };
        for half_of_them in [false, true] {
            let mut parts = whole.clone();
            for tensor in parts.tensors.iter_mut().filter(|tensor| tensor.shape.len() == 2) {
                tensor.ty = ty;
                tensor.bytes = vec![0; row * tensor.shape.iter().product::<usize>() / 256];
                random.fill(&mut tensor.bytes);
                if half_of_them {
                    // Small scales are likelier now, so that numbers stay finite for longer.
                    tensor.bytes.iter_mut().for_each(|byte| *byte &= 0xbb);
                }
            }
            if let Ok(file) = parts.file() {
                computed += usize::from(levels_agree(&file, ty));
                series.attack(|| format!("random {ty}"), file);
            }
        }
    }
    assert!(computed > 40, "{computed}");
    let counts = series.end("random weights");
    assert!(counts.not_finite > 10 && counts.fed + counts.not_finite > 40, "{counts:?}");
}

/// Whether the file can be opened; then every instruction set gives the same bits, batch or no batch.
fn levels_agree(file: &[u8], ty: GgmlType) -> bool {
    let logits = |level: &str, batch: usize| -> Option<Vec<u32>> {
        let model = ModelOptions::default().threads(1).level(level).from_bytes(file.to_vec()).ok()?;
        let mut stepper = model.stepper(StepperOptions::default().batch(batch)).unwrap();
        stepper.feed(&models::tokens(5)).unwrap();
        // NaNs are all alike.
        Some(stepper.logits().iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect())
    };
    let expected = logits("scalar", 1);
    for (level, batch) in [("scalar", 5), ("auto", 1), ("auto", 5)] {
        assert!(logits(level, batch) == expected, "{ty}: {level}, batches of {batch}");
    }
    expected.is_some()
}

#[test]
fn norms_and_biases_of_any_numbers_give_logits_or_a_typed_error() {
    for name in [models::GPT2, models::QWEN3] {
        let whole = Parts::of(&models::bytes(name));
        let mut series = Series::default();
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45, 0.0] {
            for at in 0..whole.tensors.len() {
                let mut parts = whole.clone();
                let tensor = &mut parts.tensors[at];
                match tensor.ty {
                    GgmlType::F32 => tensor.bytes[..4].copy_from_slice(&number.to_le_bytes()),
                    _ => tensor.bytes[..2].copy_from_slice(&half_bits(number).to_le_bytes()),
                }
                series.attack(
                    || format!("{name}: {} begins with {number}", parts.tensors[at].name),
                    parts.file().unwrap(),
                );
            }
        }
        series.end(name);
    }
}

/// The number in half precision, as far as this test needs it.
fn half_bits(number: f32) -> u16 {
    match number {
        number if number.is_nan() => 0x7e01,
        f32::INFINITY => 0x7c00,
        f32::NEG_INFINITY => 0xfc00,
        number if number > 1.0 => 0x7bff,
        number if number < -1.0 => 0xfbff,
        number if number > 0.0 => 1,
        _ => 0,
    }
}

#[test]
fn headers_with_wrong_bytes_are_used_or_refused() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for name in models::ALL {
        let whole = models::bytes(name);
        let header =
            Gguf::parse(&whole).unwrap().tensors.iter().map(|tensor| tensor.range.start).min().unwrap();
        let mut series = Series::default();
        for round in 0..1500 {
            let mut file = whole.clone();
            let from = Random::next(&mut random);
            for _ in 0..=random.below(4) {
                // The tensors' table lies at the end of the header; strings take most of the rest.
                let at = match round % 3 {
                    0 => random.below(header as usize),
                    1 => random.below(1024.min(header as usize)),
                    _ => header as usize - 1 - random.below(1200.min(header as usize - 1)),
                };
                file[at] = match random.below(4) {
                    0 => 0,
                    1 => 0xff,
                    2 => file[at] ^ 1 << random.below(8),
                    _ => random.next() as u8,
                };
            }
            if round % 50 == 0 {
                file.truncate(random.below(file.len()));
            }
            series.attack(|| format!("{name}: round {round} ({from:x})"), file);
        }
        let counts = series.end(name);
        assert!(counts.refused > 100 && counts.fed > 100, "{counts:?}");
    }
}
