//! The raw next-token stepper: tokens in, logits out.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::last::Logits;
use crate::backend::cpu::Workspace;
use crate::backend::{Act, Backend, Cache, CacheTypes, KEPT_STATES};
use crate::model::pass::Pass;
use crate::model::{Model, Network};
use crate::{Error, Result};

/// Tokens fed in one pass where nothing is said.
pub(crate) const BATCH: usize = 512;

/// How a sequence is kept and fed. Start from [`StepperOptions::default`].
#[derive(Clone, Debug)]
#[must_use]
pub struct StepperOptions {
    context: Option<usize>,
    cache: CacheTypes,
    batch: usize,
}

impl Default for StepperOptions {
    fn default() -> Self {
        StepperOptions { context: None, cache: CacheTypes::default(), batch: BATCH }
    }
}

impl StepperOptions {
    /// The most tokens that the sequence may have; by default the context that the model was trained for. Memory is
    /// taken as the sequence grows, not before.
    pub fn context(mut self, tokens: usize) -> Self {
        self.context = Some(tokens);
        self
    }

    /// In which form keys and values are kept: one [`CacheType`](crate::CacheType) for both, or [`CacheTypes`].
    pub fn cache(mut self, types: impl Into<CacheTypes>) -> Self {
        self.cache = types.into();
        self
    }

    /// How many tokens are fed in one pass; results do not depend on it.
    pub fn batch(mut self, tokens: usize) -> Self {
        self.batch = tokens.max(1);
        self
    }
}

/// Stops the work of a stepper from another thread, or from a handler of signals.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    /// Asks the stepper to stop before its next layer: of the work it is at, or of the next. The stepper takes the wish
    /// back when it has obeyed.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Takes the wish back where the stepper has not obeyed yet, as before new work.
    pub fn reset(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    pub(crate) fn take(&self) -> bool {
        self.0.load(Ordering::SeqCst) && self.0.swap(false, Ordering::SeqCst)
    }
}

/// One sequence of tokens and the model's state after it: `Send`, cheap to fork.
///
/// The stepper is the raw face of a model: it continues whatever tokens it is fed, adds none of its own and knows no
/// roles or turns. That is what base models are for; for a conversation with an instruction-tuned model use
/// [`Chat`](crate::generate::Chat), which makes the prompt by the model's own template.
///
/// ```
/// use gristmill::Model;
/// use gristmill::generate::{Sampler, SamplerOptions, StepperOptions};
/// use gristmill::text::EncodeOptions;
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/stories260K-f32.gguf");
/// let model = Model::open(path)?;
/// let prompt = model.tokenizer()?.encode("Once upon a time", EncodeOptions::PROMPT)?;
/// let mut stepper = model.stepper(StepperOptions::default().context(64))?;
/// stepper.feed(&prompt)?;
///
/// // Token by token: read the logits, choose, feed.
/// let mut greedy = Sampler::new(SamplerOptions::greedy())?;
/// let mut other = stepper.fork();
/// for _ in 0..4 {
///     let token = stepper.sample(&mut greedy)?;
///     stepper.feed(&[token])?;
/// }
/// let text = model.tokenizer()?.decode(&stepper.tokens()[prompt.len()..]);
/// assert_eq!(text, b", there was a");
///
/// // The fork went its own way from the prompt on; `truncate` goes back.
/// other.feed(&stepper.tokens()[prompt.len()..])?;
/// assert_eq!(other.logits(), stepper.logits());
/// other.truncate(prompt.len());
/// assert!(other.logits().is_empty());
/// # Ok::<(), gristmill::Error>(())
/// ```
pub struct Stepper {
    model: Model,
    options: StepperOptions,
    context: usize,
    tokens: Vec<u32>,
    cache: Cache,
    /// How many of the tokens the cache holds: all, or none after a truncation beyond what it still had.
    cached: usize,
    /// Logits after the last token; empty before the first.
    pub(super) logits: Logits,
    work: Workspace,
    cancel: CancelHandle,
}

impl Model {
    /// A new, empty sequence.
    ///
    /// # Errors
    /// [`Error::ContextFull`] where the options ask for a longer context than the model can have at all;
    /// [`Error::NoNextToken`] for an encoder.
    pub fn stepper(&self, options: StepperOptions) -> Result<Stepper> {
        if self.is_encoder() {
            return Err(Error::NoNextToken { architecture: self.architecture().name });
        }
        let context = self.context_for(options.context)?;
        Ok(Stepper {
            model: self.clone(),
            context,
            tokens: Vec::new(),
            cache: Cache::new(options.cache, self.network().cache_layers()),
            cached: 0,
            options,
            logits: Logits::default(),
            work: Workspace::default(),
            cancel: CancelHandle::default(),
        })
    }

    /// Bytes that the cache of a sequence of `tokens` tokens takes at most; `usize::MAX` for more than can be counted.
    ///
    /// What a GPU keeps grows by half, and while it grows what it had is there too.
    pub fn cache_bytes(&self, types: impl Into<CacheTypes>, tokens: usize) -> usize {
        cache_bytes(self.network(), types.into(), tokens, BATCH, self.layers_on_device())
    }
}

/// Bytes that the keys, values and states of a sequence of so many tokens take at most, fed `batch` at a time; the first
/// `on_device` layers keep theirs on a GPU.
pub(crate) fn cache_bytes(
    network: &dyn Network,
    types: CacheTypes,
    tokens: usize,
    batch: usize,
    on_device: usize,
) -> usize {
    let states = network.state_len().saturating_mul(KEPT_STATES * size_of::<f32>());
    Cache::bytes(types, &network.cache_layers(), tokens, batch, on_device).saturating_add(states)
}

impl Stepper {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The tokens fed so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many tokens were fed.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing was fed yet.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The most tokens that the sequence may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The logits of the next token, one for each token of the vocabulary; empty before the first token, after
    /// [`Stepper::truncate`], and where feeding failed after some of its batches.
    ///
    /// On a GPU they are until they are asked for here; a sampler that takes the largest has no need of the others. Empty
    /// also where the device fails to give them: [`Stepper::try_logits`] tells why.
    pub fn logits(&self) -> &[f32] {
        self.try_logits().unwrap_or_else(|error| {
            tracing::debug!(%error, "logits cannot be read");
            &[]
        })
    }

    /// [`Stepper::logits`], or why a GPU does not give them.
    ///
    /// # Errors
    /// Those of the device; none on the CPU.
    pub fn try_logits(&self) -> Result<&[f32]> {
        self.logits.all(&self.model)
    }

    /// Bytes that the cache takes at most for a sequence of `tokens` tokens.
    pub fn cache_bytes(&self, tokens: usize) -> usize {
        let on_device = self.model.layers_on_device();
        cache_bytes(self.model.network(), self.options.cache, tokens, self.options.batch, on_device)
    }

    /// A handle that stops this stepper's work from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Feeds tokens; then [`Stepper::logits`] are those after the last of them.
    ///
    /// # Errors
    /// [`Error::TokenOutOfRange`], [`Error::ContextFull`] before anything is fed; [`Error::Cancelled`] and
    /// [`Error::OutOfMemory`] on the way: then [`Stepper::len`] tells how many tokens were fed, and feeding may go on
    /// from there.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<()> {
        self.feed_with(tokens, |_| ())
    }

    /// Feeds tokens, telling `progress` after each batch which of the tokens are done.
    ///
    /// # Errors
    /// Those of [`Stepper::feed`].
    pub fn feed_with(&mut self, tokens: &[u32], mut progress: impl FnMut(Range<usize>)) -> Result<()> {
        self.check(tokens)?;
        let mut done = 0;
        for batch in tokens.chunks(self.options.batch) {
            let last = done + batch.len() == tokens.len();
            let outputs = if last { vec![batch.len() - 1] } else { vec![] };
            let mut logits = std::mem::take(&mut self.logits);
            let fed = self.pass(batch, &outputs, |backend, rows| {
                match backend.leave(rows)? {
                    Some(left) => logits.set_left(left),
                    None => logits.set(backend.read(rows)?),
                }
                Ok(())
            });
            if fed.is_ok() && !last {
                logits.clear();
            }
            // Where the pass failed they are still those of the last token that was fed.
            self.logits = logits;
            fed?;
            progress(done..done + batch.len());
            done += batch.len();
        }
        Ok(())
    }

    /// Feeds tokens and gives `each` the logits after every one of them, with its index among `tokens`.
    ///
    /// # Errors
    /// Those of [`Stepper::feed`].
    pub fn feed_each(&mut self, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        self.check(tokens)?;
        let mut done = 0;
        for batch in tokens.chunks(self.options.batch) {
            let outputs: Vec<usize> = (0..batch.len()).collect();
            let mut last = std::mem::take(&mut self.logits);
            let fed = self.pass(batch, &outputs, |backend, rows| {
                let width = rows.width.max(1);
                let mut rows = backend.read(rows)?.chunks_exact(width);
                rows.clone().enumerate().for_each(|(index, row)| each(done + index, row));
                if let Some(row) = rows.next_back() {
                    last.set(row);
                }
                Ok(())
            });
            self.logits = last;
            fed?;
            done += batch.len();
        }
        Ok(())
    }

    /// Forgets all tokens from `len` on. The logits are forgotten too, unless nothing was to be forgotten.
    ///
    /// Of a model with sliding windows the cache keeps only what they see, from 128 tokens back on; of one with recurrent
    /// layers the states after the last two passes. Where more than that is taken back, the next feeding computes the
    /// tokens that are left anew: the results are the same, but it takes its time. A [`fork`](Stepper::fork) made before
    /// keeps what it needs.
    pub fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() {
            self.tokens.truncate(len);
            self.cached = self.cache.truncate(self.cached.min(len));
            self.logits.clear();
        }
    }

    /// A second sequence that begins as this one. Nothing is copied but what the two write later.
    #[must_use]
    pub fn fork(&self) -> Stepper {
        Stepper {
            model: self.model.clone(),
            options: self.options.clone(),
            context: self.context,
            tokens: self.tokens.clone(),
            cache: self.cache.clone(),
            cached: self.cached,
            logits: self.logits.clone(),
            work: Workspace::default(),
            cancel: CancelHandle::default(),
        }
    }

    /// Bytes of keys, values and states that are held.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.cache.held_bytes()
    }

    /// Bytes that passes worked in, and the logits.
    #[cfg(test)]
    pub(crate) fn working_bytes(&self) -> usize {
        self.work.bytes() + self.logits.bytes()
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        self.model.check_tokens(tokens)?;
        let needed = self.tokens.len().saturating_add(tokens.len());
        if needed > self.context {
            return Err(Error::ContextFull { needed, context: self.context });
        }
        Ok(())
    }

    /// One pass; the sequence grows by `batch` only if all of it succeeds. `take` has the logits of the tokens `outputs`.
    fn pass(
        &mut self,
        batch: &[u32],
        outputs: &[usize],
        take: impl FnOnce(&mut dyn Backend, Act) -> Result<()>,
    ) -> Result<()> {
        while self.cached < self.tokens.len() {
            let end = self.tokens.len().min(self.cached.saturating_add(self.options.batch));
            let lost = self.tokens.get(self.cached..end).unwrap_or_default().to_vec();
            self.compute(&lost, &[], |_, _| Ok(()))?;
        }
        self.compute(batch, outputs, take)?;
        self.tokens.extend_from_slice(batch);
        Ok(())
    }

    /// Computes tokens that follow those in the cache.
    fn compute(
        &mut self,
        batch: &[u32],
        outputs: &[usize],
        take: impl FnOnce(&mut dyn Backend, Act) -> Result<()>,
    ) -> Result<()> {
        let Stepper { model, cache, work, cancel, context, .. } = self;
        let (start, context) = (self.cached, *context);
        let done = model.pass(work, |backend| {
            let mut pass = Pass {
                backend: &mut *backend,
                cache: &mut *cache,
                tokens: batch,
                start,
                context,
                outputs,
                go_on: &mut |_| !cancel.take(),
            };
            let network = model.network();
            if let Some(hidden) = network.hidden(&mut pass)? {
                let logits = network.logits(&mut pass, hidden)?;
                take(backend, logits)?;
            }
            Ok(())
        });
        self.cached = match done {
            Ok(()) => start + batch.len(),
            Err(_) => cache.truncate(start),
        };
        done
    }
}
