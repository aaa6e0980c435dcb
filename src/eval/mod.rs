//! How well a model does: perplexity of a text, divergence from another model, multiple-choice tasks; and which of its
//! inputs matter, for quantizing.
//!
//! Everything is an [`Estimate`], with the error that the length of the text leaves. The same file, text and build give the
//! same bits, whatever the number of threads, the batch and the instruction set.
//!
//! ```
//! use gristmill::Model;
//! use gristmill::eval::{Options, perplexity};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vendor/models/tiny-instruct-q8_0.gguf");
//! let model = Model::open(path)?;
//! let text = "What is the capital of France? The capital of France is Paris. ".repeat(8);
//! let found = perplexity(&model, &text, &Options::default().context(64), |_| ())?;
//! println!("{} per token, {} bits per byte", found.perplexity, found.bits_per_byte);
//! # assert!(found.perplexity.value > 1.0);
//! # Ok::<(), gristmill::Error>(())
//! ```
#![forbid(unsafe_code)]

mod choices;
mod divergence;
mod estimate;
mod imatrix;
mod perplexity;
mod reader;
mod task;
mod text;

pub use choices::{Answered, Choices, choices};
pub use divergence::{Divergence, divergence};
pub use estimate::{Distribution, Estimate, Share};
pub use imatrix::imatrix;
pub use perplexity::{Perplexity, perplexity};
pub use task::{Choice, Task, TaskKind};

use crate::backend::CacheTypes;
use crate::generate::CancelHandle;

/// Tokens of a chunk where nothing is said, and of a pass.
const CONTEXT: usize = 512;

/// How a text is read. Start from [`Options::default`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    context: Option<usize>,
    stride: Option<usize>,
    limit: Option<usize>,
    batch: usize,
    cache: CacheTypes,
    cancel: CancelHandle,
}

impl Default for Options {
    fn default() -> Self {
        let (cache, cancel) = (CacheTypes::default(), CancelHandle::default());
        Options { context: None, stride: None, limit: None, batch: CONTEXT, cache, cancel }
    }
}

impl Options {
    /// Tokens of a chunk, 512 by default: a text is cut into such chunks, each read for itself. Perplexities over chunks
    /// of other lengths are not comparable. For tasks the most tokens of one; by default what the model was trained for.
    pub fn context(mut self, tokens: usize) -> Self {
        self.context = Some(tokens);
        self
    }

    /// Lets each chunk begin so many tokens behind the one before, fewer than a chunk has, and scores that many at the end of
    /// each: every token then sees nearly a whole chunk before it. No BOS takes the place of a token. This is llama-perplexity's
    /// `--ppl-stride`, but for the chunks' length, which there is more than the context that was asked for: half a stride more,
    /// made a multiple of 256.
    pub fn stride(mut self, tokens: usize) -> Self {
        self.stride = Some(tokens);
        self
    }

    /// Only so many chunks of the text, or tasks.
    pub fn limit(mut self, most: usize) -> Self {
        self.limit = Some(most);
        self
    }

    /// How many tokens are fed in one pass; results do not depend on it.
    pub fn batch(mut self, tokens: usize) -> Self {
        self.batch = tokens.max(1);
        self
    }

    /// In which form keys and values are kept: f16 by default, as in generation.
    pub fn cache(mut self, types: impl Into<CacheTypes>) -> Self {
        self.cache = types.into();
        self
    }

    /// What stops the work from elsewhere, before its next layer: it ends with
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn cancel(mut self, handle: CancelHandle) -> Self {
        self.cancel = handle;
        self
    }

    fn chunk_len(&self) -> usize {
        self.context.unwrap_or(CONTEXT)
    }
}

/// How far the work is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Chunks, or tasks, that are done.
    pub done: usize,
    /// How many there are.
    pub total: usize,
    /// What has been found so far, where it is one number.
    pub estimate: Option<Estimate>,
}
