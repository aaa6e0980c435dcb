//! A model that reads tokens and is asked for some of their logits, a few positions at a time.

use std::sync::OnceLock;

use gristmill_kernels::logits::log_sum_exp;
use gristmill_kernels::simd::Level;

use super::Options;
use crate::backend::cpu::Workspace;
use crate::backend::{Act, Backend, Cache, CacheType, Observer};
use crate::generate::log_softmax;
use crate::model::Model;
use crate::model::pass::Pass;
use crate::{Error, Result};

/// Bytes of logits that are computed together, where a few positions do not take more.
const LOGIT_BYTES: usize = 16 << 20;
/// The fewest positions whose logits are computed together: fewer would read the weights too often.
const LEAST_POSITIONS: usize = 32;

/// What a sequence has read so far.
#[derive(Clone)]
pub(super) struct Sequence {
    cache: Cache,
    len: usize,
}

/// What the last layer made of some positions, `[positions, width]`.
#[derive(Default)]
pub(super) struct Hidden {
    width: usize,
    values: Vec<f32>,
}

impl Hidden {
    /// The positions, `positions` at a time.
    pub fn blocks(&self, positions: usize) -> impl Iterator<Item = Block<'_>> {
        let width = self.width;
        self.values.chunks((positions * width).max(1)).map(move |values| Block { width, values })
    }
}

/// Some positions of [`Hidden`].
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    width: usize,
    values: &'a [f32],
}

/// Tokens for one pass.
pub(super) struct Part<'a> {
    pub tokens: &'a [u32],
    /// Which of them are followed by a token to score.
    pub outputs: Vec<usize>,
    /// Those.
    pub targets: &'a [u32],
}

/// Cuts tokens, the last of which are followed by one of `targets` each, into batches.
pub(super) fn parts<'a>(
    tokens: &'a [u32],
    targets: &'a [u32],
    batch: usize,
) -> impl Iterator<Item = Part<'a>> {
    // Targets are counted from here.
    let first = tokens.len().saturating_sub(targets.len());
    tokens.chunks(batch).enumerate().map(move |(number, tokens)| {
        let start = number * batch;
        let outputs = first.saturating_sub(start).min(tokens.len())..tokens.len();
        let from = (start + outputs.start).saturating_sub(first);
        let targets = targets.get(from..from + outputs.len()).unwrap_or_default();
        Part { tokens, outputs: outputs.collect(), targets }
    })
}

/// Runs a model over sequences.
pub(super) struct Reader<'a> {
    model: &'a Model,
    options: &'a Options,
    /// The most tokens of a sequence.
    context: usize,
    observer: Option<Observer<'a>>,
    work: Workspace,
}

impl<'a> Reader<'a> {
    /// For sequences of at most `context` tokens, or of as many as the model can have.
    pub fn new(model: &'a Model, options: &'a Options, context: Option<usize>) -> Result<Self> {
        if model.is_encoder() {
            return Err(Error::NoNextToken { architecture: model.architecture().name });
        }
        let context = model.context_for(context)?;
        Ok(Reader { model, options, context, observer: None, work: Workspace::default() })
    }

    /// As [`Reader::new`], where `observer` sees all products.
    pub fn observed(self, observer: Observer<'a>) -> Self {
        Reader { observer: Some(observer), ..self }
    }

    /// A sequence without tokens.
    pub fn begin(&self) -> Sequence {
        Sequence { cache: Cache::new(self.options.cache, self.model.network().cache_layers()), len: 0 }
    }

    /// How many positions' logits are computed together.
    pub fn positions_together(&self) -> usize {
        (LOGIT_BYTES / size_of::<f32>() / self.model.vocabulary().max(1)).max(LEAST_POSITIONS)
    }

    /// Reads tokens behind those of `sequence` in one pass: what the last layer makes of those at `outputs`.
    pub fn read(&mut self, sequence: &mut Sequence, tokens: &[u32], outputs: &[usize]) -> Result<Hidden> {
        let (start, end) = (sequence.len, sequence.len + tokens.len());
        if end > self.context {
            return Err(Error::ContextFull { needed: end, context: self.context });
        }
        sequence.len = end;
        self.enter(&mut sequence.cache, start, tokens, outputs, |model, pass| {
            let hidden = model.network().hidden(pass)?;
            let Some(hidden) = hidden else { return Ok(Hidden::default()) };
            Ok(Hidden { width: hidden.width, values: pass.backend.read(hidden)?.to_vec() })
        })
    }

    /// Reads tokens behind those of `sequence`: the negative logarithm of the probability of each of `targets`, which follow
    /// the last of the tokens, one each.
    pub fn losses(&mut self, sequence: &mut Sequence, tokens: &[u32], targets: &[u32]) -> Result<Vec<f64>> {
        let (level, together) = (self.model.level(), self.positions_together());
        let mut losses = Vec::with_capacity(targets.len());
        for part in parts(tokens, targets, self.options.batch) {
            let hidden = self.read(sequence, part.tokens, &part.outputs)?;
            for (block, targets) in hidden.blocks(together).zip(part.targets.chunks(together)) {
                losses.extend(self.score(block, |row, logits| {
                    Ok(-Logits::new(level, logits)?.log_probability(targets.get(row))?)
                })?);
            }
        }
        Ok(losses)
    }

    /// Computes the logits of a block's positions and hands them to `then`, `[positions, vocabulary]`.
    pub fn logits<R>(
        &mut self,
        block: Block<'_>,
        then: impl FnOnce(&mut dyn Backend, Act) -> Result<R>,
    ) -> Result<R> {
        // No layer keeps anything of this.
        let mut cache = Cache::new(CacheType::F32.into(), []);
        self.enter(&mut cache, 0, &[], &[], |model, pass| {
            let hidden = pass.backend.write(block.width, block.values)?;
            let logits = model.network().logits(pass, hidden)?;
            then(pass.backend, logits)
        })
    }

    /// Computes the logits of a block's positions and what `score` makes of each, on all threads.
    pub fn score<T: Send + Sync>(
        &mut self,
        block: Block<'_>,
        score: impl Fn(usize, &[f32]) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let scores = self.logits(block, |backend, logits| {
            let scores: Vec<OnceLock<Result<T>>> = (0..logits.rows).map(|_| OnceLock::new()).collect();
            backend.look_at_rows(logits, &|row, logits| {
                if let Some(place) = scores.get(row) {
                    // It is empty: each row is looked at once.
                    let _ = place.set(score(row, logits));
                }
            })?;
            Ok(scores)
        })?;
        let gone = || Error::Internal { what: "a position without a score" };
        scores.into_iter().map(|score| score.into_inner().ok_or_else(gone)?).collect()
    }

    fn enter<R>(
        &mut self,
        cache: &mut Cache,
        start: usize,
        tokens: &[u32],
        outputs: &[usize],
        job: impl FnOnce(&Model, &mut Pass<'_>) -> Result<R>,
    ) -> Result<R> {
        let Reader { model, options, context, observer, work } = self;
        model.observed_pass(work, *observer, |backend| {
            let go_on = &mut |_| !options.cancel.take();
            job(model, &mut Pass { backend, cache, tokens, start, context: *context, outputs, go_on })
        })
    }
}

/// The logits of one position.
#[derive(Clone, Copy)]
pub(super) struct Logits<'a> {
    pub values: &'a [f32],
    /// What is to be subtracted from them for logarithms of probabilities.
    pub log_sum: f64,
}

impl<'a> Logits<'a> {
    /// # Errors
    /// [`Error::NonFiniteLogit`], [`Error::NoTokenLeft`].
    pub fn new(level: Level, values: &'a [f32]) -> Result<Self> {
        let log_sum = log_sum_exp(level, values);
        if !log_sum.is_finite() {
            // It knows what is wrong.
            log_softmax(values)?;
        }
        Ok(Logits { values, log_sum })
    }

    /// The logarithm of a token's probability.
    pub fn log_probability(&self, token: Option<&u32>) -> Result<f64> {
        let logit = token.and_then(|&token| self.values.get(token as usize));
        let logit = logit.ok_or(Error::Internal { what: "a position without a token to score" })?;
        Ok(f64::from(*logit) - self.log_sum)
    }

    /// The likeliest token; of several the first.
    pub fn top(&self) -> usize {
        let mut best = (0, f32::NEG_INFINITY);
        for (token, &logit) in self.values.iter().enumerate() {
            if logit > best.1 {
                best = (token, logit);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_share_out_what_is_scored() {
        let (tokens, targets) = ([0, 1, 2, 3, 4, 5, 6, 7], [5, 6, 7, 8]);
        for batch in [1, 3, 5, 8, 100] {
            let mut followed = Vec::new();
            let mut read = Vec::new();
            for part in parts(&tokens, &targets, batch) {
                assert_eq!(part.outputs.len(), part.targets.len(), "{batch}");
                let outputs = part.outputs.iter().map(|&output| part.tokens[output]);
                followed.extend(outputs.zip(part.targets.iter().copied()));
                read.extend_from_slice(part.tokens);
            }
            assert_eq!(read, tokens, "{batch}");
            assert_eq!(followed, [(4, 5), (5, 6), (6, 7), (7, 8)], "{batch}");
        }
        assert!(parts(&tokens, &[], 3).all(|part| part.outputs.is_empty() && part.targets.is_empty()));
    }
}
