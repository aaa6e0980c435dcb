//! Whole models with ggml's matrix products beside our own: everything but the products is the same code.

use std::fs;
use std::path::{Path, PathBuf};

use gristmill::generate::{GenerateOptions, Sampler, SamplerOptions, StepperOptions};
use gristmill::model::ModelOptions;
use gristmill::text::EncodeOptions;
use gristmill::{BackendKind, CacheType, Model};
use gristmill_kernels::quant::GgmlType;
use serde_json::Value;

use super::Random;
use crate::goldens;
use crate::logits::{divergence, is_coded, logits, of_llama_cpp, sequence};

fn open(path: &Path, backend: BackendKind, threads: usize) -> Model {
    ModelOptions::default().backend(backend).threads(threads).open(path).unwrap()
}

fn embedded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/models/tiny-instruct-q8_0.gguf")
}

/// Whether all weights that are multiplied are floats of 32 bits: then only the order of additions differs.
fn is_f32(model: &Model) -> bool {
    model
        .file()
        .tensors()
        .filter(|tensor| tensor.info.rows() > 1)
        .all(|tensor| tensor.info.ty == GgmlType::F32)
}

/// How far the two backends are apart on `tokens`.
fn apart(path: &Path, tokens: &[u32]) -> f64 {
    let ours = open(path, BackendKind::Cpu, 2);
    let theirs = open(path, BackendKind::Ggml, 2);
    assert_eq!((ours.backend(), theirs.backend()), (BackendKind::Cpu, BackendKind::Ggml));
    let expected = logits(&ours, tokens, 512, CacheType::F32);
    let found = logits(&theirs, tokens, 512, CacheType::F32);
    assert_ne!(expected, found, "{}: ggml's products are our own, bit for bit", path.display());
    let whole = divergence(&expected, &found, ours.vocabulary());
    // One by one: ggml has other loops for one column.
    let found = logits(&theirs, tokens, 1, CacheType::F32);
    whole.max(divergence(&expected, &found, ours.vocabulary()))
}

#[test]
fn the_built_in_model_says_the_same_on_both() {
    let mut random = Random(41);
    let tokens: Vec<u32> = (0..100).map(|_| (random.next() % 1000) as u32).collect();
    let divergence = apart(&embedded(), &tokens);
    println!("built-in model: divergence {divergence:.2e}");
    // Both round activations to 8 bits, in blocks of 32; ggml rounds the scales of them to 16 bits besides.
    assert!(divergence < 1e-3, "{divergence:e}");

    let texts = [BackendKind::Cpu, BackendKind::Ggml].map(|backend| {
        let model = open(&embedded(), backend, 2);
        let mut stepper = model.stepper(StepperOptions::default()).unwrap();
        let prompt = model.tokenizer().unwrap().encode("Once upon a time", EncodeOptions::PROMPT).unwrap();
        stepper.feed(&prompt).unwrap();
        let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
        let options = GenerateOptions::default().max_tokens(12);
        let steps = stepper.generate(&mut sampler, options).unwrap();
        steps.map(|step| step.unwrap().text().to_owned()).collect::<String>()
    });
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn sequences_share_a_model_on_ggml_from_several_threads() {
    let model = open(&embedded(), BackendKind::Ggml, 2);
    let tokens: Vec<u32> = (0..40).collect();
    let alone = logits(&model, &tokens, 8, CacheType::F16);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(logits(&model, &tokens, 8, CacheType::F16), alone));
        }
    });
}

#[test]
fn the_golden_models_differ_by_what_rounding_explains() {
    let Some(folder) = goldens::folder("parity/open") else { return };
    let index: Value = serde_json::from_slice(&fs::read(folder.join("INDEX.json")).unwrap()).unwrap();
    let mut counts = [0, 0];
    for case in index["models"].as_array().unwrap() {
        let path = folder.join(case["file"].as_str().unwrap());
        // Architectures to come are refused on any backend.
        let Ok(model) = Model::open(&path) else { continue };
        let divergence = apart(&path, &sequence(&folder, case, "s33"));
        let exact = is_f32(&model);
        println!("{}: divergence {divergence:.2e}, all F32: {exact}", case["name"]);
        let explained = match exact {
            true => 1e-9,
            // Two roundings to codes: each is about as far from full precision as llama.cpp's logits are.
            false if is_coded(case) => 4.0 * of_llama_cpp(&folder, case),
            // ggml rounds activations to 16 bits where the weights have 16: by 2^-11 for f16, 2^-9 for bf16.
            false => 1e-5,
        };
        assert!(divergence < explained, "{}: {divergence:e}", case["name"]);
        counts[usize::from(exact)] += 1;
    }
    for family in index["quantized"].as_array().unwrap() {
        for case in family["files"].as_array().unwrap() {
            let path = folder.join(case["file"].as_str().unwrap());
            if Model::open(&path).is_err() {
                continue;
            }
            let divergence = apart(&path, &sequence(&folder, family, "s33"));
            // How far llama.cpp is from full precision on these weights: the same rounding.
            let rounding = case["lcpp_vs_deq"]["kl"].as_f64().unwrap_or(0.0).max(1e-6);
            println!("{}: divergence {divergence:.2e}, rounding explains {rounding:.2e}", case["label"]);
            assert!(divergence < 4.0 * rounding, "{}: {divergence:e} of {rounding:e}", case["label"]);
            counts[0] += 1;
        }
    }
    println!("{} models of F32 and {} others agree with ggml's products", counts[1], counts[0]);
    assert!(counts[1] > 0 && counts[0] > 10, "{counts:?}");
}
