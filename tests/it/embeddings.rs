//! Embeddings of tiny random models, against transformers 4.57.6 and 5.23.0; where that has no code of a model, against
//! llama.cpp (ggml 0.25.3).

use std::fs;
use std::path::{Path, PathBuf};

use gristmill::embed::{EmbedOptions, Embedding, Pooling};
use gristmill::generate::{ChatOptions, StepperOptions};
use gristmill::model::ModelOptions;
use gristmill::{Error, Level, Model};
use serde_json::Value;

use crate::logits::npy;
use crate::models;

/// The folder of the models, and its list.
pub fn index() -> (PathBuf, Value) {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/architectures"));
    let index = serde_json::from_slice(&fs::read(folder.join("EMBEDDINGS.json")).unwrap()).unwrap();
    (folder, index)
}

/// The models' names.
fn names(index: &Value) -> impl Iterator<Item = &str> {
    index["models"].as_array().unwrap().iter().map(|case| case["name"].as_str().unwrap())
}

fn tokens(index: &Value, len: usize) -> Vec<u32> {
    let all = index["tokens"].as_array().unwrap();
    all.iter().map(|id| id.as_u64().unwrap() as u32).take(len).collect()
}

fn open(folder: &Path, name: &str) -> Model {
    Model::open(folder.join(format!("{name}.gguf"))).unwrap()
}

fn embed(model: &Model, tokens: &[u32], options: EmbedOptions) -> Embedding {
    model.embedder(options).unwrap().embed_tokens(tokens).unwrap()
}

fn raw(pooling: Pooling) -> EmbedOptions {
    EmbedOptions::default().pooling(pooling).normalize(false)
}

fn worst(expected: &[f32], found: &[f32]) -> f64 {
    assert_eq!(expected.len(), found.len());
    expected.iter().zip(found).map(|(&x, &y)| f64::from((x - y).abs())).fold(0.0, f64::max)
}

fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()
}

/// How far a token's numbers, whose deviation is about 1, may be from those of a case's reference.
fn bound(index: &Value, case: &Value) -> f64 {
    if case["by"].as_str().unwrap().starts_with("transformers") {
        // Single precision on both sides: roundings of 6e-8 in some hundred sums of a few numbers each.
        return 2e-5;
    }
    // llama.cpp bends and rounds GELU: as far as it is off from transformers where that has the same feed-forward network.
    let alike = match case["arch"].as_str().unwrap() {
        "qwen3" => return 2e-5,
        "jina-bert-v2" | "modern-bert" => "modern-bert",
        _ => "bert",
    };
    let alike = index["models"].as_array().unwrap().iter().find(|case| case["name"] == alike).unwrap();
    alike["llama_cpp"].as_f64().unwrap()
}

#[test]
fn embeddings_are_those_of_the_reference() {
    let (folder, index) = index();
    let lengths = index["lengths"].as_array().unwrap().iter().map(|len| len.as_u64().unwrap() as usize);
    let lengths: Vec<usize> = lengths.collect();
    for case in index["models"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let model = open(&folder, name);
        let (width, expected) = npy(&folder.join(format!("{name}.pooled.npy")));
        let bound = bound(&index, case);
        if case["pooling"] == "rank" {
            for (&len, expected) in lengths.iter().zip(expected.chunks(width)) {
                let found = embed(&model, &tokens(&index, len), raw(Pooling::Rank));
                assert!(worst(expected, found.values()) < bound, "{name}: scores of {len} tokens");
            }
            continue;
        }
        assert_eq!(model.pooling().unwrap().unwrap().name(), case["pooling"], "{name}");
        let (mut far, mut turned) = (0.0f64, 0.0f64);
        for (&len, expected) in lengths.iter().zip(expected.chunks(width)) {
            let found = embed(&model, &tokens(&index, len), EmbedOptions::default());
            assert_eq!((found.rows().len(), found.tokens()), (1, len), "{name}");
            far = far.max(worst(expected, found.values()));
            turned = turned.max(1.0 - cosine(expected, found.values()));
        }
        let len = index["whole"].as_u64().unwrap() as usize;
        let (width, expected) = npy(&folder.join(format!("{name}.s{len}.npy")));
        let found = embed(&model, &tokens(&index, len), raw(Pooling::None));
        assert_eq!((found.rows().len(), found.width()), (len, width), "{name}");
        let token = worst(&expected, found.values());
        println!(
            "{name}: tokens {token:.1e} (at most {bound:.1e}), pooled {far:.1e}, cosine 1 - {turned:.1e}"
        );
        assert!(token < bound && far < bound && turned < 1e-6, "{name}");
    }
}

#[test]
fn every_number_of_threads_and_every_level_gives_the_same_bits() {
    let (folder, index) = index();
    for name in names(&index) {
        let path = folder.join(format!("{name}.gguf"));
        for len in [33, 512] {
            let tokens = tokens(&index, len);
            let all = |options: ModelOptions| {
                let model = options.open(&path).unwrap();
                let mut found = embed(&model, &tokens, raw(Pooling::None)).into_values();
                found.extend(embed(&model, &tokens, EmbedOptions::default()).into_values());
                found
            };
            let expected = all(ModelOptions::default().threads(1));
            assert!(all(ModelOptions::default().threads(3)) == expected, "{name}: {len} tokens, 3 threads");
            for level in Level::available() {
                let options = ModelOptions::default().threads(2).level(level.name());
                assert!(all(options) == expected, "{name}: {len} tokens at {level}");
            }
        }
    }
}

/// Decoders read more than one batch, encoders whatever comes in one.
#[test]
fn pooled_vectors_are_made_of_the_tokens_own() {
    let (folder, index) = index();
    for (name, len) in [("qwen3-embedding", 1200), ("nomic-bert", 700), ("jina-bert-v2", 700)] {
        let model = open(&folder, name);
        let tokens: Vec<u32> = tokens(&index, 512).into_iter().cycle().take(len).collect();
        let of = |pooling| embed(&model, &tokens, raw(pooling).context(len)).into_values();
        let rows = of(Pooling::None);
        let width = rows.len() / len;
        assert_eq!(of(Pooling::Cls), rows[..width], "{name}");
        assert_eq!(of(Pooling::Last), rows[(len - 1) * width..], "{name}");
        let mean = |column: usize| {
            let sum: f64 = rows.iter().skip(column).step_by(width).map(|&x| f64::from(x)).sum();
            (sum / len as f64) as f32
        };
        assert_eq!(of(Pooling::Mean), (0..width).map(mean).collect::<Vec<_>>(), "{name}");
        let normalized = embed(&model, &tokens, EmbedOptions::default().context(len));
        let length: f64 = normalized.values().iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-6, "{name}: {length}");
        // An embedder remembers nothing.
        let mut embedder = model.embedder(EmbedOptions::default().context(len)).unwrap();
        embedder.embed_tokens(&tokens[..100]).unwrap();
        assert_eq!(embedder.embed_tokens(&tokens).unwrap(), normalized, "{name}");
    }
}

#[test]
fn an_encoders_tokens_see_those_behind_them_and_a_decoders_do_not() {
    let (folder, index) = index();
    for case in index["models"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let model = open(&folder, name);
        let (long, short) = (tokens(&index, 20), tokens(&index, 19));
        let first = |tokens| embed(&model, tokens, raw(Pooling::Cls)).into_values();
        assert_eq!(first(&long) != first(&short), case["arch"] != "qwen3", "{name}");
        assert_eq!(model.is_encoder(), case["arch"] != "qwen3", "{name}");
    }
}

#[test]
fn encoders_do_not_generate() {
    let (folder, index) = index();
    for name in names(&index).filter(|name| !name.starts_with("qwen3")) {
        let model = open(&folder, name);
        let refused = model.stepper(StepperOptions::default()).err().unwrap();
        assert!(
            matches!(refused, Error::NoNextToken { architecture } if architecture == model.architecture().name)
        );
        assert!(refused.to_string().contains("embed"), "{refused}");
        assert!(model.chat(ChatOptions::default()).is_err());
    }
}

#[test]
fn what_cannot_be_embedded_is_refused() {
    let (folder, _) = index();
    let model = open(&folder, "bert");
    let mut embedder = model.embedder(EmbedOptions::default()).unwrap();
    assert_eq!((embedder.context(), embedder.pooling()), (512, Pooling::Mean));
    assert!(matches!(embedder.embed_tokens(&[]), Err(Error::NothingToEmbed)));
    assert!(matches!(embedder.embed_tokens(&[3, 64]), Err(Error::TokenOutOfRange { token: 64, vocab: 64 })));
    let long = vec![3; 513];
    assert!(matches!(embedder.embed_tokens(&long), Err(Error::ContextFull { needed: 513, context: 512 })));
    // Positions that were never learned cannot be asked for.
    let options = EmbedOptions::default().context(513);
    assert!(matches!(model.embedder(options), Err(Error::ContextFull { needed: 513, context: 512 })));
    let mut short = model.embedder(EmbedOptions::default().context(2)).unwrap();
    assert!(matches!(short.embed_tokens(&[3; 3]), Err(Error::ContextFull { needed: 3, context: 2 })));
    let refused = model.embedder(raw(Pooling::Rank)).unwrap().embed_tokens(&[3]).unwrap_err();
    assert!(
        matches!(refused, Error::PoolingAbsent { architecture: "bert", pooling: "rank", .. }),
        "{refused}"
    );
    // The files hold no tokenizer.
    assert!(matches!(embedder.embed("text"), Err(Error::TokenizerKind { .. })));
}

#[test]
fn an_embedder_can_be_stopped_and_goes_on() {
    let (folder, index) = index();
    for name in ["bert", "qwen3-embedding"] {
        let mut embedder = open(&folder, name).embedder(EmbedOptions::default()).unwrap();
        let tokens = tokens(&index, 96);
        let expected = embedder.embed_tokens(&tokens).unwrap();
        embedder.cancel_handle().cancel();
        assert!(matches!(embedder.embed_tokens(&tokens), Err(Error::Cancelled)), "{name}");
        assert_eq!(embedder.embed_tokens(&tokens).unwrap(), expected, "{name}");
    }
}

#[test]
fn texts_that_mean_the_like_are_near_even_to_a_toy() {
    let model = Model::open(models::instruct()).unwrap();
    let mut embedder = model.embedder(EmbedOptions::default().pooling(Pooling::Mean)).unwrap();
    let all = embedder.embed_all(&["The sky is blue.", "The sky is grey.", "What is 3 + 4?"]).unwrap();
    let near = |a: usize, b: usize| cosine(all[a].values(), all[b].values());
    assert!(near(0, 1) > near(0, 2) && near(0, 1) > near(1, 2));
    assert_eq!(
        all[1],
        model.embed("The sky is grey.", EmbedOptions::default().pooling(Pooling::Mean)).unwrap()
    );
}
