//! What caches of each type keep of a model's logits.

use gristmill::generate::StepperOptions;
use gristmill::{CacheType, CacheTypes, Model};

use crate::logits::{divergence, logits};
use crate::models;

fn tokens(model: &Model, count: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 % model.vocabulary()) as u32).collect()
}

#[test]
fn caches_of_every_type_give_nearly_the_same_logits_and_the_same_for_any_batch() {
    let model = Model::open(models::path(models::LLAMA)).unwrap();
    let tokens = tokens(&model, 100);
    let expected = logits(&model, &tokens, 512, CacheType::F32);
    for (ty, most) in
        [(CacheType::F16, 1e-5), (CacheType::Bf16, 1e-3), (CacheType::Q8_0, 4e-3), (CacheType::Q4_0, 6e-1)]
    {
        let found = logits(&model, &tokens, 512, ty);
        let lost = divergence(&expected, &found, model.vocabulary());
        assert!(lost > 0.0 && lost < most, "{ty}: {lost}");
        assert_eq!(logits(&model, &tokens, 1, ty), found, "{ty}: token by token");
        assert_eq!(logits(&model, &tokens, 7, ty), found, "{ty}: seven tokens at a time");
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
