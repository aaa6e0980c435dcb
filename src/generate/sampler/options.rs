//! What a sampler can be told.

use crate::{Error, Result};

/// How tokens are chosen. Begin with [`SamplerOptions::default`] or [`SamplerOptions::greedy`] and change what
/// should differ.
///
/// The stages apply in the order of the fields here, from `logit_bias` to `temperature`; each sees only the tokens
/// that those before it kept. The values are checked by [`Sampler::new`](super::Sampler::new).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct SamplerOptions {
    /// Values to add to the logits of single tokens; negative infinity bans one. Default: none.
    pub logit_bias: Vec<(u32, f32)>,
    /// Tokens that never come. Default: none.
    pub banned: Vec<u32>,
    /// How many of the last tokens the three penalties look back upon; 0 switches them off. Default: 64.
    pub penalty_last_n: usize,
    /// Divides the logit of a token seen before if positive, else multiplies it. Above 0; 1, the default, is off.
    pub repeat_penalty: f32,
    /// Subtracted from the logit of a token once for each time that it was seen. 0, the default, is off.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of a token that was seen. 0, the default, is off.
    pub presence_penalty: f32,
    /// How many of the likeliest tokens are kept; 0 keeps all. Default: 40.
    pub top_k: usize,
    /// Keeps tokens of typical surprise, until their probabilities exceed this. In (0, 1]; 1, the default, is off.
    pub typical_p: f32,
    /// Keeps the likeliest tokens, until their probabilities reach this. In (0, 1]; 1 is off. Default: 0.95.
    pub top_p: f32,
    /// Keeps tokens at least this many times as likely as the likeliest. In [0, 1]; 0 is off. Default: 0.05.
    pub min_p: f32,
    /// Divides the logits of the tokens that are left, so that above 1 choices are more even. 0 chooses the largest
    /// logit (of equal ones the lowest id) after biases, bans and penalties, whatever the stages between would keep.
    /// Default: 0.8.
    pub temperature: f32,
    /// Where the random numbers begin. Default: 0, always: this library reads no clock and no random device, so a
    /// program gives the same text each time until it chooses a seed of its own.
    pub seed: u64,
}

impl Default for SamplerOptions {
    /// The values of llama.cpp's programs, but for the seed, which is fixed.
    fn default() -> Self {
        SamplerOptions {
            logit_bias: Vec::new(),
            banned: Vec::new(),
            penalty_last_n: 64,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            top_k: 40,
            typical_p: 1.0,
            top_p: 0.95,
            min_p: 0.05,
            temperature: 0.8,
            seed: 0,
        }
    }
}

impl SamplerOptions {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self::default().temperature(0.0)
    }

    /// Every token with the probability that the model gives it: temperature 1 and no other stage.
    pub fn unfiltered() -> Self {
        SamplerOptions { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 1.0, ..Self::default() }
    }

    /// Adds `bias` to the logit of `token`, and to what was set for it before.
    pub fn bias(mut self, token: u32, bias: f32) -> Self {
        self.logit_bias.push((token, bias));
        self
    }

    /// Lets none of `tokens` come, nor any banned before.
    pub fn ban(mut self, tokens: impl IntoIterator<Item = u32>) -> Self {
        self.banned.extend(tokens);
        self
    }

    /// Sets [`penalty_last_n`](Self::penalty_last_n).
    pub fn penalty_last_n(mut self, tokens: usize) -> Self {
        self.penalty_last_n = tokens;
        self
    }

    /// Sets [`repeat_penalty`](Self::repeat_penalty).
    pub fn repeat_penalty(mut self, factor: f32) -> Self {
        self.repeat_penalty = factor;
        self
    }

    /// Sets [`frequency_penalty`](Self::frequency_penalty).
    pub fn frequency_penalty(mut self, penalty: f32) -> Self {
        self.frequency_penalty = penalty;
        self
    }

    /// Sets [`presence_penalty`](Self::presence_penalty).
    pub fn presence_penalty(mut self, penalty: f32) -> Self {
        self.presence_penalty = penalty;
        self
    }

    /// Sets [`top_k`](Self::top_k).
    pub fn top_k(mut self, tokens: usize) -> Self {
        self.top_k = tokens;
        self
    }

    /// Sets [`typical_p`](Self::typical_p).
    pub fn typical_p(mut self, p: f32) -> Self {
        self.typical_p = p;
        self
    }

    /// Sets [`top_p`](Self::top_p).
    pub fn top_p(mut self, p: f32) -> Self {
        self.top_p = p;
        self
    }

    /// Sets [`min_p`](Self::min_p).
    pub fn min_p(mut self, p: f32) -> Self {
        self.min_p = p;
        self
    }

    /// Sets [`temperature`](Self::temperature).
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// Sets [`seed`](Self::seed).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether accepted tokens make a difference.
    pub(super) fn penalizes(&self) -> bool {
        self.penalty_last_n > 0
            && (self.repeat_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0)
    }

    pub(super) fn validate(&self) -> Result<()> {
        const FINITE: &str = "a finite number";
        const SHARE: &str = "a number above 0 and at most 1";
        let share = |p: f32| p > 0.0 && p <= 1.0;
        // A factor whose inverse is infinite would lift logits there.
        let factor = |p: f32| p.is_normal() && p > 0.0;
        let checks = [
            (
                "repeat_penalty",
                self.repeat_penalty,
                factor(self.repeat_penalty),
                "a finite number above 0 (1 is off)",
            ),
            ("frequency_penalty", self.frequency_penalty, self.frequency_penalty.is_finite(), FINITE),
            ("presence_penalty", self.presence_penalty, self.presence_penalty.is_finite(), FINITE),
            ("typical_p", self.typical_p, share(self.typical_p), SHARE),
            ("top_p", self.top_p, share(self.top_p), SHARE),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "a number from 0 to 1"),
            (
                "temperature",
                self.temperature,
                self.temperature.is_finite() && self.temperature >= 0.0,
                "a finite number, 0 (greedy) or above",
            ),
        ];
        for (option, found, valid, expected) in checks {
            if !valid {
                return Err(Error::InvalidOption {
                    option,
                    expected: expected.to_owned(),
                    found: found.to_string(),
                });
            }
        }
        for &(token, bias) in &self.logit_bias {
            if bias.is_nan() || bias == f32::INFINITY {
                return Err(Error::InvalidOption {
                    option: "logit_bias",
                    expected: "a finite number or negative infinity for each token".to_owned(),
                    found: format!("{bias} for token {token}"),
                });
            }
        }
        Ok(())
    }
}
