//! Each stage against distributions worked out by hand, all together against a plain reference, and the draws.

use super::*;

/// Logits whose exponentials are these numbers.
fn logs(weights: &[f32]) -> Vec<f32> {
    weights.iter().map(|weight| weight.ln()).collect()
}

fn probabilities(options: SamplerOptions, logits: &[f32]) -> Vec<(u32, f32)> {
    Sampler::new(options).unwrap().probabilities(logits).unwrap()
}

#[track_caller]
fn assert_near(found: &[(u32, f32)], expected: &[(u32, f32)]) {
    let near = found.len() == expected.len()
        && found.iter().zip(expected).all(|(f, e)| f.0 == e.0 && (f.1 - e.1).abs() < 1e-6);
    assert!(near, "found {found:?}, expected {expected:?}");
}

/// Reproducible logits of any number, from -8 to 8; `levels` of them differ.
fn noise(count: usize, seed: u64, levels: u32) -> Vec<f32> {
    let mut random = Random::new(seed);
    let step = 16.0 / f64::from(levels);
    (0..count).map(|_| ((random.unit() * f64::from(levels)).floor() * step - 8.0) as f32).collect()
}

#[test]
fn unfiltered_is_the_softmax() {
    let found = probabilities(SamplerOptions::unfiltered(), &logs(&[1.0, 4.0, 3.0, 2.0]));
    assert_near(&found, &[(1, 0.4), (2, 0.3), (3, 0.2), (0, 0.1)]);
}

#[test]
fn temperature_is_an_exponent_of_the_weights() {
    let half = SamplerOptions::unfiltered().temperature(0.5);
    assert_near(&probabilities(half, &logs(&[1.0, 3.0])), &[(1, 0.9), (0, 0.1)]);
    let two = SamplerOptions::unfiltered().temperature(2.0);
    assert_near(&probabilities(two, &logs(&[1.0, 16.0])), &[(1, 0.8), (0, 0.2)]);
    // As near to 0 as it gets is still a distribution.
    let least = SamplerOptions::unfiltered().temperature(f32::from_bits(1));
    assert_near(&probabilities(least, &[1.0, 2.0, 2.0]), &[(1, 0.5), (2, 0.5), (0, 0.0)]);
}

#[test]
fn top_k_keeps_the_best_and_lower_ids_of_equals() {
    let logits = logs(&[3.0, 1.0, 3.0, 2.0, 3.0]);
    let top = |k| probabilities(SamplerOptions::unfiltered().top_k(k), &logits);
    assert_near(&top(1), &[(0, 1.0)]);
    assert_near(&top(2), &[(0, 0.5), (2, 0.5)]);
    assert_near(&top(4), &[(0, 3.0 / 11.0), (2, 3.0 / 11.0), (4, 3.0 / 11.0), (3, 2.0 / 11.0)]);
    assert_eq!(top(5), top(0));
    assert_eq!(top(usize::MAX), top(0));
}

#[test]
fn zero_and_minus_zero_are_equal() {
    let options = SamplerOptions::unfiltered().top_k(1);
    assert_near(&probabilities(options, &[-0.0, 0.0]), &[(0, 1.0)]);
    assert_near(&probabilities(SamplerOptions::unfiltered(), &[-0.0, 0.0]), &[(0, 0.5), (1, 0.5)]);
}

#[test]
fn top_p_includes_the_token_that_reaches_it() {
    let logits = logs(&[1.0, 2.0, 1.0, 4.0]);
    let top = |p| probabilities(SamplerOptions::unfiltered().top_p(p), &logits);
    assert_near(&top(0.01), &[(3, 1.0)]);
    assert_near(&top(0.49), &[(3, 1.0)]);
    assert_near(&top(0.6), &[(3, 2.0 / 3.0), (1, 1.0 / 3.0)]);
    assert_near(&top(0.8), &[(3, 4.0 / 7.0), (1, 2.0 / 7.0), (0, 1.0 / 7.0)]);
    // More than the first round sorts.
    let flat = probabilities(SamplerOptions::unfiltered().top_p(0.75), &[1.0; 512]);
    assert_eq!(flat.iter().map(|c| c.0).collect::<Vec<_>>(), (0..384).collect::<Vec<_>>());
}

#[test]
fn top_p_counts_shares_of_what_top_k_left() {
    // 4/10 of all tokens is less than 0.5, but 4/7 of the two best is more.
    let options = SamplerOptions::unfiltered().top_k(2).top_p(0.5);
    assert_near(&probabilities(options, &logs(&[4.0, 3.0, 2.0, 1.0])), &[(0, 1.0)]);
}

#[test]
fn min_p_is_relative_to_the_likeliest() {
    let logits = logs(&[1.0, 8.0, 3.9, 4.1]);
    let min = |p| probabilities(SamplerOptions::unfiltered().min_p(p), &logits);
    assert_near(&min(0.5), &[(1, 8.0 / 12.1), (3, 4.1 / 12.1)]);
    assert_near(&min(0.1), &[(1, 8.0 / 17.0), (3, 4.1 / 17.0), (2, 3.9 / 17.0), (0, 1.0 / 17.0)]);
    assert_near(&min(1.0), &[(1, 1.0)]);
    // The temperature comes after it, so it changes nothing about who stays.
    let hot = probabilities(SamplerOptions::unfiltered().min_p(0.5).temperature(100.0), &logits);
    assert_eq!(hot.len(), 2);
}

#[test]
fn typical_prefers_middling_surprise_to_the_likeliest() {
    // p = 1/2, 1/4, 1/8, 1/16, 1/16: entropy 1.875 bits; distances .875, .125, 1.125, 2.125, 2.125 bits.
    let logits = logs(&[8.0, 4.0, 2.0, 1.0, 1.0]);
    let typical = |p| probabilities(SamplerOptions::unfiltered().typical_p(p), &logits);
    assert_near(&typical(0.2), &[(1, 1.0)]);
    assert_near(&typical(0.7), &[(0, 2.0 / 3.0), (1, 1.0 / 3.0)]);
    assert_near(&typical(0.8), &[(0, 4.0 / 7.0), (1, 2.0 / 7.0), (2, 1.0 / 7.0)]);
    assert_near(&typical(0.9), &[(0, 8.0 / 15.0), (1, 4.0 / 15.0), (2, 2.0 / 15.0), (3, 1.0 / 15.0)]);
}

#[test]
fn penalties_count_the_last_tokens() {
    let options = SamplerOptions::unfiltered()
        .repeat_penalty(2.0)
        .frequency_penalty(0.25)
        .presence_penalty(0.5)
        .penalty_last_n(4);
    let mut sampler = Sampler::new(options).unwrap();
    let mut adjusted = |history: &[u32]| {
        sampler.set_history(history);
        sampler.adjust(&[4.0, -4.0, 0.0, 1.0]).unwrap();
        sampler.row.clone()
    };
    assert_eq!(adjusted(&[]), [4.0, -4.0, 0.0, 1.0]);
    // 4/2 - (2*0.25 + 0.5); -4*2 - (0.25 + 0.5); 0 - (0.25 + 0.5)
    assert_eq!(adjusted(&[0, 1, 2, 0]), [1.0, -8.75, -0.75, 1.0]);
    assert_eq!(adjusted(&[3, 3, 3, 0, 1, 2, 0]), [1.0, -8.75, -0.75, 1.0]);
    // Tokens without a logit are no matter.
    assert_eq!(adjusted(&[77, u32::MAX]), [4.0, -4.0, 0.0, 1.0]);
}

#[test]
fn accepting_one_by_one_is_the_same_as_setting_the_history() {
    let options = SamplerOptions::unfiltered().frequency_penalty(0.5).penalty_last_n(5);
    let tokens = [1, 2, 2, 3, 0, 0, 0, 1, 2, 0, 3];
    let logits = [0.5, 1.0, -1.0, 2.0];
    let (mut one, mut all) = (Sampler::new(options.clone()).unwrap(), Sampler::new(options).unwrap());
    for end in 0..=tokens.len() {
        all.set_history(&tokens[..end]);
        assert_eq!(one.probabilities(&logits).unwrap(), all.probabilities(&logits).unwrap(), "{end}");
        tokens.get(end).into_iter().for_each(|&token| one.accept(token));
    }
}

#[test]
fn a_window_of_any_length_is_possible() {
    let options = SamplerOptions::greedy().presence_penalty(2.0).penalty_last_n(usize::MAX);
    let mut sampler = Sampler::new(options).unwrap();
    sampler.set_history(&[0; 1000]);
    assert_eq!(sampler.sample(&[1.0, 0.0]).unwrap(), 1);
}

#[test]
fn biases_add_up_and_bans_hold() {
    let options = SamplerOptions::unfiltered().bias(0, 1.0).bias(0, 0.5).bias(3, f32::NEG_INFINITY).ban([1]);
    let mut sampler = Sampler::new(options).unwrap();
    sampler.adjust(&[0.0, 100.0, 1.5, 100.0]).unwrap();
    assert_eq!(sampler.row, [1.5, f32::NEG_INFINITY, 1.5, f32::NEG_INFINITY]);
    assert_near(&sampler.probabilities(&[0.0, 100.0, 1.5, 100.0]).unwrap(), &[(0, 0.5), (2, 0.5)]);
}

#[test]
fn biases_and_penalties_never_overflow() {
    let options = SamplerOptions::unfiltered().bias(0, f32::MAX).repeat_penalty(1e-30).bias(1, f32::MIN);
    let mut sampler = Sampler::new(options).unwrap();
    sampler.set_history(&[0, 1]);
    assert_near(&sampler.probabilities(&[f32::MAX, f32::MIN]).unwrap(), &[(0, 1.0), (1, 0.0)]);
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    assert_eq!(sampler.sample(&[1.0, 3.0, f32::NEG_INFINITY, 3.0]).unwrap(), 1);
    assert_eq!(sampler.sample(&[f32::NEG_INFINITY, f32::MIN]).unwrap(), 1);
    assert_eq!(sampler.probabilities(&[0.0, 1.0]).unwrap(), [(1, 1.0)]);
    // Whatever the other stages say: typical alone would keep token 1.
    let options = SamplerOptions::greedy().typical_p(0.2);
    assert_eq!(Sampler::new(options).unwrap().sample(&logs(&[8.0, 4.0, 2.0, 1.0, 1.0])).unwrap(), 0);
}

#[test]
fn negative_infinity_never_comes() {
    let mut logits = vec![f32::NEG_INFINITY; 300];
    logits[200] = -1e30;
    for options in [
        SamplerOptions::default(),
        SamplerOptions::unfiltered(),
        SamplerOptions::greedy(),
        SamplerOptions::unfiltered().top_p(0.5),
        SamplerOptions::unfiltered().typical_p(0.5),
        SamplerOptions::unfiltered().repeat_penalty(1e-30),
    ] {
        let mut sampler = Sampler::new(options).unwrap();
        sampler.set_history(&[0, 1, 2]);
        assert_eq!(sampler.probabilities(&logits).unwrap(), [(200, 1.0)]);
        assert_eq!(sampler.sample(&logits).unwrap(), 200);
    }
}

#[test]
fn rows_that_say_nothing_are_errors_and_draw_nothing() {
    let inf = f32::INFINITY;
    for options in [SamplerOptions::default(), SamplerOptions::unfiltered(), SamplerOptions::greedy()] {
        let mut sampler = Sampler::new(options).unwrap();
        for row in [&[][..], &[-inf, -inf]] {
            let error = sampler.sample(row).unwrap_err();
            assert!(matches!(error, Error::NoTokenLeft { logits } if logits == row.len()), "{error}");
        }
        for bad in [f32::NAN, inf] {
            let error = sampler.sample(&[1.0, -inf, bad, f32::NAN]).unwrap_err();
            assert!(
                matches!(error, Error::NonFiniteLogit { token: 2, logits: 4, found } if found.to_bits() == bad.to_bits()),
                "{error}"
            );
        }
        let mut fresh = Sampler::new(sampler.options().clone()).unwrap();
        let row = noise(50, 1, 1 << 20);
        assert_eq!(sampler.sample(&row).unwrap(), fresh.sample(&row).unwrap());
    }
}

#[test]
fn options_outside_their_ranges_are_named() {
    let base = SamplerOptions::default;
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let cases = [
        ("temperature", vec![base().temperature(-0.1), base().temperature(nan), base().temperature(inf)]),
        ("top_p", vec![base().top_p(0.0), base().top_p(1.01), base().top_p(nan), base().top_p(-1.0)]),
        ("min_p", vec![base().min_p(-0.1), base().min_p(1.01), base().min_p(nan)]),
        ("typical_p", vec![base().typical_p(0.0), base().typical_p(1.01), base().typical_p(nan)]),
        (
            "repeat_penalty",
            vec![
                base().repeat_penalty(0.0),
                base().repeat_penalty(-1.0),
                base().repeat_penalty(1e-40),
                base().repeat_penalty(inf),
                base().repeat_penalty(nan),
            ],
        ),
        ("frequency_penalty", vec![base().frequency_penalty(nan), base().frequency_penalty(-inf)]),
        ("presence_penalty", vec![base().presence_penalty(nan), base().presence_penalty(inf)]),
        ("logit_bias", vec![base().bias(1, nan), base().bias(1, inf)]),
    ];
    for (name, wrong) in cases {
        for options in wrong {
            let error = Sampler::new(options).unwrap_err();
            assert!(
                matches!(error, Error::InvalidOption { option, .. } if option == name),
                "{name}: {error}"
            );
        }
    }
    for (name, options) in [("logit_bias", base().bias(2, 0.0)), ("banned", base().ban([2]))] {
        let error = Sampler::new(options).unwrap().sample(&[1.0, 2.0]).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { option, .. } if option == name), "{name}: {error}");
        assert!(error.to_string().contains("below 2"), "{error}");
    }
    let edges = base().top_p(1.0).typical_p(1.0).min_p(1.0).repeat_penalty(0.01).temperature(0.0);
    assert!(Sampler::new(edges.frequency_penalty(-2.0).presence_penalty(-2.0)).is_ok());
}

/// What `options` leave of `logits`, without history: everything sorted, every share computed anew, std's functions.
fn plainly(options: &SamplerOptions, logits: &[f32]) -> Vec<(u32, f64)> {
    let mut kept: Vec<(u32, f64)> =
        logits.iter().enumerate().map(|(id, &logit)| (id as u32, f64::from(logit))).collect();
    kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let shares = |kept: &[(u32, f64)], temperature: f64| -> Vec<f64> {
        let sum: f64 = kept.iter().map(|k| (k.1 / temperature).exp()).sum();
        kept.iter().map(|k| (k.1 / temperature).exp() / sum).collect()
    };
    if options.top_k > 0 {
        kept.truncate(options.top_k);
    }
    if options.typical_p < 1.0 {
        let shares = shares(&kept, 1.0);
        let entropy: f64 = shares.iter().map(|p| -p * p.ln()).sum();
        let mut order: Vec<usize> = (0..kept.len()).collect();
        // To nine digits, so that equal logits tie.
        let distance = |i: usize| ((-shares[i].ln() - entropy).abs() * 1e9).round() as u64;
        order.sort_by_key(|&i| (distance(i), i));
        let mut sum = 0.0;
        let mut stay = Vec::new();
        for i in order {
            stay.push(i);
            sum += shares[i];
            if sum > f64::from(options.typical_p) {
                break;
            }
        }
        stay.sort();
        kept = stay.into_iter().map(|i| kept[i]).collect();
    }
    if options.top_p < 1.0 {
        let shares = shares(&kept, 1.0);
        let before = |i: usize| shares[..i].iter().sum::<f64>();
        let count = (0..kept.len()).filter(|&i| before(i) < f64::from(options.top_p)).count();
        kept.truncate(count);
    }
    let likeliest = shares(&kept, 1.0)[0];
    let stay: Vec<bool> =
        shares(&kept, 1.0).iter().map(|p| p / likeliest >= f64::from(options.min_p) - 1e-12).collect();
    let mut stay = stay.into_iter();
    kept.retain(|_| stay.next().unwrap());
    let shares = shares(&kept, f64::from(options.temperature));
    kept.iter().zip(shares).map(|(k, p)| (k.0, p)).collect()
}

#[test]
fn all_stages_together_equal_a_plain_reference() {
    let mut compared = 0;
    for (seed, &count) in [1, 2, 17, 255, 256, 257, 1025, 3000].iter().enumerate() {
        for levels in [7, 1 << 20] {
            let logits = noise(count, seed as u64, levels);
            for top_k in [0, 1, 5, 40, 700] {
                for (top_p, typical_p) in [(1.0, 1.0), (0.9, 1.0), (1.0, 0.9), (0.3, 0.6), (0.999, 0.999)] {
                    for min_p in [0.0, 0.05] {
                        let options = SamplerOptions::unfiltered()
                            .top_k(top_k)
                            .top_p(top_p)
                            .typical_p(typical_p)
                            .min_p(min_p)
                            .temperature(1.7);
                        let found = probabilities(options.clone(), &logits);
                        let expected = plainly(&options, &logits);
                        assert!(
                            found.iter().map(|f| f.0).eq(expected.iter().map(|e| e.0)),
                            "{count} {levels} {options:?}: {} tokens, expected {}",
                            found.len(),
                            expected.len()
                        );
                        for (f, e) in found.iter().zip(&expected) {
                            assert!((f64::from(f.1) - e.1).abs() < 1e-7, "{options:?}: {f:?} {e:?}");
                        }
                        compared += 1;
                    }
                }
            }
        }
    }
    assert_eq!(compared, 800);
}

#[test]
fn draws_follow_the_probabilities() {
    for options in [SamplerOptions::unfiltered().seed(5), SamplerOptions::default().seed(5)] {
        let logits = noise(12, 3, 1 << 20).iter().map(|logit| logit / 4.0).collect::<Vec<_>>();
        let mut sampler = Sampler::new(options).unwrap();
        let expected = sampler.probabilities(&logits).unwrap();
        let draws = 50_000;
        let mut counts = [0u32; 12];
        for _ in 0..draws {
            counts[sampler.sample(&logits).unwrap() as usize] += 1;
        }
        let chi_square: f64 = expected
            .iter()
            .map(|&(id, p)| {
                let mean = f64::from(p) * f64::from(draws);
                (f64::from(counts[id as usize]) - mean).powi(2) / mean
            })
            .sum();
        assert_eq!(expected.iter().map(|&(id, _)| counts[id as usize]).sum::<u32>(), draws);
        // The 99.9th percentile for 11 degrees of freedom.
        assert!(chi_square < 31.26, "{chi_square} for {counts:?}");
    }
}

#[test]
fn a_seed_gives_the_same_tokens_for_ever() {
    let tokens = |options: SamplerOptions| -> Vec<u32> {
        let mut sampler = Sampler::new(options).unwrap();
        (0..16)
            .map(|step| {
                let token = sampler.sample(&noise(1000, step, 1 << 20)).unwrap();
                sampler.accept(token);
                token
            })
            .collect()
    };
    // Computed by an independent program in Python 3.11.
    assert_eq!(tokens(SamplerOptions::default()), DEFAULT);
    assert_eq!(tokens(SamplerOptions::default().seed(u64::MAX)), LAST_SEED);
    assert_eq!(tokens(SamplerOptions::unfiltered().temperature(1.5).seed(1234)), UNFILTERED);
}

const DEFAULT: [u32; 16] = [916, 996, 962, 510, 999, 997, 549, 785, 230, 79, 346, 856, 36, 569, 182, 145];
const LAST_SEED: [u32; 16] = [583, 700, 973, 544, 973, 274, 652, 410, 154, 397, 346, 70, 268, 90, 608, 350];
const UNFILTERED: [u32; 16] = [737, 396, 967, 18, 717, 326, 223, 906, 897, 66, 893, 329, 128, 70, 572, 242];

#[test]
fn reset_and_clone_repeat_the_stream() {
    let options = SamplerOptions::unfiltered().presence_penalty(1.0).seed(9);
    let mut sampler = Sampler::new(options).unwrap();
    let row = noise(100, 4, 1 << 20).iter().map(|logit| logit / 8.0).collect::<Vec<_>>();
    let run = |sampler: &mut Sampler| -> Vec<u32> {
        (0..20)
            .map(|_| {
                let token = sampler.sample(&row).unwrap();
                sampler.accept(token);
                token
            })
            .collect()
    };
    let first = run(&mut sampler);
    let mut copy = sampler.clone();
    let second = run(&mut sampler);
    assert_ne!(first, second);
    assert_eq!(run(&mut copy), second);
    sampler.reset();
    assert_eq!(run(&mut sampler), first);
}

#[test]
fn large_vocabularies_find_their_needles() {
    let mut logits = noise(262_144, 8, 1 << 20);
    for (rank, id) in [262_143, 0, 131_072, 77].into_iter().enumerate() {
        logits[id] = 30.0 - rank as f32 * 0.1;
    }
    for options in [
        SamplerOptions::default(),
        SamplerOptions::unfiltered().top_p(0.95),
        SamplerOptions::unfiltered().min_p(0.05),
    ] {
        let found = probabilities(options, &logits);
        assert_eq!(found.iter().map(|c| c.0).collect::<Vec<_>>(), [262_143, 0, 131_072, 77]);
    }
}

#[test]
fn scores_are_logarithms_of_probabilities() {
    let logits = [1000.0, 1000.0 + 3f32.ln(), f32::NEG_INFINITY];
    let scores = log_softmax(&logits).unwrap();
    assert!((scores[0] - 0.25f64.ln()).abs() < 1e-4, "{scores:?}");
    assert!((scores[1] - 0.75f64.ln()).abs() < 1e-4, "{scores:?}");
    assert_eq!(scores[2], f64::NEG_INFINITY);
    let row = noise(5000, 2, 1 << 20);
    let scores = log_softmax(&row).unwrap();
    assert!((scores.iter().map(|score| score.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
    assert!((0..5000u32).all(|token| logprob(&row, token).unwrap() == scores[token as usize]));

    assert!(matches!(logprob(&[1.0], 1), Err(Error::TokenOutOfRange { token: 1, vocab: 1 })));
    assert!(matches!(log_softmax(&[]), Err(Error::NoTokenLeft { logits: 0 })));
    assert!(matches!(log_softmax(&[f32::NEG_INFINITY]), Err(Error::NoTokenLeft { logits: 1 })));
    assert!(matches!(log_softmax(&[0.0, f32::NAN]), Err(Error::NonFiniteLogit { token: 1, .. })));
}

#[test]
fn samplers_can_go_to_other_threads() {
    fn assert_send<T: Send + Sync + 'static>() {}
    assert_send::<Sampler>();
}
