//! Arguments at and beyond their limits; whatever the way, the same logits: every comparison is `==`.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use gristmill::advise::Advisor;
use gristmill::generate::{
    Chat, ChatOptions, Finish, GenerateOptions, Generation, Overflow, Reply, Sampler, SamplerOptions,
    Stepper, StepperOptions,
};
use gristmill::model::ModelOptions;
use gristmill::speed::{Cost, Options, Test};
use gristmill::text::Tokenizer;
use gristmill::{CacheType, Error, Model};
use serde_json::json;

use crate::models::{self, tokens};

const SMALL: [&str; 3] = [models::GPT2, models::LLAMA, models::MISTRAL];

fn open(name: &str) -> Model {
    ModelOptions::default().threads(2).open(models::path(name)).unwrap()
}

fn stepper(model: &Model) -> Stepper {
    model.stepper(StepperOptions::default()).unwrap()
}

/// The logits after the last of `tokens`, fed at once to a new stepper.
fn fresh(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut stepper = stepper(model);
    stepper.feed(tokens).unwrap();
    stepper.logits().to_vec()
}

/// The logits after each of `tokens`.
fn all(model: &Model, tokens: &[u32], options: StepperOptions) -> Vec<f32> {
    let mut stepper = model.stepper(options).unwrap();
    let mut all = Vec::new();
    stepper.feed_each(tokens, |_, row| all.extend_from_slice(row)).unwrap();
    assert_eq!(stepper.logits(), &all[all.len() - model.vocabulary()..]);
    all
}

#[test]
fn everything_can_be_sent_to_another_thread() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Model>();
    sync::<Model>();
    send::<Stepper>();
    send::<Chat>();
    send::<Sampler>();
    send::<Tokenizer>();
    sync::<Tokenizer>();
    send::<Generation<'static>>();
    send::<Reply<'static>>();
    send::<Error>();
    sync::<Error>();
}

#[test]
fn nothing_fed_changes_nothing() {
    let model = open(models::LLAMA);
    let mut stepper = stepper(&model);
    stepper.feed(&[]).unwrap();
    stepper.feed_each(&[], |_, _| panic!("there is no token")).unwrap();
    assert!(stepper.is_empty() && stepper.logits().is_empty());
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    assert!(matches!(stepper.sample(&mut sampler), Err(Error::NothingFed)));
    assert!(matches!(
        stepper.generate(&mut sampler, GenerateOptions::default()).err(),
        Some(Error::NothingFed)
    ));
    stepper.feed(&[1, 2]).unwrap();
    let logits = stepper.logits().to_vec();
    stepper.feed(&[]).unwrap();
    assert_eq!(stepper.logits(), logits);
}

#[test]
fn tokens_that_are_refused_leave_the_sequence_as_it_was() {
    for name in SMALL {
        let model = open(name);
        let mut stepper = model.stepper(StepperOptions::default().context(10)).unwrap();
        stepper.feed(&tokens(8)).unwrap();
        let logits = stepper.logits().to_vec();
        let vocabulary = model.vocabulary();
        for token in [vocabulary as u32, u32::MAX] {
            match stepper.feed(&[1, token]) {
                Err(Error::TokenOutOfRange { token: found, vocab }) => {
                    assert_eq!((found, vocab), (token, vocabulary))
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(stepper.feed(&[1; 3]), Err(Error::ContextFull { needed: 11, context: 10 })));
        assert!(matches!(stepper.feed_each(&[1; 3], |_, _| ()), Err(Error::ContextFull { .. })));
        assert_eq!((stepper.len(), stepper.logits()), (8, &*logits));
        stepper.feed(&[1; 2]).unwrap();
        assert!(matches!(stepper.feed(&[1]), Err(Error::ContextFull { needed: 11, context: 10 })));
        assert_eq!(stepper.logits(), fresh(&model, &[tokens(8), vec![1; 2]].concat()));
    }
}

#[test]
fn contexts_of_any_length_are_given_or_refused() {
    let mut none = open(models::LLAMA).stepper(StepperOptions::default().context(0)).unwrap();
    assert!(matches!(none.feed(&[1]), Err(Error::ContextFull { needed: 1, context: 0 })));
    none.feed(&[]).unwrap();
    let huge = open(models::LLAMA).stepper(StepperOptions::default().context(usize::MAX)).unwrap();
    assert_eq!(huge.cache_bytes(usize::MAX), usize::MAX);
    // Learned positions end.
    let gpt2 = open(models::GPT2);
    let options = StepperOptions::default().context(129);
    assert!(matches!(gpt2.stepper(options).err(), Some(Error::ContextFull { needed: 129, context: 128 })));
    let mut stepper = stepper(&gpt2);
    stepper.feed(&tokens(128)).unwrap();
    assert!(matches!(stepper.feed(&[0]), Err(Error::ContextFull { needed: 129, context: 128 })));
}

#[test]
fn advice_is_given_whatever_is_asked() {
    const MOST: usize = usize::MAX;
    for name in SMALL {
        let advisor = Advisor::open(models::path(name)).unwrap().threads(1);
        for batch in [None, Some(0), Some(1), Some(MOST)] {
            let options = Options { batch, ..Options::default() };
            let none = advisor.memory(0, &options).unwrap();
            assert_eq!(none.cache, 0);
            let most = advisor.memory(MOST, &options).unwrap();
            assert_eq!((most.cache, most.total()), (u64::MAX, u64::MAX), "{name}");
            assert!(most.working >= none.working);
            for (tokens, depth) in [(1, MOST), (MOST, 0), (MOST, MOST)] {
                let cost = |test: Test| advisor.cost(test.at_depth(depth), &options).unwrap();
                assert!(cost(Test::prompt(tokens)).floats > 0, "{name}");
                assert!(cost(Test::generate(tokens)).bytes() > 0, "{name}");
            }
            assert_eq!(advisor.cost(Test::prompt(0), &options).unwrap(), Cost::default());
        }
    }
}

#[test]
fn batches_of_any_size_and_feeds_cut_anywhere_give_the_same_logits() {
    for name in SMALL {
        let model = open(name);
        let tokens = tokens(70);
        let expected = all(&model, &tokens, StepperOptions::default());
        for batch in (0..=40).chain([63, 64, 65, usize::MAX]) {
            let found = all(&model, &tokens, StepperOptions::default().batch(batch));
            assert!(found == expected, "{name}, batches of {batch}");
        }
        let last = &expected[expected.len() - model.vocabulary()..];
        for first in [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 69] {
            let mut stepper = stepper(&model);
            stepper.feed(&tokens[..first]).unwrap();
            assert_eq!(
                stepper.logits(),
                &expected[(first - 1) * model.vocabulary()..first * model.vocabulary()]
            );
            stepper.feed(&tokens[first..]).unwrap();
            assert!(stepper.logits() == last, "{name}, cut after {first}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_logits() {
    for name in SMALL {
        let expected = all(&open(name), &tokens(40), StepperOptions::default());
        for (threads, level) in [(0, "auto"), (1, "auto"), (3, "auto"), (64, "auto"), (2, "scalar")] {
            let model =
                ModelOptions::default().threads(threads).level(level).open(models::path(name)).unwrap();
            assert!(model.thread_count() >= 1 && model.thread_count() <= threads.max(1));
            let start = Instant::now();
            for _ in 0..3 {
                assert!(
                    all(&model, &tokens(40), StepperOptions::default().batch(1)) == expected,
                    "{name} {threads}"
                );
                assert!(all(&model, &tokens(40), StepperOptions::default()) == expected, "{name} {threads}");
            }
            let took = start.elapsed();
            assert!(took < Duration::from_secs(20), "{name}: {threads} threads took {took:?}");
        }
    }
}

#[test]
fn truncating_forgets_what_it_should_and_no_more() {
    for name in SMALL {
        let model = open(name);
        let tokens = tokens(70);
        let mut stepper = stepper(&model);
        stepper.feed(&tokens).unwrap();
        let logits = stepper.logits().to_vec();
        for beyond in [70, 71, usize::MAX] {
            stepper.truncate(beyond);
            assert_eq!((stepper.len(), stepper.logits()), (70, &*logits));
        }
        for len in [65, 64, 63, 33, 32, 31, 1, 0] {
            stepper.truncate(len);
            assert_eq!((stepper.len(), stepper.logits().len()), (len, 0));
            let mut fork = stepper.fork();
            fork.feed(&tokens[len..]).unwrap();
            assert!(fork.logits() == logits, "{name}, from {len}");
        }
        stepper.feed(&[5, 6]).unwrap();
        assert_eq!(stepper.logits(), fresh(&model, &[5, 6]));
    }
}

#[test]
fn forks_that_diverge_are_as_fresh_sequences() {
    for (name, cache) in [(models::GPT2, CacheType::F32), (models::LLAMA, CacheType::F16)] {
        let model = open(name);
        let options = StepperOptions::default().cache(cache);
        for len in [1, 31, 32, 33, 64] {
            let mut trunk = model.stepper(options.clone()).unwrap();
            trunk.feed(&tokens(len)).unwrap();
            let mut forks: Vec<Stepper> = (0..4).map(|_| trunk.fork()).collect();
            assert!(forks.iter().all(|fork| fork.logits() == trunk.logits()));
            // In turns, so that a page written by the wrong one would show.
            for step in 0..3 {
                for (i, fork) in forks.iter_mut().enumerate() {
                    fork.feed(&[(10 * i + step) as u32]).unwrap();
                }
                if step == 1 {
                    trunk.feed(&[200]).unwrap();
                }
            }
            drop(trunk);
            for (i, fork) in forks.iter().enumerate() {
                let mut alone = model.stepper(options.clone()).unwrap();
                alone
                    .feed(&[tokens(len), (0..3).map(|step| (10 * i + step) as u32).collect()].concat())
                    .unwrap();
                assert!(fork.logits() == alone.logits(), "{name}, fork {i} after {len}");
                assert_eq!(fork.tokens(), alone.tokens());
            }
        }
    }
}

#[test]
fn a_wish_to_stop_is_obeyed_once_and_loses_nothing() {
    let model = open(models::LLAMA);
    let mut stepper = stepper(&model);
    stepper.cancel_handle().cancel();
    assert!(matches!(stepper.feed(&[1, 2]), Err(Error::Cancelled)));
    assert!(stepper.is_empty());
    stepper.feed(&[1, 2]).unwrap();
    let logits = stepper.logits().to_vec();
    // What was fed and computed before is still there.
    for _ in 0..2 {
        stepper.cancel_handle().cancel();
        assert!(matches!(stepper.feed(&[3]), Err(Error::Cancelled)));
        assert_eq!((stepper.tokens(), stepper.logits()), (&[1, 2][..], &*logits));
    }
    stepper.cancel_handle().cancel();
    stepper.cancel_handle().reset();
    stepper.feed(&[3]).unwrap();
    assert_eq!(stepper.logits(), fresh(&model, &[1, 2, 3]));
    // A fork has a wish of its own.
    let mut fork = stepper.fork();
    stepper.cancel_handle().cancel();
    fork.feed(&[4]).unwrap();
    assert!(matches!(stepper.feed(&[4]), Err(Error::Cancelled)));
}

#[test]
fn feeding_can_be_stopped_from_another_thread_and_goes_on_where_it_stopped() {
    let model = open(models::LLAMA);
    let tokens = tokens(1000);
    let expected = fresh(&model, &tokens);
    let mut stopped = 0;
    for batch in [1, 7, 64] {
        let mut stepper = model.stepper(StepperOptions::default().batch(batch)).unwrap();
        let handle = stepper.cancel_handle();
        let (send, receive) = mpsc::channel();
        let other = thread::spawn(move || {
            for after in receive {
                thread::sleep(Duration::from_micros(after));
                handle.cancel();
            }
        });
        while stepper.len() < tokens.len() {
            let len = stepper.len();
            send.send(300 * (1 + len as u64 % 3)).unwrap();
            let (mut last, rest) = (len, &tokens[len..]);
            match stepper.feed_with(rest, |done| last = len + done.end) {
                Ok(()) => assert_eq!(stepper.len(), tokens.len()),
                Err(Error::Cancelled) => {
                    stopped += 1;
                    assert_eq!(stepper.tokens(), &tokens[..last]);
                }
                Err(error) => panic!("{error}"),
            }
        }
        drop(send);
        other.join().unwrap();
        assert!(stepper.logits() == expected, "batches of {batch}");
    }
    assert!(stopped > 0);
}

#[test]
fn steppers_of_one_model_work_on_many_threads_at_once() {
    let model = open(models::MISTRAL);
    let tokens = tokens(60);
    let expected = all(&model, &tokens, StepperOptions::default());
    thread::scope(|scope| {
        for i in 0..6 {
            let (model, tokens, expected) = (model.clone(), &tokens, &expected);
            scope.spawn(move || {
                for round in 0..4 {
                    let batch = 1 + 9 * ((i + round) % 6);
                    assert!(all(&model, tokens, StepperOptions::default().batch(batch)) == *expected);
                }
            });
        }
    });
}

/// The outer pass holds the model's threads while the inner ones run.
#[test]
fn a_stepper_may_be_fed_from_within_the_feeding_of_another() {
    let model = open(models::LLAMA);
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let expected = all(&model, &tokens(40), StepperOptions::default());
        let (mut outer, mut inner) = (stepper(&model), stepper(&model));
        let mut found = Vec::new();
        outer
            .feed_each(&tokens(40), |i, _| {
                inner.feed(&tokens(40)[i..=i]).unwrap();
                found.extend_from_slice(inner.logits());
            })
            .unwrap();
        send.send(found == expected).unwrap();
    });
    assert!(receive.recv_timeout(Duration::from_secs(60)).expect("the two do not wait for each other"));
}

#[test]
fn messages_of_any_shape_are_rendered_or_refused() {
    let model = Model::open(models::instruct()).unwrap();
    let options = ChatOptions::default().stepper(StepperOptions::default().context(60));
    for message in [
        json!(null),
        json!(5),
        json!([1, [2]]),
        json!({}),
        json!({"role": 7, "content": ["x"]}),
        json!({"role": "user"}),
        json!({"role": "user", "content": "\u{0}<|im_end|>\u{10ffff}"}),
        json!({"role": "system", "content": ""}),
    ] {
        for overflow in [Overflow::Refuse, Overflow::DropOldest] {
            let mut chat = model.chat(options.clone().overflow(overflow)).unwrap();
            chat.push(message.clone());
            let _ = chat.plan();
            if let Ok(reply) = chat.answer() {
                let _ = reply.complete();
            }
            let _ = chat.send("word ".repeat(50)).and_then(Reply::complete);
        }
    }
}

#[test]
fn things_may_be_dropped_in_any_order() {
    let model = open(models::LLAMA);
    let mut first = stepper(&model);
    first.feed(&tokens(33)).unwrap();
    let fork = first.fork();
    let handle = first.cancel_handle();
    let bytes: &'static [u8] = Box::leak(models::bytes(models::LLAMA).into_boxed_slice());
    let second = ModelOptions::default().threads(3).from_bytes(bytes).unwrap();
    let mut other = stepper(&second);
    drop(second);
    drop(model);
    drop(first);
    handle.cancel();
    let mut fork = thread::spawn(move || fork).join().unwrap();
    fork.feed(&[9]).unwrap();
    other.feed(&[tokens(33), vec![9]].concat()).unwrap();
    assert_eq!(fork.logits(), other.logits());
    drop(other);
    fork.feed(&[10]).unwrap();
}

#[test]
fn a_caller_that_panics_leaves_the_sequence_valid() {
    let model = open(models::LLAMA);
    let mut stepper = stepper(&model);
    stepper.feed(&[1]).unwrap();
    let feed = || stepper.feed_each(&tokens(40), |i, _| assert!(i != 20, "the caller's own"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(feed)).is_err());
    stepper.truncate(0);
    stepper.feed(&tokens(50)).unwrap();
    assert_eq!(stepper.logits(), fresh(&model, &tokens(50)));
}

#[test]
fn generation_ends_at_errors_and_goes_on_after_a_stop() {
    let model = open(models::STORIES);
    let prompt = model
        .tokenizer()
        .unwrap()
        .encode("Once upon a time", gristmill::text::EncodeOptions::PROMPT)
        .unwrap();
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    let mut whole = stepper(&model);
    whole.feed(&prompt).unwrap();
    let options = || GenerateOptions::default().max_tokens(20);
    let expected: Vec<u32> =
        whole.generate(&mut sampler, options()).unwrap().map(|step| step.unwrap().token).collect();
    assert_eq!(expected.len(), 20);

    let mut parts = stepper(&model);
    parts.feed(&prompt).unwrap();
    let handle = parts.cancel_handle();
    let mut generation = parts.generate(&mut sampler, options()).unwrap();
    let mut found: Vec<u32> = generation.by_ref().take(7).map(|step| step.unwrap().token).collect();
    handle.cancel();
    assert!(matches!(generation.next(), Some(Err(Error::Cancelled))));
    assert!(generation.next().is_none(), "an iterator that never ended would hang who skips errors");
    assert_eq!(generation.finish().unwrap(), None);
    let rest = parts.generate(&mut sampler, options()).unwrap().take(13);
    found.extend(rest.map(|step| step.unwrap().token));
    assert_eq!(found, expected);

    // As far as the context goes, and no error at its end.
    let mut short = model.stepper(StepperOptions::default().context(prompt.len() + 4)).unwrap();
    short.feed(&prompt).unwrap();
    let mut generation = short.generate(&mut sampler, options()).unwrap();
    let found: Vec<u32> = generation.by_ref().map(|step| step.unwrap().token).collect();
    assert_eq!(found, expected[..5]);
    assert_eq!(generation.finish().unwrap(), Some(Finish::Context));
    assert_eq!(short.len(), prompt.len() + 4);
}
