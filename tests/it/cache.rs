//! What caches of each type keep of a model's logits.

use gristmill::generate::StepperOptions;
use gristmill::{CacheType, CacheTypes, Model};

use crate::logits::{divergence, logits};
use crate::models;

fn tokens(model: &Model, count: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 % model.vocabulary()) as u32).collect()
}

/// What rounding to a type adds to normal numbers of variance one, as a variance: a twelfth of the step's square. A
/// float's step is `2^-bits` of its power of two, whose mean square is 0.54; that of a block of codes is its largest
/// magnitude over the largest code, and the largest of 32 such numbers has a mean square of 5.7.
fn noise(ty: CacheType) -> f64 {
    let step_squared: f64 = match ty {
        CacheType::F16 => 0.54 * 2f64.powi(-20),
        CacheType::Bf16 => 0.54 * 2f64.powi(-14),
        CacheType::Q8_0 => 5.7 / (127.0 * 127.0),
        CacheType::Q4_0 => 5.7 / (8.0 * 8.0),
        other => panic!("{other} keeps every bit"),
    };
    step_squared / 12.0
}

#[test]
fn a_cache_loses_what_its_rounding_explains_and_the_same_for_any_batch() {
    let model = Model::open(models::path(models::LLAMA)).unwrap();
    let tokens = tokens(&model, 100);
    let expected = logits(&model, &tokens, 512, CacheType::F32);
    let types = [CacheType::F16, CacheType::Bf16, CacheType::Q8_0, CacheType::Q4_0];
    // Divergence grows with the variance of what is added: over five decades the quotient stays what it is.
    let quotients = types.map(|ty| {
        let found = logits(&model, &tokens, 512, ty);
        let lost = divergence(&expected, &found, model.vocabulary());
        assert_eq!(logits(&model, &tokens, 1, ty), found, "{ty}: token by token");
        assert_eq!(logits(&model, &tokens, 7, ty), found, "{ty}: seven tokens at a time");
        println!("{ty}: divergence {lost:.2e}, {:.1} times the variance of rounding", lost / noise(ty));
        lost / noise(ty)
    });
    let typical = quotients.iter().product::<f64>().powf(0.25);
    for (ty, quotient) in types.iter().zip(quotients) {
        assert!((0.8..1.25).contains(&(quotient / typical)), "{ty}: {quotient} beside {typical}");
    }
}

#[test]
fn keys_and_values_may_be_kept_in_different_types() {
    let model = Model::open(models::path(models::LLAMA)).unwrap();
    let tokens = tokens(&model, 50);
    let last = |types: CacheTypes| {
        let mut stepper = model.stepper(StepperOptions::default().cache(types)).unwrap();
        stepper.feed(&tokens).unwrap();
        stepper.logits().to_vec()
    };
    let [both, keys, values, neither] = [
        [CacheType::Q8_0, CacheType::Q8_0],
        [CacheType::Q8_0, CacheType::F32],
        [CacheType::F32, CacheType::Q8_0],
        [CacheType::F32, CacheType::F32],
    ]
    .map(|[keys, values]| last(CacheTypes { keys, values }));
    let all = [&both, &keys, &values, &neither];
    for (i, one) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|other| other != one));
        assert!(divergence(&neither, one, model.vocabulary()) < 4e-3);
    }
}

#[test]
fn a_cache_of_codes_takes_about_half_or_a_quarter_of_one_of_halves() {
    let model = Model::open(models::path(models::LLAMA)).unwrap();
    let bytes = |types: CacheTypes| model.cache_bytes(types, 1024);
    let [half, eight, four] = [CacheType::F16, CacheType::Q8_0, CacheType::Q4_0].map(|ty| bytes(ty.into()));
    assert!(eight < half * 2 / 3 && four < half * 2 / 5, "{half} {eight} {four}");
    let mixed = bytes(CacheTypes { keys: CacheType::F16, values: CacheType::Q4_0 });
    assert!(mixed < half && mixed > four);
}
