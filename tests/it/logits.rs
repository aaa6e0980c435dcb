//! Logits of tiny random models, against transformers 4.57.6 (full precision) and, for quantized files, against
//! transformers on the dequantized weights.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use gristmill::generate::StepperOptions;
use gristmill::{CacheType, Model};
use serde_json::Value;

use crate::{embeddings, goldens, models};

/// Reads a float32 .npy file: the length of a row, and the rows.
pub fn npy(path: &Path) -> (usize, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = std::str::from_utf8(&bytes[10..10 + header]).unwrap();
    let shape = text.split_once('(').unwrap().1.split_once(')').unwrap().0;
    let width = shape.split(',').filter_map(|n| n.trim().parse().ok()).next_back().unwrap();
    let data = bytes[10 + header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    (width, data.collect())
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
    row.iter().map(|&x| f64::from(x - max) - sum.ln()).collect()
}

/// Mean over the rows of the Kullback-Leibler divergence of `found` from `expected`.
pub fn divergence(expected: &[f32], found: &[f32], width: usize) -> f64 {
    assert_eq!(expected.len(), found.len());
    let rows = expected.chunks(width).zip(found.chunks(width)).map(|(expected, found)| {
        let (p, q) = (log_softmax(expected), log_softmax(found));
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    });
    rows.sum::<f64>() / (expected.len() / width) as f64
}

pub fn logits(model: &Model, tokens: &[u32], batch: usize, cache: CacheType) -> Vec<f32> {
    // The context decides which angles LongRoPE takes: as transformers does, from the sequence's length.
    let options = StepperOptions::default().batch(batch).cache(cache).context(tokens.len());
    let mut stepper = model.stepper(options).unwrap();
    let mut all = Vec::new();
    stepper.feed_each(tokens, |_, row| all.extend_from_slice(row)).unwrap();
    all
}

pub fn sequence(folder: &Path, case: &Value, name: &str) -> Vec<u32> {
    let text = fs::read(folder.join(case["tokens"].as_str().unwrap())).unwrap();
    let tokens: Value = serde_json::from_slice(&text).unwrap();
    let found = tokens.get(name).or_else(|| tokens.get("sequences").and_then(|all| all.get(name))).unwrap();
    found.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Divergences of one file from a reference.
struct Found {
    /// The mean over the positions of sequence s33.
    mean: f64,
    /// Of the last positions of sequences s8 and s96.
    last: [f64; 2],
}

impl Found {
    fn worst(&self) -> f64 {
        self.last.iter().fold(self.mean, |worst, &last| worst.max(last))
    }
}

/// Compares one file with the logits named in `reference`.
fn compare(folder: &Path, file: &str, case: &Value, reference: &Value) -> Found {
    let model = Model::open(folder.join(file)).unwrap();
    let (width, expected) = npy(&folder.join(reference["s33"].as_str().unwrap()));
    assert_eq!(width, model.vocabulary());
    let tokens = sequence(folder, case, "s33");
    let found = logits(&model, &tokens, 512, CacheType::F32);
    let mean = divergence(&expected, &found, width);
    assert_eq!(logits(&model, &tokens, 1, CacheType::F32), found, "{file}: token by token");
    assert_eq!(logits(&model, &tokens, 7, CacheType::F32), found, "{file}: seven tokens at a time");

    // Taken back to the middle, a sequence goes on as before.
    let mut stepper = model.stepper(StepperOptions::default().cache(CacheType::F32).context(33)).unwrap();
    stepper.feed(&tokens).unwrap();
    stepper.truncate(20);
    stepper.feed(&tokens[20..]).unwrap();
    assert_eq!(stepper.logits(), &found[found.len() - width..], "{file}: taken back");

    let (_, expected) = npy(&folder.join(reference["last"].as_str().unwrap()));
    let last = [("s8", 0), ("s96", 1)].map(|(name, row)| {
        let tokens = sequence(folder, case, name);
        let found = logits(&model, &tokens, 512, CacheType::F32);
        divergence(&expected[row * width..][..width], &found[found.len() - width..], width)
    });
    Found { mean, last }
}

#[test]
fn logits_of_small_models_are_those_of_transformers() {
    let folder = models::path("");
    let index: Value = serde_json::from_slice(&fs::read(folder.join("INDEX.json")).unwrap()).unwrap();
    let cases = index["models"].as_array().unwrap();
    for case in cases {
        let worst = compare(&folder, case["file"].as_str().unwrap(), case, &case["logits"]["hf"]).worst();
        assert!(worst < 1e-6, "{}: {worst:e}", case["name"]);
    }
    assert_eq!(cases.len(), 4);
}

#[test]
fn every_architecture_is_checked() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/architectures"));
    let index: Value = serde_json::from_slice(&fs::read(folder.join("INDEX.json")).unwrap()).unwrap();
    let only = std::env::var("GRISTMILL_CASE").unwrap_or_default();
    let mut checked: HashSet<&str> = HashSet::from(["llama", "qwen3", "gpt2"]);
    let (mut failed, mut count) = (Vec::new(), 0);
    for case in index["models"].as_array().unwrap() {
        let (name, arch) = (case["name"].as_str().unwrap(), case["arch"].as_str().unwrap());
        let supported = gristmill::model::ARCHITECTURES.iter().any(|known| known.name == arch);
        if !supported || !name.contains(&only) {
            continue;
        }
        checked.insert(arch);
        count += 1;
        let files =
            serde_json::json!({ "s33": format!("{name}.s33.npy"), "last": format!("{name}.last.npy") });
        let case = serde_json::json!({ "tokens": "INDEX.json" });
        let worst =
            std::panic::catch_unwind(|| compare(&folder, &format!("{name}.gguf"), &case, &files).worst());
        match worst {
            Ok(worst) => println!("{name} ({arch}): divergence {worst:.1e}"),
            Err(_) => println!("{name} ({arch}): panicked"),
        }
        if worst.is_err() || worst.is_ok_and(|worst| worst.is_nan() || worst >= 1e-6) {
            failed.push(name);
        }
    }
    println!("{count} models agree but for {failed:?}");
    assert!(failed.is_empty(), "{failed:?}");
    if only.is_empty() {
        // Their embeddings are.
        let (_, embeddings) = embeddings::index();
        let models = embeddings["models"].as_array().unwrap();
        let encoders: Vec<&str> = models.iter().map(|case| case["arch"].as_str().unwrap()).collect();
        checked.extend(encoders);
        let known = gristmill::model::ARCHITECTURES.iter().map(|known| known.name);
        let unchecked: Vec<_> = known.filter(|name| !checked.contains(name)).collect();
        assert!(unchecked.is_empty(), "{unchecked:?} are listed, but nothing checks them");
    }
}

#[test]
fn the_table_of_architectures_is_the_list() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let row = |known: &gristmill::model::Architecture| {
        format!("| `{}` | {} | {} |", known.name, known.models, known.checked)
    };
    let rows: Vec<String> = gristmill::model::ARCHITECTURES.iter().map(row).collect();
    let missing: Vec<_> = rows.iter().filter(|row| !text.lines().any(|line| line == row.as_str())).collect();
    assert!(missing.is_empty(), "README lacks\n{missing:#?}");
    let section = text.split("\n## ").find(|section| section.starts_with("Models\n")).unwrap();
    assert_eq!(section.lines().filter(|line| line.starts_with("| `")).count(), rows.len());
    // What the list says is what the cases were made by.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/architectures/INDEX.json");
    let index: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let (_, embeddings) = embeddings::index();
    let cases = [&index, &embeddings].map(|index| index["models"].as_array().unwrap());
    // Heads that rank were checked against llama.cpp, whatever the layers below them were.
    let is_rank = |case: &&Value| case["name"].as_str().unwrap().contains("-rank");
    for case in cases.into_iter().flatten().filter(|case| !is_rank(case)) {
        let known = gristmill::model::ARCHITECTURES.iter().find(|known| known.name == case["arch"]).unwrap();
        assert_eq!(known.checked, case["by"], "{}", case["name"]);
    }
}

/// How far llama.cpp's logits of a case are from those of transformers, as a mean over the positions of s33.
pub fn of_llama_cpp(folder: &Path, case: &Value) -> f64 {
    let read = |by: &str| npy(&folder.join(case["logits"][by]["s33"].as_str().unwrap()));
    let ((width, expected), (_, found)) = (read("hf"), read("llama_cpp"));
    divergence(&expected, &found, width)
}

/// Whether some weights of a case have codes: then the activations have too.
pub fn is_coded(case: &Value) -> bool {
    case["weights"].as_str().is_some_and(|weights| weights.contains("MXFP4"))
}

#[test]
fn logits_are_those_of_transformers() {
    let Some(folder) = goldens::folder("parity/open") else { return };
    let index: Value = serde_json::from_slice(&fs::read(folder.join("INDEX.json")).unwrap()).unwrap();
    let mut checked = 0;
    for case in index["models"].as_array().unwrap() {
        let (name, file) = (case["name"].as_str().unwrap(), case["file"].as_str().unwrap());
        let arch = case["arch"].as_str().unwrap();
        if !gristmill::model::ARCHITECTURES.iter().any(|known| known.name == arch) {
            assert!(Model::open(folder.join(file)).is_err(), "{name} is refused");
            continue;
        }
        let found = compare(&folder, file, case, &case["logits"]["hf"]);
        // Where the activations have codes, llama.cpp's own distance says what that costs: mean against mean, of one
        // draw each.
        let (found, bound) = match is_coded(case) {
            true => (found.mean, 1.5 * of_llama_cpp(&folder, case)),
            false => (found.worst(), 1e-6),
        };
        println!("{name}: divergence {found:.2e} (at most {bound:.1e})");
        assert!(found < bound, "{name}: {found:e}, expected less than {bound:e}");
        checked += 1;
    }
    println!("{checked} models agree with transformers");
    assert!(checked >= 7);
}

#[test]
fn quantized_models_are_near_their_dequantized_weights() {
    let Some(folder) = goldens::folder("parity/open") else { return };
    let index: Value = serde_json::from_slice(&fs::read(folder.join("INDEX.json")).unwrap()).unwrap();
    let (mut checked, mut ours, mut theirs) = (0, 0.0, 0.0);
    for family in index["quantized"].as_array().unwrap() {
        for case in family["files"].as_array().unwrap() {
            let (label, file) = (case["label"].as_str().unwrap(), case["file"].as_str().unwrap());
            let found = compare(&folder, file, family, &case["dequantized"]);
            // Both are means over a sequence.
            let llama_cpp = case["lcpp_vs_deq"]["kl"].as_f64().unwrap_or(0.0).max(1e-6);
            println!("{label}: divergence {:.2e} (llama.cpp {llama_cpp:.2e})", found.mean);
            assert!(found.mean <= llama_cpp, "{label}: {:e}, llama.cpp {llama_cpp:e}", found.mean);
            // Single positions scatter by a factor of ten: only their sums over all files compare.
            let read = |key: &str| npy(&folder.join(case[key]["last"].as_str().unwrap()));
            let ((width, expected), (_, last)) = (read("dequantized"), read("llama_cpp"));
            theirs += divergence(&expected, &last[..expected.len()], width);
            ours += found.last.iter().sum::<f64>() / found.last.len() as f64;
            checked += 1;
        }
    }
    println!("{checked} files: single positions diverge by {ours:.2e} in all (llama.cpp {theirs:.2e})");
    assert!(checked > 0 && ours < 1.1 * theirs, "{ours:e}, llama.cpp {theirs:e}");
}
