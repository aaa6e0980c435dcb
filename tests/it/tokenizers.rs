//! Tokenizers against llama.cpp's own ids.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and print as tests do"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gristmill::generate::{GenerateOptions, Sampler, SamplerOptions, StepperOptions};
use gristmill::gguf::{Gguf, Metadata, Strings};
use gristmill::text::{
    BosReason, DecodeOptions, EncodeOptions, PreSource, TokenAttributes, Tokenizer, TokenizerKind,
    TokenizerOptions,
};
use gristmill::{Error, Model};

use crate::models::Parts;
use crate::{goldens, models};

fn metadata(path: &Path) -> Metadata {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Gguf::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display())).metadata
}

fn load(path: &Path) -> Tokenizer {
    Tokenizer::from_metadata(&metadata(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of `tests/data/tokenizers`, whose README says where each is from.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers").join(name)
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&std::fs::read_to_string(data(name)).unwrap()).unwrap()
}

fn sample(name: &str) -> Tokenizer {
    load(&data(&format!("{name}.gguf")))
}

const SAMPLES: [&str; 7] = ["bpe", "spm", "wordpiece", "unigram", "gemma4", "rwkv", "plamo2"];

#[derive(Default)]
struct Tally {
    checked: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn check(&mut self, tokenizer: &Tokenizer, text: &str, options: EncodeOptions, expected: &[u32]) {
        self.checked += 1;
        let found = tokenizer.encode(text, options).unwrap();
        if found != expected {
            self.wrong.push(format!("{text:?} {options:?}\n  expected {expected:?}\n  found    {found:?}"));
        }
    }

    fn report(self, name: &str) {
        println!("{name}: {} of {} exact", self.checked - self.wrong.len(), self.checked);
        assert!(self.checked > 0 && self.wrong.is_empty(), "{name}:\n{}", self.wrong.join("\n"));
    }
}

/// Ids by llama.cpp (ggml 0.25.3) for hard strings, in both modes.
#[test]
fn golden_ids_are_exact() {
    let Some(folder) = goldens::folder("tokenizers") else { return };
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let texts: Vec<String> = serde_json::from_str(&read("texts.json")).unwrap();
    let mut vocabularies = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        let Some(name) = file.strip_prefix("ggml-vocab-").and_then(|name| name.strip_suffix(".gguf")) else {
            continue;
        };
        vocabularies += 1;
        let tokenizer = load(&path);
        let mut tally = Tally::default();
        if folder.join(format!("{name}.json")).exists() {
            let expected: Vec<[Vec<u32>; 2]> = serde_json::from_str(&read(&format!("{name}.json"))).unwrap();
            assert_eq!(expected.len(), texts.len(), "{name}");
            for (text, [prompt, plain]) in texts.iter().zip(&expected) {
                tally.check(&tokenizer, text, EncodeOptions::PROMPT, prompt);
                tally.check(&tokenizer, text, EncodeOptions::TEXT, plain);
            }
        }
        if folder.join(format!("{file}.inp")).exists() {
            let (inputs, outputs) = (read(&format!("{file}.inp")), read(&format!("{file}.out")));
            let inputs: Vec<_> = inputs.split("\n__ggml_vocab_test__\n").collect();
            let outputs: Vec<_> = outputs.lines().collect();
            for (text, ids) in inputs.iter().zip(&outputs) {
                let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
                tally.check(&tokenizer, text, EncodeOptions::TEXT, &ids);
            }
        }
        tally.report(name);
    }
    assert!(vocabularies > 0);
}

/// Ids and texts by llama.cpp (ggml 0.25.3), of sequences of bases between words.
#[test]
fn bases_between_words_give_exact_ids_and_texts() {
    let tokenizer = sample("hybriddna");
    let (mut tally, rows) =
        (Tally::default(), json::<Vec<(String, Vec<u32>, Vec<u32>, String)>>("hybriddna.json"));
    for (text, prompt, plain, shown) in &rows {
        tally.check(&tokenizer, text, EncodeOptions::PROMPT, prompt);
        tally.check(&tokenizer, text, EncodeOptions::TEXT, plain);
        let decoded = tokenizer.decode(plain);
        assert_eq!(String::from_utf8_lossy(&decoded), *shown, "{text:?}");
    }
    tally.report("hybriddna");
}

/// Ids by llama.cpp's tokenizer (source of llama-cpp-sys-2 0.1.161; RWKV and PLaMo-2: ggml 0.25.3).
#[test]
fn small_vocabularies_give_exact_ids() {
    let texts: Vec<String> = json("texts.json");
    for name in SAMPLES {
        let tokenizer = sample(name);
        let expected: Vec<[Vec<u32>; 2]> = json(&format!("{name}.json"));
        assert_eq!(texts.len(), expected.len());
        let mut tally = Tally::default();
        for (text, [prompt, plain]) in texts.iter().zip(&expected) {
            tally.check(&tokenizer, text, EncodeOptions::PROMPT, prompt);
            tally.check(&tokenizer, text, EncodeOptions::TEXT, plain);
        }
        tally.report(name);
    }
}

/// Ids by llama.cpp's tokenizer (source of llama-cpp-sys-2 0.1.161), one vocabulary under each pre-tokenizer.
#[test]
fn every_pre_tokenizer_gives_exact_ids() {
    let texts: Vec<String> = json("texts.json");
    let expected: BTreeMap<String, Vec<Vec<u32>>> = json("pre.json");
    let metadata = metadata(&data("bpe.gguf"));
    assert!(expected.len() > 30);
    for (name, ids) in expected {
        let options = TokenizerOptions { pre: Some(name.clone()) };
        let tokenizer = Tokenizer::with_options(&metadata, &options).unwrap();
        assert_eq!(tokenizer.explain().pre, Some((name.clone(), PreSource::Caller)));
        let mut tally = Tally::default();
        for (text, ids) in texts.iter().zip(&ids) {
            tally.check(&tokenizer, text, EncodeOptions::TEXT, ids);
        }
        tally.report(&name);
    }
}

#[test]
fn prompts_and_answers_of_the_real_models() {
    let tokenizer = sample("spm");
    for (text, ids) in [
        ("Once upon a time", [1, 403, 407, 261, 378].as_slice()),
        ("One day, Tom and his dog", &[1, 385, 328, 432, 274, 287, 269, 345, 400, 428]),
    ] {
        assert_eq!(tokenizer.encode(text, EncodeOptions::PROMPT).unwrap(), ids);
        assert_eq!(tokenizer.decode(ids), text.as_bytes(), "BOS and the added space are left out");
    }
    let tokenizer = sample("bpe");
    let answer = [316, 1740, 282, 372, 303, 576, 89, 904, 374, 464, 298, 286, 21, 2];
    assert_eq!(tokenizer.decode(&answer), b"The capital of France is Paris.");
    let shown = DecodeOptions { special: true, ..DecodeOptions::WHOLE };
    assert_eq!(tokenizer.decode_with(&answer, shown), b"The capital of France is Paris.<|im_end|>");
    assert!(tokenizer.is_end_of_generation(2) && tokenizer.is_end_of_generation(0));
    assert!(!tokenizer.is_end_of_generation(316) && !tokenizer.is_end_of_generation(u32::MAX));
}

#[test]
fn text_survives_the_way_there_and_back() {
    let texts: Vec<String> = json("texts.json");
    for name in ["bpe", "spm", "gemma4"] {
        let tokenizer = sample(name);
        // What is spelled with the mark of a space decodes as a space, and one leading space is taken off.
        for text in texts.iter().filter(|text| name == "bpe" || !text.contains(['▁', ' '])) {
            let ids = tokenizer.encode(text, EncodeOptions::TEXT).unwrap();
            assert_eq!(String::from_utf8_lossy(&tokenizer.decode(&ids)), *text, "{name}");
        }
    }
}

#[test]
fn streamed_text_is_the_decoded_text_in_whole_characters() {
    let texts: Vec<String> = json("texts.json");
    for name in SAMPLES {
        let tokenizer = sample(name);
        let mut decoder = tokenizer.decoder_with(DecodeOptions { special: true, strip_space_prefix: false });
        for text in &texts {
            let ids = tokenizer.encode(text, EncodeOptions::PROMPT).unwrap();
            let mut streamed = String::new();
            for &id in &ids {
                streamed.push_str(decoder.push(id));
                assert!(decoder.pending_bytes() <= 3);
            }
            streamed.push_str(decoder.finish());
            let options = DecodeOptions { special: true, strip_space_prefix: false };
            assert_eq!(
                streamed,
                String::from_utf8_lossy(&tokenizer.decode_with(&ids, options)),
                "{name} {text:?}"
            );
        }
    }
}

#[test]
fn bytes_that_are_no_text_become_replacement_characters() {
    let tokenizer = sample("spm");
    let byte = |byte: u8| tokenizer.token_id(&format!("<0x{byte:02X}>")).unwrap();
    let stream = |bytes: &[u8]| {
        let mut decoder = tokenizer.decoder();
        let mut pieces: Vec<_> = bytes.iter().map(|&b| decoder.push(byte(b)).to_owned()).collect();
        pieces.push(decoder.finish().to_owned());
        pieces
    };
    assert_eq!(stream("é€".as_bytes()), ["", "é", "", "", "€", ""]);
    assert_eq!(stream(&[0xff, b'a']), ["\u{fffd}", "a", ""]);
    assert_eq!(stream(&[0xe2, 0x82, b'a']), ["", "", "\u{fffd}a", ""]);
    assert_eq!(stream(&[0xf0, 0x9f, 0x91]), ["", "", "", "\u{fffd}"]);
    assert_eq!(stream(&[0xed, 0xa0, 0x80]), ["", "\u{fffd}\u{fffd}", "\u{fffd}", ""], "a surrogate");
    let mut decoder = tokenizer.decoder();
    assert_eq!(decoder.push(u32::MAX), "", "an id outside the vocabulary");
    for id in 0..tokenizer.vocab_len() as u32 {
        decoder.push(id);
    }
}

#[test]
fn files_say_what_is_special_and_why() {
    let tokenizer = sample("bpe");
    let special = tokenizer.special_tokens();
    assert_eq!((special.bos, special.eos, special.eot, special.pad), (Some(0), Some(2), Some(2), Some(0)));
    assert_eq!(tokenizer.token_attributes(2), TokenAttributes::CONTROL);
    assert_eq!(tokenizer.token_text(2), Some(&b"<|im_end|>"[..]));
    assert!(tokenizer.add_bos() && !tokenizer.add_eos());
    assert_eq!(tokenizer.bos_decision().reason, BosReason::Key);
    assert_eq!(tokenizer.explain().pre, Some(("gpt-2".into(), PreSource::Key)));

    let mut silent = metadata(&data("bpe.gguf"));
    silent.remove("tokenizer.ggml.add_bos_token");
    let bos = Tokenizer::from_metadata(&silent).unwrap().bos_decision().clone();
    assert_eq!((bos.add, bos.reason), (false, BosReason::PreTokenizer("gpt-2".into())));
    silent.set("tokenizer.ggml.pre", "llama-bpe");
    assert!(Tokenizer::from_metadata(&silent).unwrap().add_bos());

    let gemma = sample("gemma4");
    assert_eq!(gemma.bos_decision().reason, BosReason::Required("gemma4".into()));
    assert_eq!(gemma.kind(), TokenizerKind::BytePair);
    let turn = gemma.token_id("<turn|>").unwrap();
    assert!(gemma.is_end_of_generation(turn));
}

#[test]
fn tokens_that_a_file_suppresses_are_never_generated() {
    let mut parts = Parts::of(&models::bytes(models::STORIES));
    let mut greedy = Sampler::new(SamplerOptions::greedy()).unwrap();
    let prompt = [1, 403, 407, 261, 378];
    let generate = |model: &Model, sampler: &mut Sampler| -> Vec<u32> {
        let mut stepper = model.stepper(StepperOptions::default()).unwrap();
        stepper.feed(&prompt).unwrap();
        // Whatever is suppressed, the logits are the model's.
        let likeliest = sampler.sample(stepper.logits()).unwrap();
        let options = GenerateOptions::default().max_tokens(40);
        let steps = stepper.generate(sampler, options).unwrap();
        [likeliest].into_iter().chain(steps.map(|step| step.unwrap().token)).collect()
    };
    let free = generate(&Model::from_bytes(parts.file().unwrap()).unwrap(), &mut greedy);
    let likeliest = free[0];
    assert_eq!(free[1], likeliest);

    // Ids that the vocabulary does not have are passed over.
    parts.metadata.set("tokenizer.ggml.suppress_tokens", vec![likeliest as i32, -1, 1_000_000]);
    let model = Model::from_bytes(parts.file().unwrap()).unwrap();
    assert_eq!(model.tokenizer().unwrap().suppressed_tokens(), [likeliest]);
    let bound = generate(&model, &mut greedy);
    assert_eq!(bound[0], likeliest);
    assert!(bound.len() > 10 && !bound[1..].contains(&likeliest), "{bound:?}");

    parts.metadata.set("tokenizer.ggml.suppress_tokens", "none");
    let model = Model::from_bytes(parts.file().unwrap()).unwrap();
    assert!(matches!(model.tokenizer(), Err(Error::MetadataType { .. })));
}

#[test]
fn control_tokens_in_text_are_text_unless_asked_for() {
    let tokenizer = sample("bpe");
    let text = "<|im_start|>user";
    let plain = tokenizer.encode(text, EncodeOptions::TEXT).unwrap();
    assert!(!plain.contains(&1) && tokenizer.decode(&plain) == text.as_bytes());
    assert_eq!(tokenizer.encode(text, EncodeOptions::TEMPLATE).unwrap()[0], 1);
}

#[test]
fn names_that_are_not_known_are_errors_that_list_those_that_are() {
    let mut unknown = metadata(&data("bpe.gguf"));
    unknown.set("tokenizer.ggml.pre", "no-such-splitter");
    let error = Tokenizer::from_metadata(&unknown).unwrap_err();
    assert!(matches!(&error, Error::PreTokenizerUnknown { name, .. } if name == "no-such-splitter"));
    let message = error.to_string();
    assert!(message.contains("llama-bpe") && message.contains("TokenizerOptions::pre"), "{message}");
    let forced = TokenizerOptions { pre: Some("gpt-2".into()) };
    assert!(Tokenizer::with_options(&unknown, &forced).is_ok());

    unknown.remove("tokenizer.ggml.pre");
    let error = Tokenizer::from_metadata(&unknown).unwrap_err();
    assert!(matches!(error, Error::PreTokenizerMissing { key: "tokenizer.ggml.pre", .. }));
    let message = error.to_string();
    assert!(message.contains("llama-bpe") && message.contains("TokenizerOptions::pre"), "{message}");
    let forced = Tokenizer::with_options(&unknown, &forced).unwrap();
    assert_eq!(forced.explain().pre, Some(("gpt-2".into(), PreSource::Caller)));
    assert!(forced.explain().to_string().contains("the caller says so"));

    unknown.set("tokenizer.ggml.model", "abacus");
    let error = Tokenizer::from_metadata(&unknown).unwrap_err();
    assert!(matches!(&error, Error::TokenizerKind { model, .. } if model == "abacus"), "{error}");
    assert!(matches!(Tokenizer::from_metadata(&Metadata::new()), Err(Error::MetadataMissing { .. })));
}

#[test]
fn damaged_tables_are_errors() {
    let good = metadata(&data("spm.gguf"));
    let with = |change: &dyn Fn(&mut Metadata)| {
        let mut metadata = good.clone();
        change(&mut metadata);
        Tokenizer::from_metadata(&metadata)
    };
    let length = |result: Result<Tokenizer, Error>, wanted: &str| {
        assert!(matches!(result, Err(Error::TokenizerArrayLength { key, .. }) if key == wanted), "{wanted}");
    };
    length(with(&|m| m.set("tokenizer.ggml.scores", vec![0.5_f32; 511])), "tokenizer.ggml.scores");
    length(with(&|m| m.set("tokenizer.ggml.token_type", vec![1_i32; 3])), "tokenizer.ggml.token_type");
    length(with(&|m| m.set("tokenizer.ggml.tokens", Strings::new())), "tokenizer.ggml.tokens");
    assert!(matches!(with(&|m| m.set("tokenizer.ggml.tokens", 7_u32)), Err(Error::MetadataType { .. })));
    // Byte pairs without merges.
    let byte_pairs = with(&|m| {
        m.set("tokenizer.ggml.model", "gpt2");
        m.set("tokenizer.ggml.pre", "gpt-2");
    });
    assert!(matches!(byte_pairs, Err(Error::MetadataMissing { key, .. }) if key == "tokenizer.ggml.merges"));

    let mut charsmap = metadata(&data("unigram.gguf"));
    charsmap.set("tokenizer.ggml.precompiled_charsmap", vec![8_u8, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    let tokenizer = Tokenizer::from_metadata(&charsmap).unwrap();
    assert!(matches!(tokenizer.encode("a", EncodeOptions::TEXT), Err(Error::TokenizerCharsmap { .. })));
}

#[test]
fn ids_out_of_range_and_rules_about_nothing_are_ignored() {
    let mut odd = metadata(&data("bpe.gguf"));
    let usual = Tokenizer::from_metadata(&odd).unwrap();
    let mut rules: Strings = odd.strings("tokenizer.ggml.merges").unwrap().unwrap().clone();
    for rule in ["", " ", "x", "no-such thing-at-all", "a ", "  ", "Ġ Ġ Ġ", "\u{0} \u{0}"] {
        rules.push(rule);
    }
    rules.push([0xff, b' ', 0xfe]);
    odd.set("tokenizer.ggml.merges", rules);
    odd.set("tokenizer.ggml.eos_token_id", 1_000_000_u32);
    odd.set("tokenizer.ggml.mask_token_id", -1_i32);
    let tokenizer = Tokenizer::from_metadata(&odd).unwrap();
    assert_eq!(tokenizer.special_tokens().mask, None);
    for text in json::<Vec<String>>("texts.json") {
        let encode = |tokenizer: &Tokenizer| tokenizer.encode(&text, EncodeOptions::PROMPT).unwrap();
        assert_eq!(encode(&tokenizer), encode(&usual));
    }

    let mut strange = Metadata::new();
    strange.set("tokenizer.ggml.model", "llama");
    strange.set("tokenizer.ggml.tokens", ["", "a", "a", "▁"].into_iter().collect::<Strings>());
    strange.set("tokenizer.ggml.scores", vec![f32::NAN, f32::INFINITY, -0.0, f32::NEG_INFINITY]);
    let tokenizer = Tokenizer::from_metadata(&strange).unwrap();
    assert_eq!(
        tokenizer.encode("a a", EncodeOptions::TEXT).unwrap(),
        [3, 2, 3, 2],
        "the later of two equal tokens"
    );
    assert_eq!(tokenizer.encode("b", EncodeOptions::TEXT).unwrap(), [3, 0], "no byte tokens: unknown");
}

/// Quadratic work would take hours here.
#[test]
fn giant_words_take_no_quadratic_time() {
    let long = 1 << 20;
    for name in SAMPLES {
        let tokenizer = sample(name);
        for unit in ["a", " ", "\n", "1", "é", "ab", " \n", "<"] {
            let text = unit.repeat(long / unit.len());
            let ids = tokenizer.encode(&text, EncodeOptions::TEXT).unwrap();
            assert!(ids.len() <= text.len() + 1, "{name} {unit:?}");
        }
    }
    let metadata = metadata(&data("bpe.gguf"));
    for pre in
        ["jais-2", "tekken", "deepseek-v3", "deepseek-llm", "superbpe", "chameleon", "exaone-moe", "default"]
    {
        let tokenizer =
            Tokenizer::with_options(&metadata, &TokenizerOptions { pre: Some(pre.into()) }).unwrap();
        for unit in ["a", " ", "\n", "1", "é", "!", " \u{3000}"] {
            let text = unit.repeat(long / unit.len());
            let ids = tokenizer.encode(&text, EncodeOptions::TEXT).unwrap();
            assert_eq!(tokenizer.decode(&ids), text.as_bytes(), "{pre} {unit:?}");
        }
    }
}

#[test]
fn one_tokenizer_serves_many_threads() {
    let tokenizer = sample("bpe");
    let texts: Vec<String> = json("texts.json");
    let alone: Vec<_> =
        texts.iter().map(|text| tokenizer.encode(text, EncodeOptions::PROMPT).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (tokenizer, texts, alone) = (tokenizer.clone(), &texts, &alone);
            scope.spawn(move || {
                for (text, ids) in texts.iter().zip(alone) {
                    assert_eq!(tokenizer.encode(text, EncodeOptions::PROMPT).unwrap(), *ids);
                }
            });
        }
    });
}
