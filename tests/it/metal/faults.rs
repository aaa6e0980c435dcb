//! What is wrong on purpose is found: so that the tests of whole models test something.

use std::sync::Arc;

use gristmill::generate::{Sampler, SamplerOptions, StepperOptions};
use gristmill::{Error, Model};

use super::device::{Asked, Fault};
use super::{on_emulator, slow, there};
use crate::models;

/// The logits after a prompt and a longer one behind it (so that no number of the first would do for the second), each with the
/// place of the largest, or what the device said.
fn run(seed: u64, fault: Fault, asked: &Arc<std::sync::Mutex<Asked>>) -> Result<Vec<f32>, Error> {
    let model: Model = on_emulator(seed, fault, asked).open(models::path(models::LLAMA))?;
    let mut stepper = model.stepper(StepperOptions::default().context(8))?;
    let mut all = Vec::new();
    for tokens in [&[5, 17][..], &[300, 9, 41]] {
        stepper.feed(tokens)?;
        all.push(stepper.sample(&mut Sampler::new(SamplerOptions::greedy())?)? as f32);
        all.extend_from_slice(stepper.logits());
    }
    Ok(all)
}

/// Whether a fault shows in some order of what may run at the same time.
fn shows(fault: Fault, right: &[f32]) -> bool {
    (0..12).any(|seed| {
        let found = run(seed, fault, &Arc::default());
        // NaN is not itself, and shows.
        !found.is_ok_and(|found| found == right)
    })
}

#[test]
fn a_wrong_barrier_offset_grid_or_order_and_a_stale_buffer_show() {
    if !there() {
        return;
    }
    let asked = Arc::default();
    let right = run(0, Fault::None, &asked).unwrap();
    // The right one gives the same bits in every order.
    for seed in 1..if slow() { 3 } else { 8 } {
        assert!(run(seed, Fault::None, &Arc::default()).unwrap() == right, "seed {seed}");
    }
    let asked = asked.lock().unwrap();
    let (barriers, dispatches, writes) = (asked.barriers, asked.dispatches.len(), asked.writes);
    let step = if slow() { 37 } else { 5 };
    let mut hidden = Vec::new();
    let mut check = |fault: Fault, what: &str| {
        if !shows(fault, &right) {
            hidden.push(format!("{fault:?} {what}"));
        }
    };
    for n in (1..=barriers).step_by(step) {
        check(Fault::Barrier(n), "");
    }
    for n in (1..=dispatches).step_by(step) {
        let name = &asked.dispatches[n - 1];
        check(Fault::Offset(n), name);
        check(Fault::Grid(n), name);
        check(Fault::Order(n), name);
    }
    for n in (1..=writes).step_by(if slow() { step } else { 1 }) {
        check(Fault::Stale(n), "");
    }
    println!("{barriers} barriers, {dispatches} dispatches, {writes} writes");
    assert!(hidden.is_empty(), "{hidden:#?}");
}

#[test]
fn a_device_that_breaks_is_an_error_and_the_sequence_stays() {
    if !there() {
        return;
    }
    let asked = Arc::default();
    let model = on_emulator(1, Fault::Broken(60), &asked).open(models::path(models::LLAMA)).unwrap();
    let mut stepper = model.stepper(StepperOptions::default().context(8)).unwrap();
    stepper.feed(&[5, 17]).unwrap();
    let error = stepper.feed(&[9]).and_then(|()| stepper.feed(&[10])).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    assert!(stepper.len() < 4 && stepper.len() >= 2);
}

#[test]
fn logits_that_a_device_does_not_give_are_an_error() {
    if !there() {
        return;
    }
    let model = on_emulator(1, Fault::Unread(8), &Arc::default()).open(models::path(models::LLAMA)).unwrap();
    let mut stepper = model.stepper(StepperOptions::default().context(8)).unwrap();
    stepper.feed(&[5, 17]).unwrap();
    let error = stepper.try_logits().unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    assert!(stepper.logits().is_empty());
}
