//! Logits and vectors of whole models, of every architecture.

use std::fs;
use std::sync::Arc;

use gristmill::embed::{EmbedOptions, Pooling};
use gristmill::generate::{Stepper, StepperOptions};
use gristmill::model::ModelOptions;
use gristmill::{BackendKind, CacheType, CacheTypes, Error, Model};
use serde_json::Value;

use super::device::{Asked, Emulated, Fault};
use super::emulator::Emulator;
use super::{MEMORY, architecture, on_emulator, slow, there};
use crate::logits::divergence;
use crate::models;

/// The logits after each of some tokens: a prompt, and the last `single` tokens one by one.
fn logits(
    model: &Model,
    tokens: &[u32],
    single: usize,
    cache: impl Into<CacheTypes>,
) -> Result<Vec<f32>, Error> {
    let options = StepperOptions::default().cache(cache).context(tokens.len());
    let mut stepper = model.stepper(options)?;
    let mut all = Vec::new();
    let (prompt, rest) = tokens.split_at(tokens.len() - single);
    stepper.feed_each(prompt, |_, row| all.extend_from_slice(row))?;
    for token in rest {
        stepper.feed(&[*token])?;
        all.extend_from_slice(stepper.logits());
    }
    Ok(all)
}

/// How far two rows of numbers are apart at most, of the largest of them.
fn apart(expected: &[f32], found: &[f32]) -> f32 {
    assert_eq!(expected.len(), found.len());
    assert!(found.iter().all(|x| x.is_finite()));
    let largest = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    expected.iter().zip(found).fold(0.0, |worst: f32, (x, y)| worst.max((x - y).abs())) / largest
}

/// What roundings to single precision, in other orders and with other functions `exp`, leave of the largest logit: each some 6e-8,
/// some hundred in a row.
const ROUNDINGS: f32 = 5e-5;

/// Compares a model on the emulator with the CPU, `layers` of it on the GPU. Gives how far they are apart.
fn compare(name: &str, seed: u64, layers: Option<usize>, cache: impl Into<CacheTypes>) -> Result<f32, Error> {
    compare_prompt(name, 14, seed, layers, cache).map(|(far, _)| far)
}

/// The same with a prompt of this length, and what was dispatched for it.
fn compare_prompt(
    name: &str,
    tokens: usize,
    seed: u64,
    layers: Option<usize>,
    cache: impl Into<CacheTypes>,
) -> Result<(f32, Vec<String>), Error> {
    let (cache, asked) = (cache.into(), Arc::default());
    let path = architecture(name);
    let cpu = ModelOptions::default().threads(1).open(&path)?;
    let options = on_emulator(seed, Fault::None, &asked);
    let gpu = match layers {
        Some(layers) => options.gpu_layers(layers),
        None => options,
    };
    let gpu = gpu.open(&path)?;
    assert_eq!(gpu.backend(), BackendKind::Metal);
    let tokens =
        models::tokens(tokens).into_iter().map(|id| id % cpu.vocabulary() as u32).collect::<Vec<_>>();
    let (expected, found) = (logits(&cpu, &tokens, 3, cache)?, logits(&gpu, &tokens, 3, cache)?);
    let (kl, far) = (divergence(&expected, &found, cpu.vocabulary()), apart(&expected, &found));
    println!("{name}, layers {layers:?}, {cache:?}: apart {far:.1e}, divergence {kl:.1e}");
    let dispatches = std::mem::take(&mut asked.lock().unwrap().dispatches);
    Ok((far, dispatches))
}

/// The names of the tiny models of one of `parts`.
fn part(number: usize, parts: usize) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/architectures/INDEX.json");
    let index: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let names =
        index["models"].as_array().unwrap().iter().map(|case| case["name"].as_str().unwrap().to_owned());
    // With a sanitizer, some of each family.
    const SOME: &[&str] =
        &["deepseek2-lite", "gemma3", "gpt-oss", "bloom", "mamba", "mamba2", "qwen35moe", "rwkv7", "lfm2"];
    let names = names.filter(|name| !slow() || SOME.contains(&name.as_str()));
    names.enumerate().filter(|(i, _)| i % parts == number).map(|(_, name)| name).collect()
}

/// Sums of weights in BitNet's three values go through codes of eight bits on the CPU.
fn bound(name: &str) -> f32 {
    if name == "bitnet" || name == "gpt-oss" { 2e-2 } else { ROUNDINGS }
}

fn agree(names: &[String]) {
    let far = |name: &String| compare(name, 1, None, CacheType::F32).map(|far| (far, bound(name)));
    let wrong: Vec<_> = names
        .iter()
        .map(|name| (name, far(name)))
        .filter(|(_, found)| !matches!(found, Ok((far, bound)) if far <= bound))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_architecture_gives_the_logits_of_the_cpu() {
    if there() {
        agree(&part(0, 2));
    }
}

#[test]
fn every_other_architecture_gives_the_logits_of_the_cpu() {
    if there() {
        agree(&part(1, 2));
    }
}

#[test]
fn longer_prompts_attend_in_tiles_and_give_the_logits_of_the_cpu() {
    if !there() {
        return;
    }
    // Grouped queries, windows, ALiBi, sinks, keys longer than values.
    let names = ["qwen2", "gemma3", "bloom", "gpt-oss", "deepseek2-lite"];
    for name in names.into_iter().take(if slow() { 1 } else { usize::MAX }) {
        let (far, dispatches) = compare_prompt(name, 45, 8, None, CacheType::F32).unwrap();
        assert!(dispatches.iter().any(|kernel| kernel.starts_with("attention_tile")), "{name}");
        assert!(far <= bound(name), "{name}: {far}");
    }
}

#[test]
fn caches_of_every_form_give_the_logits_of_the_cpu() {
    if !there() {
        return;
    }
    // Sums are rounded to codes before they are kept: where two kernels round apart, they are a code apart.
    let codes = [
        (CacheType::F32, ROUNDINGS),
        (CacheType::F16, 1e-3),
        (CacheType::Bf16, 1e-2),
        (CacheType::Q8_0, 1e-2),
        (CacheType::Q4_0, 0.1),
    ];
    for name in ["qwen2", "gemma3", "deepseek2-lite"] {
        for (i, (keys, bound)) in codes.into_iter().enumerate() {
            // Keys and values in one form, and in two.
            let (other, other_bound) = codes[(i + 1) % codes.len()];
            for (values, bound) in [(keys, bound), (other, bound.max(other_bound))] {
                let far = compare(name, 2, None, CacheTypes { keys, values }).unwrap();
                assert!(far <= bound, "{name}, keys {}, values {}: {far}", keys.name(), values.name());
            }
        }
    }
}

#[test]
fn the_first_layers_may_be_the_gpus_and_the_others_the_cpus() {
    if !there() {
        return;
    }
    let names = ["qwen2", "gemma3", "deepseek2-lite", "rwkv7", "qwen35", "gpt-oss", "gemma4-moe", "mamba2"];
    for name in names.into_iter().take(if slow() { 2 } else { usize::MAX }) {
        for layers in [0, 1] {
            let far = compare(name, 3, Some(layers), CacheType::F32).unwrap();
            assert!(far <= bound(name), "{name}, {layers} layers: {far}");
        }
    }
    // Layers that attend to what an earlier one keeps need it on their side.
    match compare("gemma3n", 3, Some(1), CacheType::F32) {
        Ok(far) => assert!(far <= ROUNDINGS, "{far}"),
        Err(error) => assert!(matches!(error, Error::DeviceUnsupported { .. }), "{error}"),
    }
}

#[test]
fn quantized_models_give_nearly_the_logits_of_the_cpu() {
    if !there() {
        return;
    }
    // The CPU rounds inputs of products to eight bits, the GPU does not.
    let (file, asked) = (models::instruct(), Arc::default());
    let cpu = Model::open(&file).unwrap();
    let gpu = on_emulator(4, Fault::None, &asked).open(&file).unwrap();
    let tokens = models::tokens(12);
    let [expected, found] = [&cpu, &gpu].map(|model| logits(model, &tokens, 2, CacheType::F16).unwrap());
    let kl = divergence(&expected, &found, cpu.vocabulary());
    println!("{kl:e}, {:e}", apart(&expected, &found));
    assert!(kl < 1e-3, "{kl}");
    // In memory, weights are copied; the answer stays.
    let copied = on_emulator(4, Fault::None, &asked).from_bytes(fs::read(&file).unwrap()).unwrap();
    assert_eq!(logits(&copied, &tokens, 2, CacheType::F16).unwrap(), found);
}

/// Feeds tokens, each with the same on the CPU, and compares what comes of the last.
fn feed(both: &mut [Stepper; 2], tokens: &[u32], bound: f32, what: &str) {
    for stepper in &mut *both {
        stepper.feed(tokens).unwrap();
    }
    let far = apart(both[0].logits(), both[1].logits());
    assert!(far <= bound, "{what}: {far}");
}

#[test]
fn sequences_fork_and_go_back_as_on_the_cpu() {
    if !there() {
        return;
    }
    // Windows that are left behind, with rows of two lengths, and states of recurrent layers.
    for (name, values, bound) in [
        ("gemma3", CacheType::F16, 1e-3),
        ("qwen35", CacheType::F32, ROUNDINGS),
        ("rwkv7", CacheType::F32, ROUNDINGS),
    ]
    .into_iter()
    .take(if slow() { 1 } else { 3 })
    {
        let cache = CacheTypes { keys: CacheType::F32, values };
        let path = architecture(name);
        let models =
            [Model::open(&path).unwrap(), on_emulator(5, Fault::None, &Arc::default()).open(&path).unwrap()];
        let mut both = models
            .each_ref()
            .map(|model| model.stepper(StepperOptions::default().cache(cache).context(400)).unwrap());
        let tokens: Vec<u32> = (0..300).map(|i| (i * 7919 + 13) % models[0].vocabulary() as u32).collect();
        feed(&mut both, &tokens[..40], bound, name);
        feed(&mut both, &tokens[40..45], bound, name);
        let mut forks = both.each_ref().map(Stepper::fork);
        feed(&mut forks, &tokens[100..103], bound, &format!("{name}, a fork"));
        feed(&mut both, &tokens[45..50], bound, &format!("{name}, beside a fork"));
        feed(&mut forks, &tokens[103..104], bound, &format!("{name}, a fork that goes on"));
        both.iter_mut().for_each(|stepper| stepper.truncate(47));
        feed(&mut both, &tokens[60..62], bound, &format!("{name}, taken back a little"));
        if !slow() {
            feed(&mut both, &tokens[62..290], bound, &format!("{name}, grown"));
            both.iter_mut().for_each(|stepper| stepper.truncate(20));
            feed(&mut both, &tokens[20..22], bound, &format!("{name}, taken back far"));
        }
    }
}

#[test]
fn encoders_give_the_vectors_of_the_cpu() {
    if !there() {
        return;
    }
    for name in ["bert", "modern-bert", "nomic-bert-moe", "jina-bert-v2", "gemma-embedding"]
        .into_iter()
        .take(if slow() { 1 } else { 5 })
    {
        let path = architecture(name);
        let models =
            [Model::open(&path).unwrap(), on_emulator(6, Fault::None, &Arc::default()).open(&path).unwrap()];
        let tokens: Vec<u32> =
            models::tokens(37).into_iter().map(|id| id % models[0].vocabulary() as u32).collect();
        let [expected, found] = models.map(|model| {
            let options = EmbedOptions::default().pooling(Pooling::Mean);
            model.embedder(options).unwrap().embed_tokens(&tokens).unwrap().into_values()
        });
        let far = apart(&expected, &found);
        println!("{name}: {far:e}");
        assert!(far <= ROUNDINGS, "{name}: {far}");
    }
}

#[test]
fn memory_is_refused_before_it_is_taken_and_the_cpu_may_step_in() {
    if !there() {
        return;
    }
    let file = models::instruct();
    let with = |memory: u64| {
        let open =
            move || Ok(Box::new(Emulated::new(1, memory, Fault::None, Arc::default()).unwrap()) as Box<_>);
        ModelOptions::default().backend(BackendKind::Metal).device(open)
    };
    let bytes = fs::metadata(&file).unwrap().len();
    let refused = with(bytes / 2).open(&file).unwrap_err();
    assert!(matches!(refused, Error::DeviceMemory { what: "weights", used: 0, .. }), "{refused}");
    assert_eq!(with(bytes / 2).or_cpu(true).open(&file).unwrap().backend(), BackendKind::Cpu);
    // The first layers may fit where all do not.
    with(bytes / 4 * 3).gpu_layers(1).open(&file).unwrap();
    // Weights fit, and what a long prompt needs beside them does not: the sequence stays as it was.
    let model = with(bytes + (1 << 20)).open(&file).unwrap();
    let mut stepper = model.stepper(StepperOptions::default().context(2000)).unwrap();
    let refused = stepper.feed(&models::tokens(1500)).unwrap_err();
    assert!(matches!(refused, Error::DeviceMemory { .. }), "{refused}");
    assert_eq!(stepper.len(), 0);

    let absent = || Err(Error::Device { doing: "opening it", said: "this system has none".into() });
    let options = ModelOptions::default().backend(BackendKind::Metal).device(absent);
    assert!(matches!(options.clone().open(&file).unwrap_err(), Error::Device { .. }));
    assert_eq!(options.or_cpu(true).open(&file).unwrap().backend(), BackendKind::Cpu);
}

#[test]
fn what_depends_on_nothing_runs_at_the_same_time() {
    if !there() {
        return;
    }
    let asked = Arc::default();
    let model = on_emulator(1, Fault::None, &asked).open(models::path(models::LLAMA)).unwrap();
    let mut stepper = model.stepper(StepperOptions::default().context(8)).unwrap();
    let count = |asked: &Asked| (asked.dispatches.len(), asked.barriers, asked.finishes);
    stepper.feed(&[1, 2, 3]).unwrap();
    let first = count(&asked.lock().unwrap());
    stepper.feed(&[4]).unwrap();
    let second = count(&asked.lock().unwrap());
    let (dispatches, barriers) = (second.0 - first.0, second.1 - first.1);
    // Queries, keys and values; gate and up; both parts of the cache.
    assert!(barriers * 4 < dispatches * 3, "{barriers} barriers for {dispatches} dispatches");
    // One command buffer for each pass, and nothing written for a token but itself, what it sees and how it turns.
    assert_eq!((first.2, second.2), (1, 2));
}

#[test]
fn the_cache_takes_what_is_told_of_it() {
    if !there() {
        return;
    }
    for (name, layers, keys, values) in [
        ("qwen2", usize::MAX, CacheType::F16, CacheType::F16),
        ("qwen2", usize::MAX, CacheType::Q8_0, CacheType::F16),
        ("qwen2", 1, CacheType::Q8_0, CacheType::Q8_0),
        ("gemma3", usize::MAX, CacheType::F32, CacheType::F32),
    ] {
        let cache = CacheTypes { keys, values };
        let asked = Arc::default();
        let model = on_emulator(1, Fault::None, &asked).gpu_layers(layers).open(architecture(name)).unwrap();
        let mut stepper = model.stepper(StepperOptions::default().cache(cache).context(64)).unwrap();
        stepper.feed(&[7; 33]).unwrap();
        let (told, private) = (stepper.cache_bytes(33), asked.lock().unwrap().private);
        match layers {
            usize::MAX => assert_eq!(told, private, "{name}"),
            // The others, all of one shape, are counted as on the CPU.
            _ => {
                let cpu = Model::open(architecture(name)).unwrap();
                let blocks = cpu.metadata().u32("qwen2.block_count").unwrap().unwrap() as usize;
                let others = cpu.cache_bytes(cache, 33) / blocks * (blocks - layers);
                assert_eq!(told, private + others, "{name}");
            }
        }
        assert_eq!(told, model.cache_bytes(cache, 33), "{name}");
    }
}

#[test]
fn a_token_through_a_mixture_is_one_command_buffer() {
    if !there() {
        return;
    }
    // One of each kind of router, and one that chooses on the CPU, which each layer waits for.
    let names =
        ["qwen3moe", "deepseek3", "glm4moe", "gpt-oss", "llama4", "gemma4-moe", "nemotron-h-moe", "phimoe"];
    for name in names.into_iter().take(if slow() { 2 } else { usize::MAX }) {
        let asked = Arc::default();
        let model = on_emulator(1, Fault::None, &asked).open(architecture(name)).unwrap();
        let mut stepper = model.stepper(StepperOptions::default().context(32)).unwrap();
        let mut finishes = |tokens: &[u32]| {
            let before = asked.lock().unwrap().finishes;
            stepper.feed(tokens).unwrap();
            asked.lock().unwrap().finishes - before
        };
        let found = [finishes(&[1, 2, 3]), finishes(&[4]), finishes(&[5, 6, 7, 8, 9, 10, 11, 12, 13])];
        let routed = asked.lock().unwrap().dispatches.iter().any(|kernel| kernel == "route");
        assert_eq!((routed, found[..2] == [1, 1]), (name != "phimoe", name != "phimoe"), "{name}: {found:?}");
        // More tokens are sorted by expert on the CPU, but for those of the last layer, of which only one goes on.
        assert!(found[2] > 1 || name != "qwen3moe", "{name}: {found:?}");
    }
}

#[test]
fn every_kernel_agrees_with_the_cpu_and_every_kernel_is_examined() {
    let Some(mut emulator) = Emulator::new() else { return };
    let device = Emulated::new(7, MEMORY, Fault::None, Arc::default()).unwrap();
    let examination = gristmill::metal::examine(Box::new(device)).unwrap();
    let wrong: Vec<_> = examination.checks.iter().filter(|check| !check.agrees()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let worst = examination.checks.iter().fold(0.0, |worst: f64, check| worst.max(check.worst));
    let mut examined: Vec<String> =
        examination.checks.iter().flat_map(|check| check.kernels.clone()).collect();
    println!("{} checks, {} kernels, worst {worst:.1e}", examination.checks.len(), examined.len());
    examined.sort();
    assert_eq!(examined, emulator.kernels());

    // And what is wrong is told: a kernel that leaves out a part, and a device that breaks down on the way.
    for fault in [Fault::Grid(1), Fault::Offset(3), Fault::Broken(5)] {
        let device = Emulated::new(7, MEMORY, fault, Arc::default()).unwrap();
        assert!(gristmill::metal::examine(Box::new(device)).unwrap().faults() > 0, "{fault:?}");
        if slow() {
            break;
        }
    }
}
