//! Tokenizers against llama.cpp's own ids.

use gristmill::gguf::Gguf;
use gristmill::text::{EncodeOptions, Tokenizer};

use crate::goldens;

fn load(path: &std::path::Path) -> Tokenizer {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let gguf = Gguf::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Tokenizer::from_metadata(&gguf.metadata).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

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
