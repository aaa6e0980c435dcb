//! Which tokenizer a file asks for, and what goes without saying for each.

use std::borrow::Cow;

use super::pre::{self, PreTokenizer};
use super::special::{BosReason, SpecialTokens};
use crate::gguf::Metadata;
use crate::{Error, Result};

/// The kinds of tokenizers, by their algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenizerKind {
    /// `llama`: SentencePiece's byte-pair model.
    SentencePiece,
    /// `gpt2`, `gemma4`, `whitespace`, `hybriddna`: byte-pair encoding by ranked merges.
    BytePair,
    /// `bert`: WordPiece.
    WordPiece,
    /// `t5`: SentencePiece's unigram model.
    Unigram,
    /// `rwkv`: the longest token, again and again.
    Rwkv,
    /// `plamo2`: the cheapest cut, from the end.
    Plamo2,
}

/// The names that files use.
const MODELS: &[(&str, TokenizerKind)] = &[
    ("llama", TokenizerKind::SentencePiece),
    ("gpt2", TokenizerKind::BytePair),
    ("gemma4", TokenizerKind::BytePair),
    ("whitespace", TokenizerKind::BytePair),
    ("hybriddna", TokenizerKind::BytePair),
    ("bert", TokenizerKind::WordPiece),
    ("t5", TokenizerKind::Unigram),
    ("rwkv", TokenizerKind::Rwkv),
    ("plamo2", TokenizerKind::Plamo2),
];

pub(super) const PRE_KEY: &str = "tokenizer.ggml.pre";

/// By what a pre-tokenizer was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PreSource {
    /// By the key `tokenizer.ggml.pre`.
    Key,
    /// By the caller.
    Caller,
    /// By the kind of tokenizer, which has but one.
    Kind,
}

/// What a file asks for.
pub(super) struct Kind {
    pub kind: TokenizerKind,
    /// `tokenizer.ggml.model`.
    pub model: String,
    /// Of byte-pair tokenizers: the pre-tokenizer, the name it was found by, and where that came from.
    pub pre: Option<(&'static PreTokenizer, String, PreSource)>,
}

impl Kind {
    /// Reads the kind; `pre` overrides the file's pre-tokenizer. A byte-pair tokenizer whose file names none needs it.
    pub fn from_metadata(metadata: &Metadata, pre: Option<&str>) -> Result<Kind> {
        let model: &str = metadata.require("tokenizer.ggml.model")?;
        let Some(&(_, kind)) = MODELS.iter().find(|(name, _)| *name == model) else {
            let known: Vec<_> = MODELS.iter().map(|&(name, _)| name).collect();
            return Err(Error::TokenizerKind { model: model.to_owned(), known: known.join(", ") });
        };
        let mut chosen = None;
        let known = || pre::names().join(", ");
        if kind == TokenizerKind::BytePair {
            let (name, source) = match (pre, metadata.str(PRE_KEY)?.filter(|name| !name.is_empty())) {
                (Some(name), _) => (name, PreSource::Caller),
                _ if model == "gemma4" => (model, PreSource::Kind),
                (None, Some(name)) => (name, PreSource::Key),
                // Files older than the key. Their models had one of several: a guess would be wrong, and nobody would see.
                (None, None) => return Err(Error::PreTokenizerMissing { key: PRE_KEY, known: known() }),
            };
            let unknown = || Error::PreTokenizerUnknown { name: name.to_owned(), known: known() };
            let found = PreTokenizer::named(name).ok_or_else(unknown)?;
            chosen = Some((found, name.to_owned(), source));
        }
        Ok(Kind { kind, model: model.to_owned(), pre: chosen })
    }

    /// The special tokens where the file names none.
    pub fn default_tokens(&self) -> SpecialTokens {
        let none = SpecialTokens::default();
        match self.kind {
            TokenizerKind::SentencePiece => {
                SpecialTokens { bos: Some(1), eos: Some(2), unk: Some(0), ..none }
            }
            TokenizerKind::BytePair if self.model == "gemma4" => none,
            TokenizerKind::BytePair => {
                let no_bos = self.pre.as_ref().is_some_and(|(pre, ..)| pre.flags.no_default_bos);
                SpecialTokens { bos: (!no_bos).then_some(11), eos: Some(11), ..none }
            }
            TokenizerKind::WordPiece => SpecialTokens {
                bos: Some(101),
                unk: Some(100),
                sep: Some(102),
                pad: Some(0),
                mask: Some(103),
                ..none
            },
            TokenizerKind::Unigram => SpecialTokens { eos: Some(1), unk: Some(2), pad: Some(0), ..none },
            TokenizerKind::Rwkv => none,
            TokenizerKind::Plamo2 => {
                SpecialTokens { bos: Some(1), eos: Some(2), unk: Some(0), pad: Some(3), ..none }
            }
        }
    }

    /// Whether BOS goes first where the file does not say, and what says so.
    pub fn default_add_bos(&self) -> (bool, BosReason) {
        if let Some((pre, name, _)) = &self.pre {
            let name = Cow::Owned(name.clone());
            return if pre.flags.force_bos {
                (true, BosReason::Required(name))
            } else {
                (pre.flags.add_bos, BosReason::PreTokenizer(name))
            };
        }
        let name = Cow::Owned(self.model.clone());
        match self.kind {
            TokenizerKind::WordPiece => (true, BosReason::Required(name)),
            TokenizerKind::SentencePiece => (true, BosReason::Kind(name)),
            _ => (false, BosReason::Kind(name)),
        }
    }

    /// Whether EOS goes last where the file does not say.
    pub fn default_add_eos(&self) -> bool {
        self.kind == TokenizerKind::Unigram
    }

    /// Whether a text gets a space in front where the file does not say.
    pub fn default_space_prefix(&self) -> bool {
        self.kind == TokenizerKind::SentencePiece
    }
}
