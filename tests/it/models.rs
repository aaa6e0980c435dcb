//! The small models of `tests/data/models`.

use std::path::PathBuf;

pub const GPT2: &str = "gpt2.f16.gguf";
pub const LLAMA: &str = "llama3_rope.f16.gguf";
pub const QWEN3: &str = "qwen3.f16.gguf";
pub const MISTRAL: &str = "mistral.f16.gguf";
pub const STORIES: &str = "stories260K-f32.gguf";
pub const ALL: [&str; 5] = [GPT2, LLAMA, QWEN3, MISTRAL, STORIES];

/// The folder, or a file in it.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models")).join(name)
}

pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

/// The model that is built into the program.
pub fn instruct() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/vendor/models/tiny-instruct-q8_0.gguf"))
}

/// `len` different-looking tokens, all below 300.
pub fn tokens(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 7919 + 13) % 300).collect()
}
