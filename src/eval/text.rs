//! A text as chunks of tokens, as llama-perplexity and llama-imatrix cut it.

use super::Options;
use crate::model::Model;
use crate::text::EncodeOptions;
use crate::{Error, Result};

/// The fewest tokens of a chunk: so few that there is something to score behind its first half.
const LEAST: usize = 8;

/// The chunks of a text: each as long as the context, what is left over dropped.
pub(super) struct Chunks {
    tokens: Vec<u32>,
    /// What stands in the place of each chunk's first token.
    bos: Option<u32>,
    context: usize,
    /// From the beginning of a chunk to that of the next.
    step: usize,
    /// How many tokens at the end of each are scored.
    scored: usize,
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
        // llama-perplexity means to put it into overlapping chunks too, and does so only once they are read.
        let wanted = tokenizer.add_bos() && options.stride.is_none();
        let bos = if wanted { tokenizer.special_tokens().bos } else { None };
        model.check_tokens(&tokens)?;
        model.check_tokens(bos.as_slice())?;
        let (step, scored, whole, needed) = match options.stride {
            // Of the predictions of the first half none counts: it is there to be seen.
            None => (context, context - context / 2 - 1, tokens.len() / context, context),
            Some(stride) if (1..context).contains(&stride) => {
                (stride, stride, tokens.len().saturating_sub(context).div_ceil(stride), context + 1)
            }
            Some(stride) => {
                let (expected, found) = (format!("1 to {}", context - 1), stride.to_string());
                return Err(Error::InvalidOption { option: "stride", expected, found });
            }
        };
        let count = options.limit.map_or(whole, |limit| limit.min(whole));
        if whole == 0 {
            return Err(Error::TextTooShort { tokens: tokens.len(), needed });
        }
        if count == 0 {
            let (expected, found) = ("at least 1".to_owned(), "0".to_owned());
            return Err(Error::InvalidOption { option: "limit", expected, found });
        }
        Ok(Chunks { tokens, bos, context, step, scored, count })
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
        self.tokens
            .windows(self.context)
            .step_by(self.step)
            .take(self.count)
            .map(move |chunk| bos(chunk.to_vec()))
    }

    /// Takes a chunk apart: the tokens to read, and those to score, which end one token later.
    pub fn apart<'c>(&self, chunk: &'c [u32]) -> (&'c [u32], &'c [u32]) {
        let read = chunk.split_last().map_or(chunk, |(_, read)| read);
        (read, chunk.get(chunk.len().saturating_sub(self.scored)..).unwrap_or_default())
    }
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
