//! Choosing the next token from a row of logits.
//!
//! The stages and their order are those of llama.cpp's default chain (`common/sampling.cpp`): biases and bans,
//! penalties, top-k, typical, top-p, min-p, temperature, and then one draw. Where that chain leaves the order of
//! equal logits to its sort, here the lower id comes first.
//!
//! **The same seed gives the same tokens on every machine.** The generator is [`random`]'s own, exponentials and
//! logarithms come from `libm` and not from the platform, and every sum has one order, in 64 bits.

#![forbid(unsafe_code)]

mod history;
mod options;
mod random;
mod scores;
mod stages;
#[cfg(test)]
mod tests;

pub use options::SamplerOptions;
pub use scores::{log_softmax, logprob};

use crate::{Error, Result};
use history::History;
use random::Random;
use stages::Candidates;

/// Chooses tokens: options, the state of a random generator, and the tokens that penalties look back upon.
///
/// A clone goes on exactly as the original would.
///
/// ```
/// use gristmill::generate::{Sampler, SamplerOptions};
///
/// let mut sampler = Sampler::new(SamplerOptions::default().temperature(0.7).seed(42))?;
/// let token = sampler.sample(&[0.5, 3.0, -1.0])?;
/// sampler.accept(token); // penalties now count it
///
/// let mut greedy = Sampler::new(SamplerOptions::greedy())?;
/// assert_eq!(greedy.sample(&[0.5, 3.0, -1.0])?, 1);
/// # Ok::<(), gristmill::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
    random: Random,
    history: History,
    // Both are kept from token to token for their memory only.
    row: Vec<f32>,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler at the beginning of its seed's stream, with no token accepted yet.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for the first option outside its range.
    pub fn new(options: SamplerOptions) -> Result<Self> {
        options.validate()?;
        Ok(Sampler {
            random: Random::new(options.seed),
            history: History::new(&options),
            row: Vec::new(),
            candidates: Candidates::default(),
            options,
        })
    }

    /// The options that the sampler was made with.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Chooses a token from `logits`, one for each token of the vocabulary.
    ///
    /// Draws once from the random generator, at temperature 0 not at all. The choice is not accepted by itself:
    /// give it to [`Sampler::accept`] when it becomes part of the text.
    ///
    /// # Errors
    /// [`Error::NonFiniteLogit`] for NaN or positive infinity (negative infinity is a token that cannot come);
    /// [`Error::NoTokenLeft`] where no logit is above negative infinity once biases and bans are applied;
    /// [`Error::InvalidOption`] for a bias or ban on a token that the vocabulary does not have. After an error the
    /// random generator stands where it stood.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        self.sample_without(logits, &[])
    }

    /// As [`Sampler::sample`], as if `suppressed` were banned too; those without a logit are passed over.
    pub(super) fn sample_without(&mut self, logits: &[f32], suppressed: &[u32]) -> Result<u32> {
        self.adjust(logits)?;
        for &token in suppressed {
            if let Some(logit) = self.row.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        if self.options.temperature == 0.0 {
            return self.greedy();
        }
        let total = self.narrow()?;
        let target = self.random.unit() * total;
        self.candidates.at(target).ok_or(Error::NoTokenLeft { logits: logits.len() })
    }

    /// What [`Sampler::sample_without`] chooses from `vocabulary` logits of which the largest is known, with the first token
    /// that has it; `None` where that does not tell.
    pub(super) fn of_largest(
        &self,
        (largest, token): (f32, u32),
        vocabulary: usize,
        suppressed: &[u32],
    ) -> Option<u32> {
        let options = &self.options;
        let plain = options.temperature == 0.0 && options.logit_bias.is_empty() && self.history.is_empty();
        let there = |&banned: &u32| banned != token && (banned as usize) < vocabulary;
        let tells = plain && largest.is_finite() && options.banned.iter().all(there);
        (tells && !suppressed.contains(&token)).then_some(token)
    }

    /// The tokens that [`Sampler::sample`] would choose among, each with its probability, the likeliest first.
    ///
    /// Equal logits are in the order of their ids. At temperature 0 there is one token. Draws nothing.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn probabilities(&mut self, logits: &[f32]) -> Result<Vec<(u32, f32)>> {
        self.adjust(logits)?;
        if self.options.temperature == 0.0 {
            return Ok(vec![(self.greedy()?, 1.0)]);
        }
        let total = self.narrow()?;
        Ok(self.candidates.ranked(total))
    }

    /// Counts a token that has become part of the text: penalties look back upon it.
    ///
    /// Tokens of the prompt count as well: give them here or to [`Sampler::set_history`].
    pub fn accept(&mut self, token: u32) {
        self.history.push(token);
    }

    /// Replaces all accepted tokens by `tokens`, as after the prompt or after a text was cut back.
    ///
    /// The random generator stays where it is.
    pub fn set_history(&mut self, tokens: &[u32]) {
        self.history.clear();
        // Only the last can matter.
        let skip = tokens.len().saturating_sub(self.options.penalty_last_n);
        for &token in tokens.iter().skip(skip) {
            self.history.push(token);
        }
    }

    /// Back to the state after [`Sampler::new`]: nothing accepted, the seed's stream from its beginning.
    pub fn reset(&mut self) {
        self.history.clear();
        self.random = Random::new(self.options.seed);
    }

    /// Checks `logits` and copies them into the row, with biases, bans and penalties applied.
    fn adjust(&mut self, logits: &[f32]) -> Result<()> {
        scores::check(logits)?;
        self.row.clear();
        self.row.extend_from_slice(logits);
        for &(token, bias) in &self.options.logit_bias {
            let logit = slot(&mut self.row, token, "logit_bias")?;
            *logit = if bias == f32::NEG_INFINITY { bias } else { bounded(*logit, *logit + bias) };
        }
        for &token in &self.options.banned {
            *slot(&mut self.row, token, "banned")? = f32::NEG_INFINITY;
        }
        for (token, count) in self.history.counts() {
            // A token of another vocabulary has no logit to lower.
            if let Some(logit) = self.row.get_mut(token as usize) {
                *logit = bounded(*logit, penalized(*logit, count, &self.options));
            }
        }
        Ok(())
    }

    /// The token with the largest logit of the row, of equal ones the first.
    fn greedy(&self) -> Result<u32> {
        let mut best = None;
        let mut highest = f32::NEG_INFINITY;
        for (id, &logit) in (0..=u32::MAX).zip(&self.row) {
            if logit > highest {
                (best, highest) = (Some(id), logit);
            }
        }
        best.ok_or(Error::NoTokenLeft { logits: self.row.len() })
    }

    /// Leaves the candidates that all stages let through, with weights at the temperature; returns their sum.
    fn narrow(&mut self) -> Result<f64> {
        let options = &self.options;
        self.candidates.top_k(&self.row, options.top_k);
        if self.candidates.is_empty() {
            return Err(Error::NoTokenLeft { logits: self.row.len() });
        }
        if options.typical_p < 1.0 {
            self.candidates.typical(f64::from(options.typical_p));
        }
        if options.top_p < 1.0 {
            self.candidates.top_p(f64::from(options.top_p));
        }
        if options.min_p > 0.0 {
            self.candidates.min_p(f64::from(options.min_p));
        }
        Ok(self.candidates.weigh(f64::from(options.temperature)))
    }
}

fn slot<'a>(row: &'a mut [f32], token: u32, option: &'static str) -> Result<&'a mut f32> {
    let vocab = row.len();
    row.get_mut(token as usize).ok_or_else(|| Error::InvalidOption {
        option,
        expected: format!("token ids below {vocab}, the size of the vocabulary"),
        found: token.to_string(),
    })
}

/// `new` held to finite values, so that no arithmetic lifts a token to infinity or bans it; only what was negative
/// infinity `before` stays so.
fn bounded(before: f32, new: f32) -> f32 {
    if before == f32::NEG_INFINITY { before } else { new.clamp(f32::MIN, f32::MAX) }
}

/// The logit of a token seen `count` times.
///
/// The repeat penalty divides positive logits and multiplies the others: dividing alone (Keskar et al., CTRL, 2019)
/// would make tokens with negative logits likelier.
fn penalized(logit: f32, count: u32, options: &SamplerOptions) -> f32 {
    let repeated = if logit > 0.0 { logit / options.repeat_penalty } else { logit * options.repeat_penalty };
    repeated - (count as f32 * options.frequency_penalty + options.presence_penalty)
}
