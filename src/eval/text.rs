//! A text as chunks of tokens, as llama-perplexity and llama-imatrix cut it.

use super::Options;
use crate::model::Model;
use crate::text::EncodeOptions;
use crate::{Error, Result};

/// The fewest tokens of a chunk: so few that there is something to score behind its first half.
const LEAST: usize = 8;

/// The chunks of a text: each as long as the context, none overlapping another, what is left over dropped.
pub(super) struct Chunks {
    tokens: Vec<u32>,
    /// What stands in the place of each chunk's first token.
    bos: Option<u32>,
    context: usize,
    count: usize,
}

impl Chunks {
    pub fn new(model: &Model, text: &str, options: &Options) -> Result<Self> {
        let context = options.chunk_len();
        if context < LEAST {
            let (expected, found) = (format!("at least {LEAST}"), context.to_string());
            return Err(Error::InvalidOption { option: "context", expected, found });
        }
        let tokens = encode(model, text)?;
        let tokenizer = model.tokenizer()?;
        let bos = if tokenizer.add_bos() { tokenizer.special_tokens().bos } else { None };
        model.check_tokens(&tokens)?;
        model.check_tokens(bos.as_slice())?;
        let whole = tokens.len() / context;
        let count = options.limit.map_or(whole, |limit| limit.min(whole));
        if whole == 0 {
            return Err(Error::TextTooShort { tokens: tokens.len(), needed: context });
        }
        if count == 0 {
            let (expected, found) = ("at least 1".to_owned(), "0".to_owned());
            return Err(Error::InvalidOption { option: "limit", expected, found });
        }
        Ok(Chunks { tokens, bos, context, count })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Each chunk's tokens.
    pub fn iter(&self) -> impl Iterator<Item = Vec<u32>> {
        let bos = |mut tokens: Vec<u32>| {
            if let (Some(first), Some(bos)) = (tokens.first_mut(), self.bos) {
                *first = bos;
            }
            tokens
        };
        self.tokens.chunks_exact(self.context).take(self.count).map(move |chunk| bos(chunk.to_vec()))
    }
}

/// Takes a chunk apart: the tokens to read, and those to score, which end one token later. Of the predictions of the first
/// half none counts: it is there to be seen.
pub(super) fn halves(chunk: &[u32]) -> (&[u32], &[u32]) {
    let read = chunk.split_last().map_or(chunk, |(_, read)| read);
    (read, chunk.get(chunk.len() / 2 + 1..).unwrap_or_default())
}

/// The tokens of a text that goes on: BOS before it where the model wants that, and nothing behind it.
pub(super) fn encode(model: &Model, text: &str) -> Result<Vec<u32>> {
    let tokenizer = model.tokenizer()?;
    let mut tokens = tokenizer.encode(text, EncodeOptions::default())?;
    if tokenizer.add_eos() && tokens.last().copied() == tokenizer.special_tokens().eos {
        tokens.pop();
    }
    Ok(tokens)
}
