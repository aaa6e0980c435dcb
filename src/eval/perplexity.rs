//! Perplexity, as llama-perplexity defines it.

use std::f64::consts::LN_2;

use super::reader::Reader;
use super::text::Chunks;
use super::{Estimate, Options, Progress};
use crate::Result;
use crate::model::Model;

/// How well a model predicts a text.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Perplexity {
    /// `e` to the power of the mean negative log-likelihood.
    pub perplexity: Estimate,
    /// The mean negative log-likelihood of a token, in nats.
    pub nll: Estimate,
    /// Bits that the model takes for a byte of the text: comparable between vocabularies.
    pub bits_per_byte: Estimate,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Bytes that those stand for.
    pub bytes: usize,
    /// Chunks that were read.
    pub chunks: usize,
    /// Tokens of a chunk.
    pub context: usize,
}

impl Perplexity {
    /// From each scored token's negative log-likelihood, and the bytes of all.
    pub(super) fn new(losses: &[f64], bytes: usize, chunks: usize, context: usize) -> Self {
        let nll = Estimate::mean(losses.iter().copied());
        let slope = losses.len() as f64 / bytes as f64 / LN_2;
        Perplexity {
            perplexity: nll.exp(),
            nll,
            bits_per_byte: nll.carried(nll.value * slope, slope),
            tokens: losses.len(),
            bytes,
            chunks,
            context,
        }
    }
}

/// The bytes that tokens stand for.
pub(super) fn bytes(model: &Model, tokens: &[u32]) -> Result<usize> {
    let tokenizer = model.tokenizer()?;
    Ok(tokens.iter().map(|&token| tokenizer.token_bytes(token).len()).sum())
}

/// Measures the perplexity of `text`, calling `progress` after each chunk.
///
/// The text is encoded as a whole, without looking for special tokens in it, and cut into chunks of
/// [`context`](Options::context) tokens; what is left over is dropped. In each chunk BOS takes the place of the first token
/// where the model wants one, the first half is there to be seen only, and the tokens behind it are scored, each by what the
/// model makes of those before it. With a [`stride`](Options::stride) chunks overlap instead.
///
/// # Errors
/// [`Error::TextTooShort`](crate::Error::TextTooShort) for less than a chunk;
/// [`Error::InvalidOption`](crate::Error::InvalidOption) for chunks of less than 8 tokens, or none, or a stride that is none;
/// [`Error::NoNextToken`](crate::Error::NoNextToken) for an encoder;
/// [`Error::NonFiniteLogit`](crate::Error::NonFiniteLogit) for damaged weights;
/// [`Error::Cancelled`](crate::Error::Cancelled); those of the tokenizer.
pub fn perplexity(
    model: &Model,
    text: &str,
    options: &Options,
    mut progress: impl FnMut(Progress),
) -> Result<Perplexity> {
    let mut reader = Reader::new(model, options, Some(options.chunk_len()))?;
    let chunks = Chunks::new(model, text, options)?;
    let (mut losses, mut scored_bytes) = (Vec::new(), 0);
    for (number, chunk) in chunks.iter().enumerate() {
        let (tokens, targets) = chunks.apart(&chunk);
        losses.extend(reader.losses(&mut reader.begin(), tokens, targets)?);
        scored_bytes += bytes(model, targets)?;
        let estimate = Some(Estimate::mean(losses.iter().copied()).exp());
        progress(Progress { done: number + 1, total: chunks.len(), estimate });
    }
    Ok(Perplexity::new(&losses, scored_bytes, chunks.len(), options.chunk_len()))
}
