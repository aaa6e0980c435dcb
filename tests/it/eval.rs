//! How well models do: against llama.cpp's programs, against the definitions, and the same whatever the threads.
//!
//! `expected.json` and the importance matrices are llama.cpp's (0.5.0-dev, ggml 0.25.3); `make.py` beside them made them.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use gristmill::eval::{Estimate, Options, Task, choices, divergence, imatrix, perplexity};
use gristmill::generate::{CancelHandle, StepperOptions, log_softmax};
use gristmill::model::ModelOptions;
use gristmill::quantize::{self, Imatrix, ImatrixSums, Mix, quantize};
use gristmill::text::EncodeOptions;
use gristmill::{CacheType, Error, Model};
use serde_json::Value as Json;

use crate::goldens;
use crate::models::{self, Parts, STORIES};

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn open(path: impl AsRef<Path>) -> Model {
    ModelOptions::default().threads(2).open(path).unwrap()
}

fn text() -> String {
    fs::read_to_string(in_repository("tests/data/tokenizers/english.txt")).unwrap()
}

fn expected() -> Json {
    serde_json::from_slice(&fs::read(in_repository("tests/data/eval/expected.json")).unwrap()).unwrap()
}

/// As `make.py` has llama.cpp read the text.
fn as_expected(expected: &Json) -> Options {
    let number = |name: &str| expected[name].as_u64().unwrap() as usize;
    Options::default().context(number("context")).limit(number("chunks"))
}

/// The model in another type, made in a folder of its own.
fn quantized(from: &Path, mix: &str) -> Model {
    let name = format!("gristmill-eval-{}-{mix}-{}", std::process::id(), from.file_stem().unwrap().display());
    let path = std::env::temp_dir().join(name);
    quantize(from, &path, &quantize::Options::new(Mix::named(mix).unwrap()), |_| ControlFlow::Continue(()))
        .unwrap();
    let model = Model::from_bytes(fs::read(&path).unwrap()).unwrap();
    fs::remove_file(path).unwrap();
    model
}

/// Of what llama.cpp finds in several ways: how far `found` is from the nearest, and these are from each other.
fn distances(ways: &[Json], found: f64, value: impl Fn(&Json) -> &Json) -> (f64, f64) {
    let ways: Vec<f64> = ways.iter().map(|way| value(way).as_f64().unwrap()).collect();
    let extreme = |by: fn(f64, f64) -> f64| ways.iter().copied().reduce(by).unwrap();
    let nearest = ways.iter().map(|way| (way - found).abs()).reduce(f64::min).unwrap();
    (nearest, extreme(f64::max) - extreme(f64::min))
}

#[test]
fn perplexity_is_llama_cpps_as_far_as_that_agrees_with_itself() {
    let expected = expected();
    for path in [models::path(STORIES), models::instruct()] {
        let ways = expected["perplexity"][path.file_stem().unwrap().to_str().unwrap()].as_array().unwrap();
        let Estimate { value, error } =
            perplexity(&open(&path), &text(), &as_expected(&expected), |_| ()).unwrap().perplexity;
        for (place, found) in [(0, value), (1, error)] {
            let (far, spread) = distances(ways, found, |way| &way[place]);
            assert!(far <= spread, "{}: {found} is {far} from {ways:?}", path.display());
        }
    }
}

#[test]
fn perplexity_with_a_stride_is_llama_cpps() {
    let expected = expected();
    let told = &expected["strided"];
    let number = |name: &str| told[name].as_u64().unwrap() as usize;
    let options = as_expected(&expected).context(number("context")).stride(number("stride"));
    let found = perplexity(&open(models::path(STORIES)), &text(), &options, |_| ()).unwrap();
    let (far, spread) = distances(told["perplexity"].as_array().unwrap(), found.perplexity.value, |way| way);
    // Here it takes logarithms of probabilities in single precision.
    assert!(
        far <= spread.max(5e-5 * found.perplexity.value),
        "{} is {far} from {told}",
        found.perplexity.value
    );
    assert_eq!((found.tokens, found.chunks), (number("stride") * found.chunks, 12));
}

#[test]
fn a_stride_leaves_out_no_token_and_scores_none_twice() {
    let (model, text) = (open(models::instruct()), text());
    let tokens = model.tokenizer().unwrap().encode(&text, EncodeOptions::default()).unwrap();
    let options = Options::default().context(32).stride(5).limit(7);
    let found = perplexity(&model, &text, &options, |_| ()).unwrap();
    let scored = &tokens[32 - 5..32 + 6 * 5];
    assert_eq!((found.tokens, found.bytes), (35, model.tokenizer().unwrap().decode(scored).len()));
    for stride in [0, 32, 33] {
        let error = perplexity(&model, &text, &options.clone().stride(stride), |_| ()).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { option: "stride", .. }), "{error}");
    }
}

#[test]
fn bits_per_byte_are_those_of_the_scored_tokens() {
    let (model, text) = (open(models::instruct()), text());
    let found = perplexity(&model, &text, &Options::default().context(64).limit(2), |_| ()).unwrap();
    let tokens = model.tokenizer().unwrap().encode(&text, EncodeOptions::default()).unwrap();
    let scored = [&tokens[33..64], &tokens[97..128]].concat();
    let bytes = model.tokenizer().unwrap().decode(&scored).len();
    assert_eq!((found.tokens, found.bytes, found.chunks), (scored.len(), bytes, 2));
    let bits = found.nll.value * scored.len() as f64 / std::f64::consts::LN_2;
    assert!((found.bits_per_byte.value * bytes as f64 / bits - 1.0).abs() < 1e-12);
    assert_eq!(found.perplexity.value, found.nll.value.exp());
}

/// Everything that should not matter.
fn ways() -> Vec<(Model, usize)> {
    let way = |threads, level: &str, batch| {
        let options = ModelOptions::default().threads(threads).level(level);
        (options.open(models::path(STORIES)).unwrap(), batch)
    };
    vec![way(1, "auto", 512), way(2, "auto", 7), way(3, "scalar", 33), way(2, "auto", 1)]
}

#[test]
fn results_are_the_same_bits_with_any_threads_batches_and_levels() {
    let text = text();
    let reference = quantized(&models::path(STORIES), "Q4_0");
    let tasks =
        Task::parse(&fs::read_to_string(in_repository("tests/data/eval/tasks.jsonl")).unwrap()).unwrap();
    let mut first = None;
    for (model, batch) in ways() {
        let options = Options::default().context(48).limit(2).batch(batch);
        let found = (
            divergence(&model, &reference, &text, &options, |_| ()).unwrap(),
            perplexity(&model, &text, &options, |_| ()).unwrap(),
            imatrix(&model, &text, "a text", true, &options, |_| ()).unwrap(),
            choices(&model, &tasks, &Options::default().batch(batch), |_| ()).unwrap(),
        );
        assert_eq!(found.0.model, found.1);
        assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "batches of {batch}");
    }
}

/// The logarithms of probabilities after each token of `chunk`, token by token.
fn log_probabilities(model: &Model, chunk: &[u32]) -> Vec<Vec<f64>> {
    let mut stepper =
        model.stepper(StepperOptions::default().cache(CacheType::F16).context(chunk.len())).unwrap();
    let mut rows = Vec::new();
    for token in chunk {
        stepper.feed(&[*token]).unwrap();
        rows.push(log_softmax(stepper.logits()).unwrap());
    }
    rows
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn divergence_is_what_its_definition_says() {
    let (reference, model) = (open(models::path(STORIES)), quantized(&models::path(STORIES), "Q4_0"));
    let context = 64;
    let found =
        divergence(&model, &reference, &text(), &Options::default().context(context).limit(2), |_| ())
            .unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let tokens = tokenizer.encode(&text(), EncodeOptions::default()).unwrap();
    let (mut kl, mut change, mut ratio, mut same) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for own in tokens.chunks(context).take(2) {
        let mut chunk = own.to_vec();
        chunk[0] = tokenizer.special_tokens().bos.unwrap();
        let (p, q) = (log_probabilities(&reference, &chunk), log_probabilities(&model, &chunk));
        for at in context / 2..context - 1 {
            let (p, q, next) = (&p[at], &q[at], own[at + 1] as usize);
            kl.push(p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>());
            change.push(q[next].exp() - p[next].exp());
            ratio.push(p[next] - q[next]);
            let top = |x: &[f64]| (0..x.len()).max_by(|&i, &j| x[i].total_cmp(&x[j])).unwrap();
            same += usize::from(top(p) == top(q));
        }
    }
    let near =
        |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    near(found.kl.mean().value, mean(&kl));
    near(found.kl.max(), kl.iter().copied().fold(f64::MIN, f64::max));
    near(found.kl.min(), kl.iter().copied().fold(f64::MAX, f64::min));
    near(found.log_ratio.value, mean(&ratio));
    near(found.probability_change.mean().value, mean(&change));
    let square: Vec<f64> = change.iter().map(|x| x * x).collect();
    near(found.rms_probability_change.value, mean(&square).sqrt());
    assert_eq!((found.same_top.right, found.same_top.of), (same, kl.len()));
    assert_eq!(
        found.reference,
        perplexity(&reference, &text(), &Options::default().context(context).limit(2), |_| ()).unwrap()
    );
}

#[test]
fn divergence_is_llama_cpps_as_far_as_that_agrees_with_itself() {
    let expected = expected();
    let (reference, model) = (open(models::path(STORIES)), quantized(&models::path(STORIES), "Q4_0"));
    let found = divergence(&model, &reference, &text(), &as_expected(&expected), |_| ()).unwrap();
    // It keeps the reference's logits in 16 bits, on a grid over the 16 nats below the greatest.
    let step = 16.0 / 65535.0;
    let percent = |of: Estimate| [100.0 * of.value, 100.0 * of.error];
    let mean = found.kl.mean();
    let figures = [
        ("kl", vec![mean.value, mean.error]),
        ("min", vec![found.kl.min()]),
        ("median", vec![found.kl.median()]),
        ("p90", vec![found.kl.quantile(0.9)]),
        ("p95", vec![found.kl.quantile(0.95)]),
        ("p99", vec![found.kl.quantile(0.99)]),
        ("p99.9", vec![found.kl.quantile(0.999)]),
        ("max", vec![found.kl.max()]),
        ("change_percent", percent(found.probability_change.mean()).to_vec()),
        ("rms_change_percent", percent(found.rms_probability_change).to_vec()),
        ("same_top_percent", percent(found.same_top.estimate()).to_vec()),
    ];
    let ways = expected["divergence"].as_array().unwrap();
    for (name, figures) in figures {
        for (place, figure) in figures.into_iter().enumerate() {
            let (far, spread) = distances(ways, figure, |way| &way[name][place]);
            assert!(
                far <= spread + step,
                "{name}: {figure} is {far} from llama.cpp's, which are {spread} apart"
            );
        }
    }
}

#[test]
fn a_model_does_not_diverge_from_itself() {
    let model = open(models::instruct());
    let found =
        divergence(&model, &model, &text(), &Options::default().context(64).limit(2), |_| ()).unwrap();
    assert_eq!((found.kl.min(), found.kl.max(), found.log_ratio.value), (0.0, 0.0, 0.0));
    assert_eq!((found.rms_probability_change.value, found.rms_probability_change.error), (0.0, 0.0));
    assert_eq!(found.same_top.estimate().value, 1.0);
    assert_eq!(found.model, found.reference);
}

#[test]
fn what_cannot_be_measured_is_told() {
    let (model, other) = (open(models::instruct()), open(models::path(STORIES)));
    let options = Options::default().context(64);
    let compared = divergence(&model, &other, &text(), &options, |_| ());
    assert!(matches!(compared, Err(Error::VocabularyMismatch { .. })), "{compared:?}");
    let short = perplexity(&model, "Too short.", &options, |_| ());
    assert!(matches!(short, Err(Error::TextTooShort { needed: 64, .. })), "{short:?}");
    for options in [options.clone().context(7), options.clone().limit(0)] {
        let found = perplexity(&model, &text(), &options, |_| ());
        assert!(matches!(found, Err(Error::InvalidOption { .. })), "{found:?}");
    }
    let encoder = open(in_repository("tests/data/architectures/bert.gguf"));
    let found = perplexity(&encoder, &text(), &options, |_| ());
    assert!(matches!(found, Err(Error::NoNextToken { .. })), "{found:?}");
    assert!(matches!(choices(&model, &[], &options, |_| ()), Err(Error::NoTasks)));
    let cancel = CancelHandle::default();
    let mut chunks = 0;
    let found = perplexity(&model, &text(), &options.cancel(cancel.clone()), |progress| {
        chunks = progress.done;
        if chunks == 2 {
            cancel.cancel();
        }
    });
    assert!(matches!(found, Err(Error::Cancelled)), "{found:?}");
    assert_eq!(chunks, 2);
}

/// The sums and counts of an importance matrix's file.
fn sums(file: &[u8]) -> BTreeMap<String, Vec<f32>> {
    let floats =
        |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Parts::of(file).tensors.into_iter().map(|tensor| (tensor.name, floats(&tensor.bytes))).collect()
}

fn written(sums: &ImatrixSums) -> Vec<u8> {
    let mut bytes = Vec::new();
    sums.write(&mut bytes).unwrap();
    bytes
}

/// How far numbers are apart, each tensor by its largest.
fn distance(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> f64 {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    let mut most = 0.0_f64;
    for (name, a) in a {
        let b = &b[name];
        assert_eq!(a.len(), b.len(), "{name}");
        let largest = a.iter().copied().fold(0.0, f32::max);
        let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        most = most.max(f64::from(apart / largest));
    }
    most
}

/// Compares with llama-imatrix's files for the model, of which one was made without flash attention and with a cache of F32.
fn compare_with_llama_imatrix(path: &Path) {
    let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let read = |name: &str| {
        sums(&fs::read(in_repository(&format!("tests/data/eval/{stem}{name}.imatrix.gguf"))).unwrap())
    };
    let (theirs, other) = (read(""), read("-exact"));
    let options = as_expected(&expected());
    let found = imatrix(&open(path), &text(), "english.txt", false, &options, |_| ()).unwrap();
    let (apart, own) = (distance(&theirs, &sums(&written(&found))), distance(&theirs, &other));
    assert!(apart <= own, "{apart} from llama-imatrix, which is {own} from itself");
}

#[test]
fn importance_is_llama_imatrixs_as_far_as_that_agrees_with_itself() {
    compare_with_llama_imatrix(&models::path(STORIES));
}

#[test]
fn importance_of_experts_is_llama_imatrixs() {
    if let Some(folder) = goldens::folder("parity") {
        compare_with_llama_imatrix(&folder.join("open/models/mixtral.f16.gguf"));
    }
}

#[test]
fn an_importance_matrix_is_read_back_and_quantizes() {
    let model = open(models::instruct());
    let options = Options::default().context(64).limit(2);
    let without = imatrix(&model, &text(), "a.txt", false, &options, |_| ()).unwrap();
    let with = imatrix(&model, &text(), "a.txt", true, &options, |_| ()).unwrap();
    let more: Vec<_> = with.tensors.keys().filter(|name| !without.tensors.contains_key(*name)).collect();
    assert_eq!(more, ["output.weight"]);
    assert_eq!(with.tensors["output.weight"].counts, [128]);
    let path = std::env::temp_dir().join(format!("gristmill-eval-{}.imatrix", std::process::id()));
    fs::write(&path, written(&with)).unwrap();
    let read = Imatrix::open(&path).unwrap();
    assert_eq!((read.chunks, &read.datasets[..]), (2, &["a.txt".to_owned()][..]));
    assert_eq!(read.entries.len(), with.tensors.len());
    let (name, tensor) = with.tensors.iter().next().unwrap();
    let expected: Vec<f32> = tensor.sums.iter().map(|&sum| sum as f32 / 128.0).collect();
    assert_eq!(read.entries[name], expected);
    let to = path.with_extension("gguf");
    let options = quantize::Options::new(Mix::named("IQ2_XS").unwrap()).imatrix(read);
    quantize(models::instruct(), &to, &options, |_| ControlFlow::Continue(())).unwrap();
    fs::remove_file(path).unwrap();
    fs::remove_file(to).unwrap();
}

#[test]
fn choices_have_the_likelihood_of_their_tokens() {
    let model = open(models::instruct());
    let tasks =
        Task::parse(&fs::read_to_string(in_repository("tests/data/eval/tasks.jsonl")).unwrap()).unwrap();
    let found = choices(&model, &tasks, &Options::default(), |_| ()).unwrap();
    assert_eq!(found.answered.len(), 8);
    let encode = |text: &str| model.tokenizer().unwrap().encode(text, EncodeOptions::default()).unwrap();
    let [mut right, mut right_by_bytes] = [0; 2];
    for (task, answered) in tasks.iter().zip(&found.answered) {
        let mut expected = Vec::new();
        for (choice, found) in task.choices.iter().zip(&answered.log_likelihoods) {
            let (prompt, whole) =
                (encode(&choice.prompt), encode(&format!("{} {}", choice.prompt, choice.text)));
            let rows = log_probabilities(&model, &whole);
            let score: f64 = (prompt.len()..whole.len()).map(|at| rows[at - 1][whole[at] as usize]).sum();
            assert!((found - score).abs() < 1e-10, "{choice:?}: {found}, not {score}");
            expected.push((score, score / choice.text.len() as f64));
        }
        let best = |by: fn(&(f64, f64)) -> f64| {
            (0..expected.len())
                .max_by(|&i, &j| by(&expected[i]).total_cmp(&by(&expected[j])).then(j.cmp(&i)))
                .unwrap()
        };
        right += usize::from(best(|score| score.0) == task.answer);
        right_by_bytes += usize::from(best(|score| score.1) == task.answer);
    }
    assert_eq!((found.likeliest.right, found.per_byte.right), (right, right_by_bytes));
}

/// llama-perplexity's values for the first 16 chunks of a text, by types that our own `quantize` makes.
#[test]
fn perplexities_of_quantized_models_are_llama_cpps() {
    let Some(folder) = goldens::folder("models") else { return };
    let text = fs::read_to_string(folder.join("eval.txt")).unwrap();
    let table = fs::read_to_string(folder.join("perplexity.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| tiny-"));
    let (mut compared, mut wrong) = (0, Vec::new());
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (name, ty) = (cells[1], cells[2]);
        let (value, error): (f64, f64) = (cells[4].parse().unwrap(), cells[5].parse().unwrap());
        let original = folder.join(format!("{name}-f16.gguf"));
        let model = if ty == "F16" { open(&original) } else { quantized(&original, ty) };
        let found = perplexity(&model, &text, &Options::default().limit(16), |_| ()).unwrap().perplexity;
        compared += 1;
        let (far, far_error) = ((found.value / value - 1.0).abs(), (found.error / error - 1.0).abs());
        println!(
            "{name} {ty}: {found}, llama.cpp {value} +/- {error}: {:.4} %, {:.4} %",
            100.0 * far,
            100.0 * far_error
        );
        // A tenth of the standard error: the two round the inputs of products to 8 bits in ways of their own.
        if far > 0.005 || far_error > 0.005 {
            wrong.push(row);
        }
    }
    assert_eq!(compared, 20);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
