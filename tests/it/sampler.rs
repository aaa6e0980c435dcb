//! The sampler against llama.cpp's chain of the same stages.
//!
//! `tests/data/sampler/llama_cpp.json` holds what `llama_sampler_init_{logit_bias, penalties, top_k, typical, top_p,
//! min_p, temp_ext, dist}` of llama.cpp (as vendored in llama-cpp-sys-2 0.1.161) left of pseudo-random logits: how
//! many candidates, and the 16 likeliest with their probabilities to six digits. Where `typical_p` is below 1, banned
//! tokens were taken out before the chain, for its typical stage makes the entropy NaN if a probability is 0.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and its helpers too"
)]

use gristmill::generate::{Sampler, SamplerOptions};
use serde_json::Value;

/// The logits that the file's program made of `salt`: a hash of each id, from -8 to 8, exact in an f32.
fn logits(vocab: u32, salt: u32) -> Vec<f32> {
    (0..vocab)
        .map(|id| {
            let mut x = id.wrapping_add(salt).wrapping_mul(0x9E37_79B9);
            x ^= x >> 15;
            x = x.wrapping_mul(0x85EB_CA6B);
            x ^= x >> 13;
            (x >> 8) as f32 / 1_048_576.0 - 8.0
        })
        .collect()
}

#[test]
fn candidates_and_probabilities_equal_llama_cpp() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../data/sampler/llama_cpp.json")).unwrap();
    assert_eq!(cases.len(), 160);
    let mut failures = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let float = |key: &str| case[key].as_f64().unwrap() as f32;
        let int = |key: &str| case[key].as_u64().unwrap();
        let ids = |key: &str| -> Vec<u32> {
            case[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let mut options = SamplerOptions::default()
            .penalty_last_n(int("penalty_last_n") as usize)
            .repeat_penalty(float("repeat_penalty"))
            .frequency_penalty(float("frequency_penalty"))
            .presence_penalty(float("presence_penalty"))
            .top_k(int("top_k") as usize)
            .typical_p(float("typical_p"))
            .top_p(float("top_p"))
            .min_p(float("min_p"))
            .temperature(float("temperature"))
            .ban(ids("banned"));
        for pair in case["bias"].as_array().unwrap() {
            options = options.bias(pair[0].as_u64().unwrap() as u32, pair[1].as_f64().unwrap() as f32);
        }
        let mut sampler = Sampler::new(options).unwrap();
        sampler.set_history(&ids("history"));
        let found = sampler.probabilities(&logits(int("vocab") as u32, int("salt") as u32)).unwrap();

        let best = case["best"].as_array().unwrap();
        let near = best.iter().zip(&found).all(|(pair, &(id, p))| {
            // llama.cpp sums in 32 bits and prints six digits.
            let expected = pair[1].as_f64().unwrap();
            pair[0].as_u64() == Some(u64::from(id)) && (f64::from(p) - expected).abs() <= 1e-5 * expected
        });
        if !near || found.len() as u64 != int("count") {
            failures.push(format!("{number}: found {} {found:?}, expected {case}", found.len()));
        }
    }
    assert!(failures.is_empty(), "{} of 160:\n{}", failures.len(), failures.join("\n"));
}
