//! Greedy decoding, for which the GPU gives the largest logit and no other.

use std::sync::{Arc, Mutex};

use gristmill::generate::{GenerateOptions, Sampler, SamplerOptions, StepperOptions};
use gristmill::{Error, Model};

use super::device::{Asked, Fault};
use super::{on_emulator, there};
use crate::models::{self, Parts};

const PROMPT: [u32; 5] = [1, 403, 407, 261, 378];

fn open(file: Vec<u8>, asked: &Arc<Mutex<Asked>>) -> Model {
    on_emulator(1, Fault::None, asked).from_bytes(file).unwrap()
}

/// Tokens that a sampler chooses from all logits, one by one.
fn by_logits(model: &Model, options: &SamplerOptions, count: usize) -> (Vec<u32>, Vec<f32>) {
    let mut stepper = model.stepper(StepperOptions::default().context(64)).unwrap();
    let mut sampler = Sampler::new(options.clone()).unwrap();
    stepper.feed(&PROMPT).unwrap();
    sampler.set_history(&PROMPT);
    let mut chosen = Vec::new();
    for _ in 0..count {
        let token = sampler.sample(stepper.logits()).unwrap();
        sampler.accept(token);
        stepper.feed(&[token]).unwrap();
        chosen.push(token);
    }
    (chosen, stepper.logits().to_vec())
}

/// The same by a generation, with the bytes that were read of the device for each token.
fn by_generation(
    model: &Model,
    options: &SamplerOptions,
    count: usize,
    asked: &Arc<Mutex<Asked>>,
) -> (Vec<u32>, Vec<f32>, Vec<usize>) {
    let mut stepper = model.stepper(StepperOptions::default().context(64)).unwrap();
    let mut sampler = Sampler::new(options.clone()).unwrap();
    let read = || std::mem::take(&mut asked.lock().unwrap().read);
    read();
    stepper.feed(&PROMPT).unwrap();
    let mut bytes = vec![read()];
    let options = GenerateOptions::default().max_tokens(count).ignore_end(true);
    let mut steps = stepper.generate(&mut sampler, options).unwrap();
    let mut chosen = Vec::new();
    for step in steps.by_ref() {
        chosen.push(step.unwrap().token);
        bytes.push(read());
    }
    steps.finish().unwrap();
    read();
    (chosen, stepper.logits().to_vec(), bytes)
}

#[test]
fn the_largest_logit_is_all_that_is_read() {
    if !there() {
        return;
    }
    let asked = Arc::default();
    let file = models::bytes(models::STORIES);
    let model = open(file.clone(), &asked);
    let row = model.vocabulary() * size_of::<f32>();
    let greedy = SamplerOptions::greedy();
    let (expected, logits) = by_logits(&model, &greedy, 6);
    let (chosen, after, read) = by_generation(&model, &greedy, 6, &asked);
    assert_eq!((&chosen, &after), (&expected, &logits));
    // The value and its place, for the prompt and each token that was fed; nothing more to choose by.
    assert_eq!(read, [8, 0, 8, 8, 8, 8, 8]);

    // Whoever needs all of them gets all.
    let first = expected[0];
    let others = [
        greedy.clone().bias(first, -3.0),
        greedy.clone().ban([first]),
        greedy.clone().repeat_penalty(1.5),
        SamplerOptions::default(),
    ];
    for options in others {
        let (expected, _) = by_logits(&model, &options, 4);
        let (chosen, _, read) = by_generation(&model, &options, 4, &asked);
        assert_eq!(chosen, expected, "{options:?}");
        assert_eq!(read[..2], [8, row], "{options:?}");
    }
    let mut sampler = Sampler::new(greedy.ban([u32::MAX])).unwrap();
    let mut stepper = model.stepper(StepperOptions::default().context(64)).unwrap();
    stepper.feed(&PROMPT).unwrap();
    assert!(matches!(stepper.sample(&mut sampler), Err(Error::InvalidOption { .. })));

    // A token that the file suppresses is passed over.
    let mut parts = Parts::of(&file);
    parts.metadata.set("tokenizer.ggml.suppress_tokens", vec![first as i32]);
    let model = open(parts.file().unwrap(), &asked);
    let (expected, _) = by_logits(&model, &SamplerOptions::greedy().ban([first]), 4);
    let (chosen, _, read) = by_generation(&model, &SamplerOptions::greedy(), 4, &asked);
    assert_eq!((chosen, read[1]), (expected, row));
}

#[test]
fn logits_stay_those_of_their_sequence() {
    if !there() {
        return;
    }
    let asked = Arc::default();
    let model = open(models::bytes(models::STORIES), &asked);
    let options = StepperOptions::default().context(64);
    let mut first = model.stepper(options.clone()).unwrap();
    first.feed(&PROMPT).unwrap();
    let expected = first.logits().to_vec();
    let mut second = model.stepper(options).unwrap();
    second.feed(&PROMPT).unwrap();
    let fork = second.fork();
    // Others run before anybody asks.
    first.feed(&[17, 5]).unwrap();
    second.feed(&[300]).unwrap();
    assert_eq!(fork.logits(), expected);
    assert!(second.logits() != expected && !second.logits().is_empty());
    second.truncate(3);
    assert!(second.logits().is_empty());
}

#[test]
fn damaged_logits_are_refused_as_on_the_cpu() {
    if !there() {
        return;
    }
    let mut parts = Parts::of(&models::bytes(models::STORIES));
    let norm = parts.tensors.iter_mut().find(|tensor| tensor.name == "output_norm.weight").unwrap();
    norm.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let file = parts.file().unwrap();
    let refused = [Model::from_bytes(file.clone()).unwrap(), open(file, &Arc::default())].map(|model| {
        let mut stepper = model.stepper(StepperOptions::default().context(64)).unwrap();
        stepper.feed(&PROMPT).unwrap();
        stepper.sample(&mut Sampler::new(SamplerOptions::greedy()).unwrap()).unwrap_err()
    });
    for error in refused {
        assert!(matches!(error, Error::NonFiniteLogit { token: 0, .. }), "{error}");
    }
}
