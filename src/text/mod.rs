//! Strings to ids and back: tokenizers and chat templates.
//!
//! A [`Tokenizer`] is made from a file's metadata alone, and gives the ids that llama.cpp gives.
#![forbid(unsafe_code)]

mod bpe;
mod bytes;
mod charsmap;
mod decode;
mod dna;
mod kind;
mod partition;
mod plamo2;
mod pre;
mod rwkv;
mod special;
mod split;
mod spm;
mod strings;
pub mod template;
mod tokenizer;
mod trie;
mod unicode;
mod unigram;
mod vocab;
mod wordpiece;

pub use decode::{DecodeOptions, Decoder};
pub use kind::{PreSource, TokenizerKind};
pub(crate) use special::SUPPRESS_KEY;
pub use special::{BosDecision, BosReason, SpecialTokens};
pub use tokenizer::{EncodeOptions, Explanation, Tokenizer, TokenizerOptions};
pub use vocab::{TokenAttributes, TokenId};
