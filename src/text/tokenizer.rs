//! The tokenizer: one type over all kinds.

use std::sync::{Arc, Mutex, PoisonError};

use super::bpe::{self, Bpe};
use super::bytes;
use super::decode::{DecodeOptions, Decoder};
use super::dna::Dna;
use super::kind::{Kind, PreSource, TokenizerKind};
use super::partition::{Fragment, Partition};
use super::plamo2::Plamo2;
use super::rwkv::{self, Rwkv};
use super::special::{BosDecision, SpecialTokens, Specials};
use super::spm::Spm;
use super::unicode::{Class, to_lower};
use super::unigram::Unigram;
use super::vocab::{TokenAttributes, TokenId, Vocabulary};
use super::wordpiece::{Normalizer, WordPiece};
use crate::gguf::Metadata;
use crate::{Error, Result};

/// How a tokenizer is made from a file's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerOptions {
    /// The pre-tokenizer to use in place of the file's (`tokenizer.ggml.pre`), or where it names none, such as
    /// `llama-bpe`; byte-pair tokenizers only.
    pub pre: Option<String>,
}

/// How a text is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Add BOS, EOS or SEP where the model wants them.
    pub add_special: bool,
    /// Recognize control tokens such as `<|im_end|>` where the text spells them. Without it they are plain text, as
    /// text from a stranger should be; tokens that a file calls user-defined are recognized all the same.
    pub parse_special: bool,
}

impl EncodeOptions {
    /// For a whole prompt written by the program: special tokens are added and recognized.
    pub const PROMPT: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };
    /// For plain text: special tokens are neither added nor recognized.
    pub const TEXT: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
    /// For a prompt that brings its own special tokens, as a rendered chat template does: recognized, none added.
    pub const TEMPLATE: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };
}

/// Adds special tokens, and recognizes none in the text.
impl Default for EncodeOptions {
    fn default() -> EncodeOptions {
        EncodeOptions { add_special: true, parse_special: false }
    }
}

/// Turns text into token ids and back, as the metadata of a GGUF file describe it.
///
/// The ids are those of llama.cpp. Cheap to clone; clones share their tables.
///
/// ```
/// use gristmill::gguf::{Metadata, Strings};
/// use gristmill::text::{EncodeOptions, Tokenizer};
///
/// let mut metadata = Metadata::new();
/// metadata.set("tokenizer.ggml.model", "gpt2");
/// metadata.set("tokenizer.ggml.pre", "gpt-2");
/// metadata.set("tokenizer.ggml.tokens", ["a", "b", "ab", "Ġ"].into_iter().collect::<Strings>());
/// metadata.set("tokenizer.ggml.merges", ["a b"].into_iter().collect::<Strings>());
///
/// let tokenizer = Tokenizer::from_metadata(&metadata)?;
/// let ids = tokenizer.encode("aab b", EncodeOptions::TEXT)?;
/// assert_eq!(ids, [0, 2, 3, 1]);
/// assert_eq!(tokenizer.decode(&ids), b"aab b");
/// # Ok::<(), gristmill::Error>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    vocab: Vocabulary,
    model: Model,
    kind: Kind,
    partition: Partition,
    specials: Specials,
    add_space_prefix: bool,
    /// Buffers of calls that are over, for calls to come.
    scratch: Mutex<Vec<bpe::Scratch>>,
}

enum Model {
    SentencePiece(Spm),
    BytePair(Box<Bpe>),
    /// Byte pairs of words between whitespace, which is dropped.
    Whitespace(Box<Bpe>, Normalizer),
    /// Byte pairs, and sequences of bases.
    Dna(Dna),
    WordPiece(WordPiece),
    Unigram(Unigram),
    Rwkv(Rwkv),
    Plamo2(Plamo2),
}

/// No text may be longer: positions are 32 bits wide, and escaping spaces makes them up to three times as long.
const MAX_TEXT: usize = 1 << 30;

impl Tokenizer {
    /// Makes the tokenizer that a file's metadata describe.
    ///
    /// # Errors
    /// [`Error::MetadataMissing`] and [`Error::MetadataType`] for keys under `tokenizer.ggml`;
    /// [`Error::TokenizerKind`] and [`Error::PreTokenizerUnknown`] for names that are not known;
    /// [`Error::PreTokenizerMissing`] for a byte-pair tokenizer without `tokenizer.ggml.pre`, where llama.cpp warns and
    /// takes `default` (as [`TokenizerOptions::pre`] can say); the other tokenizer errors for damaged tables.
    pub fn from_metadata(metadata: &Metadata) -> Result<Tokenizer> {
        Tokenizer::with_options(metadata, &TokenizerOptions::default())
    }

    /// As [`Tokenizer::from_metadata`], with options.
    ///
    /// # Errors
    /// Those of [`Tokenizer::from_metadata`].
    pub fn with_options(metadata: &Metadata, options: &TokenizerOptions) -> Result<Tokenizer> {
        let kind = Kind::from_metadata(metadata, options.pre.as_deref())?;
        let mut vocab = Vocabulary::from_metadata(metadata)?;
        let add_space_prefix =
            metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(kind.default_space_prefix());
        // Before special tokens are marked: what counts as an ordinary token here is what the file says.
        let model = match (kind.kind, &kind.pre) {
            (TokenizerKind::BytePair, Some((pre, name, _))) => {
                let optional = name == "kimi-k2" && kind.model == "gpt2";
                let bpe = Box::new(Bpe::new(metadata, &vocab, pre, optional)?);
                match kind.model.as_str() {
                    "whitespace" => {
                        Model::Whitespace(bpe, Normalizer::from_metadata(metadata, name != "whitespace")?)
                    }
                    "hybriddna" => Model::Dna(Dna::new(bpe, &vocab)),
                    _ => Model::BytePair(bpe),
                }
            }
            (TokenizerKind::WordPiece, _) => Model::WordPiece(WordPiece::new(metadata, &vocab)?),
            (TokenizerKind::Unigram, _) => Model::Unigram(Unigram::new(metadata, &vocab, add_space_prefix)?),
            (TokenizerKind::Rwkv, _) => Model::Rwkv(Rwkv::new(&vocab)),
            (TokenizerKind::Plamo2, _) => Model::Plamo2(Plamo2::new(&vocab)?),
            (TokenizerKind::SentencePiece | TokenizerKind::BytePair, _) => {
                Model::SentencePiece(Spm::new(&vocab))
            }
        };
        let specials = Specials::new(metadata, &mut vocab, &kind)?;
        let partition = Partition::new(&vocab);
        let scratch = Mutex::default();
        Ok(Tokenizer(Arc::new(Inner { vocab, model, kind, partition, specials, add_space_prefix, scratch })))
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// [`Error::TextTooLong`] for more than a GiB; [`Error::TokenizerMissingToken`] where a special token is to be
    /// added, or unknown text to be marked, and the file names none; [`Error::TokenizerMissingByte`] where the
    /// vocabulary cannot spell the text; [`Error::TokenizerCharsmap`] where the file's table turns out to be damaged.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>> {
        if text.len() > MAX_TEXT {
            return Err(Error::TextTooLong { len: text.len(), limit: MAX_TEXT });
        }
        let Inner { partition, specials, model, .. } = &*self.0;
        let SpecialTokens { bos, eos, sep, .. } = specials.tokens;
        let need =
            |token: Option<TokenId>, part, key| token.ok_or(Error::TokenizerMissingToken { part, key });
        let mut ids = Vec::new();
        let word_piece = matches!(model, Model::WordPiece(_));
        let added = options.add_special && !matches!(model, Model::Rwkv(_));
        if added && specials.bos.add {
            ids.push(need(bos, "BOS", "tokenizer.ggml.bos_token_id")?);
        }
        let mut scratch = self.take_scratch();
        let mut after_special = true;
        for fragment in partition.split(text, options.parse_special) {
            match fragment {
                Fragment::Token(token) => {
                    ids.push(token);
                    after_special = true;
                }
                Fragment::Text(text) => {
                    self.encode_fragment(text, after_special, &mut scratch, &mut ids)?;
                    after_special = false;
                }
            }
        }
        self.keep_scratch(scratch);
        if added && word_piece {
            ids.push(need(sep, "SEP", "tokenizer.ggml.seperator_token_id")?);
        } else if added && specials.add_eos {
            ids.push(need(eos, "EOS", "tokenizer.ggml.eos_token_id")?);
        }
        Ok(ids)
    }

    /// Encodes text that holds no special tokens; `first` where nothing or a special token comes before it.
    fn encode_fragment(
        &self,
        text: &str,
        first: bool,
        scratch: &mut bpe::Scratch,
        ids: &mut Vec<TokenId>,
    ) -> Result<()> {
        let Inner { vocab, specials, add_space_prefix, .. } = &*self.0;
        let unknown = specials.tokens.unk;
        let need_unknown = || {
            let key = "tokenizer.ggml.unknown_token_id";
            unknown.ok_or(Error::TokenizerMissingToken { part: "unknown", key })
        };
        match &self.0.model {
            Model::SentencePiece(spm) => {
                let mut escaped = String::with_capacity(text.len() + text.len() / 2);
                if first && *add_space_prefix {
                    escaped.push('▁');
                }
                push_escaped(&mut escaped, text);
                if let Some(byte) = spm.encode(vocab, unknown, &escaped, ids) {
                    return Err(Error::TokenizerMissingByte { byte });
                }
            }
            Model::BytePair(bpe) if bpe.flags.escape_spaces => {
                let mut escaped = String::with_capacity(text.len() + text.len() / 2);
                push_escaped(&mut escaped, text);
                bpe.encode(vocab, &escaped, scratch, ids);
            }
            Model::BytePair(bpe) => bpe.encode(vocab, text, scratch, ids),
            Model::Whitespace(bpe, normalizer) => {
                for word in text.split(|c| Class::of(c).is(Class::WHITESPACE)).filter(|word| !word.is_empty())
                {
                    let lower: String;
                    let word = match normalizer.lower_case {
                        true => {
                            lower = word.chars().map(to_lower).collect();
                            &lower
                        }
                        false => word,
                    };
                    bpe.encode(vocab, word, scratch, ids);
                }
            }
            Model::Dna(model) => model.encode(vocab, text, scratch, ids),
            Model::WordPiece(model) => model.encode(need_unknown()?, text, ids),
            Model::Unigram(model) => model.encode(vocab, need_unknown()?, text, ids)?,
            Model::Rwkv(model) => model.encode(unknown, text, ids),
            Model::Plamo2(model) => model.encode(vocab, text, ids),
        }
        Ok(())
    }

    fn take_scratch(&self) -> bpe::Scratch {
        self.0.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn keep_scratch(&self, mut scratch: bpe::Scratch) {
        scratch.shrink();
        self.0.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }

    /// The text of `ids`, without control tokens and without the space that encoding put in front.
    ///
    /// These are bytes: a token can hold half a character. Ids outside the vocabulary stand for nothing.
    pub fn decode(&self, ids: &[TokenId]) -> Vec<u8> {
        self.decode_with(ids, DecodeOptions::WHOLE)
    }

    /// As [`Tokenizer::decode`], with options.
    pub fn decode_with(&self, ids: &[TokenId], options: DecodeOptions) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut strip = options.strip_space_prefix && self.0.add_space_prefix;
        for &id in ids {
            self.push_token(id, options.special, &mut bytes);
            if strip && let Some(&first) = bytes.first() {
                strip = false;
                if first == b' ' {
                    bytes.remove(0);
                }
            }
        }
        bytes
    }

    /// A decoder for tokens that come one by one, as a continuation of text that is there already.
    pub fn decoder(&self) -> Decoder {
        self.decoder_with(DecodeOptions::CONTINUATION)
    }

    /// As [`Tokenizer::decoder`], with options.
    pub fn decoder_with(&self, options: DecodeOptions) -> Decoder {
        let strip = options.strip_space_prefix && self.0.add_space_prefix;
        Decoder::new(self.clone(), options.special, strip)
    }

    /// The bytes that a token stands for; control tokens show their text. Nothing for ids outside the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.push_token(id, true, &mut bytes);
        bytes
    }

    /// Appends the bytes of a token; control and unknown tokens only where `special`.
    pub(super) fn push_token(&self, id: TokenId, special: bool, out: &mut Vec<u8>) {
        let Some(text) = self.0.vocab.text(id) else { return };
        let attributes = self.0.vocab.attributes(id);
        let hidden = TokenAttributes::CONTROL.union(TokenAttributes::UNKNOWN);
        if attributes.intersects(hidden) && !special {
            return;
        }
        match &self.0.model {
            Model::Rwkv(_) => out.extend(rwkv::unescape(text)),
            Model::Plamo2(_) if !attributes.intersects(TokenAttributes::BYTE) => out.extend_from_slice(text),
            _ if attributes.intersects(hidden.union(TokenAttributes::USER_DEFINED)) => {
                out.extend_from_slice(text)
            }
            Model::Dna(dna) if attributes.intersects(TokenAttributes::NORMAL) => {
                push_unspelled(dna.unmarked(id, text), out);
            }
            Model::BytePair(bpe) | Model::Whitespace(bpe, _)
                if attributes.intersects(TokenAttributes::NORMAL) && !bpe.flags.escape_spaces =>
            {
                push_unspelled(text, out);
            }
            _ if attributes.intersects(TokenAttributes::NORMAL) => push_unescaped(text, out),
            _ if attributes.intersects(TokenAttributes::BYTE) => out.extend(byte_of(text)),
            _ => {}
        }
    }

    /// The text of a token as the file spells it, with `Ġ` or `▁` for spaces.
    pub fn token_text(&self, id: TokenId) -> Option<&[u8]> {
        self.0.vocab.text(id)
    }

    /// The token that the file spells so.
    pub fn token_id(&self, text: &str) -> Option<TokenId> {
        self.0.vocab.id(text.as_bytes())
    }

    /// The score of a token; 0 where the file gives none.
    pub fn token_score(&self, id: TokenId) -> f32 {
        self.0.vocab.score(id)
    }

    /// What a token is for; nothing for ids outside the vocabulary.
    pub fn token_attributes(&self, id: TokenId) -> TokenAttributes {
        self.0.vocab.attributes(id)
    }

    /// How many tokens there are: ids run from 0 to one less.
    pub fn vocab_len(&self) -> usize {
        self.0.vocab.len()
    }

    /// The tokens that play a part.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.0.specials.tokens
    }

    /// Whether generation ends with this token.
    pub fn is_end_of_generation(&self, id: TokenId) -> bool {
        self.0.specials.ends.binary_search(&id).is_ok()
    }

    /// The tokens that generation ends with, ascending.
    pub fn end_of_generation_tokens(&self) -> &[TokenId] {
        &self.0.specials.ends
    }

    /// The tokens that the model must not generate (`tokenizer.ggml.suppress_tokens`), in the file's order.
    ///
    /// [`Stepper::sample`](crate::generate::Stepper::sample), and all that generates through it, never choose them.
    pub fn suppressed_tokens(&self) -> &[TokenId] {
        &self.0.specials.suppressed
    }

    /// The algorithm.
    pub fn kind(&self) -> TokenizerKind {
        self.0.kind.kind
    }

    /// Whether encoding with [`EncodeOptions::add_special`] puts BOS first.
    pub fn add_bos(&self) -> bool {
        self.0.specials.bos.add
    }

    /// Whether encoding with [`EncodeOptions::add_special`] puts EOS (with BERT, SEP) last.
    pub fn add_eos(&self) -> bool {
        self.0.specials.add_eos || matches!(self.0.model, Model::WordPiece(_))
    }

    /// Whether BOS goes first, and what decided it.
    pub fn bos_decision(&self) -> &BosDecision {
        &self.0.specials.bos
    }

    /// Which tokenizer this is and why; its [`Display`](std::fmt::Display) is a few lines for people.
    pub fn explain(&self) -> Explanation {
        let Kind { kind, model, pre } = &self.0.kind;
        Explanation {
            kind: *kind,
            model: model.clone(),
            pre: pre.as_ref().map(|(_, name, source)| (name.clone(), *source)),
            bos: self.0.specials.bos.clone(),
            add_eos: self.add_eos(),
            vocab_len: self.vocab_len(),
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tokenizer").field(&self.explain()).finish()
    }
}

/// Which tokenizer a file asked for, and what decided the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The algorithm.
    pub kind: TokenizerKind,
    /// `tokenizer.ggml.model`.
    pub model: String,
    /// The pre-tokenizer of a byte-pair tokenizer, and what it was chosen by.
    pub pre: Option<(String, PreSource)>,
    /// Whether BOS goes first, and what decided it.
    pub bos: BosDecision,
    /// Whether EOS (with BERT, SEP) goes last.
    pub add_eos: bool,
    /// How many tokens there are.
    pub vocab_len: usize,
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "tokenizer {} ({:?}), {} tokens", self.model, self.kind, self.vocab_len)?;
        if let Some((name, source)) = &self.pre {
            let by = match source {
                PreSource::Key => "tokenizer.ggml.pre says so",
                PreSource::Caller => "the caller says so",
                PreSource::Kind => "this kind of tokenizer has no other",
            };
            writeln!(f, "pre-tokenizer {name}: {by}")?;
        }
        writeln!(f, "{}", self.bos)?;
        f.write_str(if self.add_eos { "EOS goes last" } else { "no EOS" })
    }
}

fn push_escaped(out: &mut String, text: &str) {
    for (at, part) in text.split(' ').enumerate() {
        if at > 0 {
            out.push('▁');
        }
        out.push_str(part);
    }
}

/// Appends `text` with `▁` turned into spaces.
fn push_unescaped(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        match rest.strip_prefix("▁".as_bytes()) {
            Some(tail) => {
                out.push(b' ');
                rest = tail;
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
}

/// Appends the bytes that `text` spells in GPT-2's way; characters that spell none stand for themselves.
fn push_unspelled(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match bytes::unspell(c) {
                Some(byte) => out.push(byte),
                None => out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out.extend(chunk.invalid());
    }
}

/// The byte of a token `<0xNN>`.
fn byte_of(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
