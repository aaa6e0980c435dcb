//! How fast text becomes ids: MB/s on one core.
//!
//! `cargo bench --bench tokenizer`, with paths of GGUF files as arguments to measure their vocabularies as well.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark prints, and may fail loudly"
)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use gristmill::gguf::Gguf;
use gristmill::text::{EncodeOptions, Tokenizer};

fn main() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers");
    let english = std::fs::read_to_string(data.join("english.txt")).unwrap().repeat(100);
    let samples =
        ["bpe", "spm", "gemma4", "wordpiece", "unigram"].map(|name| data.join(format!("{name}.gguf")));
    let given = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).map(PathBuf::from);
    for path in samples.into_iter().chain(given) {
        let bytes = std::fs::read(&path).unwrap();
        let metadata = Gguf::parse(&bytes).unwrap().metadata;
        let mut load = f64::MAX;
        let mut tokenizer = None;
        for _ in 0..5 {
            let start = Instant::now();
            tokenizer = Some(Tokenizer::from_metadata(&metadata).unwrap());
            load = load.min(start.elapsed().as_secs_f64());
        }
        let tokenizer = tokenizer.unwrap();
        let mut best = f64::MAX;
        let mut ids = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            ids = tokenizer.encode(&english, EncodeOptions::TEXT).unwrap();
            best = best.min(start.elapsed().as_secs_f64());
        }
        let (mb, name) = (english.len() as f64 / 1e6, path.file_name().unwrap().display());
        let exact =
            if tokenizer.decode(&ids) == english.as_bytes() { "round trip exact" } else { "text normalized" };
        println!(
            "{name:32} load {:7.2} ms   encode {:7.2} MB/s   {:8} ids   {exact}",
            load * 1e3,
            mb / best,
            ids.len()
        );
    }
}
