//! Tokens per second of whole models, prompt (512 tokens) and generation (64 tokens):
//! `cargo bench --bench model -- MODEL.gguf...`
//!
//! Tokens are arbitrary; the answer that is checked is that the logits are finite.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::Instant;

use gristmill::Model;
use gristmill::generate::StepperOptions;

const PROMPT: usize = 512;
const GENERATED: usize = 64;
const RUNS: usize = 3;

fn main() -> Result<(), gristmill::Error> {
    let models = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    for path in models {
        let model = Model::open(&path)?;
        let tokens: Vec<u32> = (0..PROMPT).map(|i| (i * 7919 % model.vocabulary()) as u32).collect();
        let (mut prompt, mut generation) = (Vec::new(), Vec::new());
        // The first run warms up.
        for run in 0..=RUNS {
            let mut stepper = model.stepper(StepperOptions::default())?;
            let start = Instant::now();
            stepper.feed(&tokens)?;
            let prompt_time = start.elapsed();
            stepper.truncate(1);
            let start = Instant::now();
            for &token in tokens.iter().take(GENERATED) {
                stepper.feed(&[token])?;
            }
            let generation_time = start.elapsed();
            assert!(stepper.logits().iter().all(|logit| logit.is_finite()), "{path}: logits");
            if run > 0 {
                prompt.push(PROMPT as f64 / prompt_time.as_secs_f64());
                generation.push(GENERATED as f64 / generation_time.as_secs_f64());
            }
        }
        println!("{path}: pp{PROMPT} {:.1} t/s, tg{GENERATED} {:.1} t/s", median(prompt), median(generation));
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
