//! The table of tokens: texts, scores, attributes, and the way from a text to its id.

use super::strings::Index;
use crate::gguf::{Metadata, Strings};
use crate::{Error, Result};

/// The number of a token in its vocabulary.
pub type TokenId = u32;

/// What a token is for: a set, since a file's own mark can be joined by one that the token's text implies.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct TokenAttributes(u8);

impl TokenAttributes {
    /// Stands for whatever has no token.
    pub const UNKNOWN: TokenAttributes = TokenAttributes(1);
    /// Holds a place in the vocabulary and occurs in no text.
    pub const UNUSED: TokenAttributes = TokenAttributes(2);
    /// A piece of text.
    pub const NORMAL: TokenAttributes = TokenAttributes(4);
    /// Steers the model, as the marks of turns do; no part of the text.
    pub const CONTROL: TokenAttributes = TokenAttributes(8);
    /// A piece of text that is recognized before anything else, and never split.
    pub const USER_DEFINED: TokenAttributes = TokenAttributes(16);
    /// One byte, for text that has no other token.
    pub const BYTE: TokenAttributes = TokenAttributes(32);
    /// Swallows the whitespace before it.
    pub const STRIP_LEFT: TokenAttributes = TokenAttributes(64);
    /// Swallows the whitespace after it.
    pub const STRIP_RIGHT: TokenAttributes = TokenAttributes(128);

    const NAMES: [(TokenAttributes, &'static str); 8] = [
        (Self::UNKNOWN, "unknown"),
        (Self::UNUSED, "unused"),
        (Self::NORMAL, "normal"),
        (Self::CONTROL, "control"),
        (Self::USER_DEFINED, "user-defined"),
        (Self::BYTE, "byte"),
        (Self::STRIP_LEFT, "strip-left"),
        (Self::STRIP_RIGHT, "strip-right"),
    ];

    /// Whether some of `others` are in the set.
    pub const fn intersects(self, others: TokenAttributes) -> bool {
        self.0 & others.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, others: TokenAttributes) -> TokenAttributes {
        TokenAttributes(self.0 | others.0)
    }

    /// This set without `others`.
    #[must_use]
    pub const fn without(self, others: TokenAttributes) -> TokenAttributes {
        TokenAttributes(self.0 & !others.0)
    }

    /// The attributes of a `tokenizer.ggml.token_type`; none for type 0 and for types that are not known.
    fn from_type(token_type: i32) -> TokenAttributes {
        match token_type {
            1 => Self::NORMAL,
            2 => Self::UNKNOWN,
            3 => Self::CONTROL,
            4 => Self::USER_DEFINED,
            5 => Self::UNUSED,
            6 => Self::BYTE,
            _ => TokenAttributes(0),
        }
    }
}

/// The names of the attributes, joined by `+`.
impl std::fmt::Display for TokenAttributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> =
            Self::NAMES.iter().filter(|(one, _)| self.intersects(*one)).map(|&(_, name)| name).collect();
        f.pad(&if names.is_empty() { "undefined".to_owned() } else { names.join("+") })
    }
}

impl std::fmt::Debug for TokenAttributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// The tokens of a vocabulary.
pub(super) struct Vocabulary {
    texts: Strings,
    scores: Vec<f32>,
    attributes: Vec<TokenAttributes>,
    index: Index,
    longest: usize,
}

pub(super) const TOKENS_KEY: &str = "tokenizer.ggml.tokens";
const SCORES_KEY: &str = "tokenizer.ggml.scores";
const TYPES_KEY: &str = "tokenizer.ggml.token_type";

impl Vocabulary {
    /// Reads tokens, scores and types. Of tokens with the same text the last one is found by its text.
    pub fn from_metadata(metadata: &Metadata) -> Result<Vocabulary> {
        let tokens: &Strings = metadata.require(TOKENS_KEY)?;
        if tokens.is_empty() || tokens.len() >= i32::MAX as usize {
            return Err(Error::TokenizerArrayLength {
                key: TOKENS_KEY,
                expected: "between 1 and 2^31 tokens".to_owned(),
                found: tokens.len(),
            });
        }
        let check_length = |key, found| {
            if found >= tokens.len() {
                return Ok(());
            }
            let expected = format!("at least as many as there are tokens, {}", tokens.len());
            Err(Error::TokenizerArrayLength { key, expected, found })
        };
        let scores = match metadata.get_as::<std::borrow::Cow<'_, [f32]>>(SCORES_KEY) {
            Ok(scores) => scores.unwrap_or_default().into_owned(),
            // Some files hold them as integers.
            Err(error) => match metadata.i32s(SCORES_KEY) {
                Ok(scores) => scores.unwrap_or_default().iter().map(|&score| score as f32).collect(),
                Err(_) => return Err(error),
            },
        };
        if metadata.contains(SCORES_KEY) {
            check_length(SCORES_KEY, scores.len())?;
        }
        let attributes = match metadata.i32s(TYPES_KEY)? {
            Some(types) => {
                check_length(TYPES_KEY, types.len())?;
                types.iter().take(tokens.len()).map(|&t| TokenAttributes::from_type(t)).collect()
            }
            None => vec![TokenAttributes::NORMAL; tokens.len()],
        };
        Ok(Vocabulary::new(fill_empty(tokens), scores, attributes))
    }

    fn new(texts: Strings, scores: Vec<f32>, attributes: Vec<TokenAttributes>) -> Vocabulary {
        let mut index = Index::with_capacity(texts.len());
        let (mut longest, mut twice) = (0, 0);
        for (id, text) in texts.iter().enumerate() {
            longest = longest.max(text.len());
            twice += usize::from(index.insert(text, id as u32, &texts).is_some());
        }
        if twice > 0 {
            tracing::warn!(twice, "tokens share their text with others; the last of each is used");
        }
        Vocabulary { texts, scores, attributes, index, longest }
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text of a token as the file spells it.
    #[inline]
    pub fn text(&self, id: TokenId) -> Option<&[u8]> {
        self.texts.get(id as usize)
    }

    /// The token with this text.
    #[inline]
    pub fn id(&self, text: &[u8]) -> Option<TokenId> {
        if text.len() > self.longest { None } else { self.index.get(text, &self.texts) }
    }

    /// The first of `texts` that is a token.
    pub fn first_of(&self, texts: &[&str]) -> Option<TokenId> {
        texts.iter().find_map(|text| self.id(text.as_bytes()))
    }

    /// The token `<0xNN>` of a byte.
    pub fn byte_token(&self, byte: u8) -> Option<TokenId> {
        const HEX: [u8; 16] = *b"0123456789ABCDEF";
        let digit = |value: u8| HEX.get(usize::from(value & 15)).copied().unwrap_or_default();
        self.id(&[b'<', b'0', b'x', digit(byte >> 4), digit(byte), b'>'])
    }

    /// The score of a token; 0 where the file gives none.
    #[inline]
    pub fn score(&self, id: TokenId) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// The attributes of a token; none for an id out of range.
    #[inline]
    pub fn attributes(&self, id: TokenId) -> TokenAttributes {
        self.attributes.get(id as usize).copied().unwrap_or_default()
    }

    /// Changes the attributes of a token.
    pub fn set_attributes(&mut self, id: TokenId, change: impl FnOnce(TokenAttributes) -> TokenAttributes) {
        if let Some(attributes) = self.attributes.get_mut(id as usize) {
            *attributes = change(*attributes);
        }
    }

    /// Ids, texts and attributes in order.
    pub fn iter(&self) -> impl Iterator<Item = (TokenId, &[u8], TokenAttributes)> {
        self.texts
            .iter()
            .zip(&self.attributes)
            .zip(0..)
            .map(|((text, &attributes), id)| (id, text, attributes))
    }
}

/// The tokens, the empty ones named `[EMPTY_i]` so that no text matches them.
fn fill_empty(tokens: &Strings) -> Strings {
    if tokens.iter().all(|token| !token.is_empty()) {
        return tokens.clone();
    }
    let mut filled = Strings::with_capacity(tokens.len(), tokens.total_bytes());
    for (id, token) in tokens.iter().enumerate() {
        if token.is_empty() {
            filled.push(format!("[EMPTY_{id}]"));
        } else {
            filled.push(token);
        }
    }
    filled
}
