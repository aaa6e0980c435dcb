//! Text that grows token by token: sampling, decoding and stopping.
#![forbid(unsafe_code)]

use super::{Sampler, Stepper};
use crate::text::{Decoder, SUPPRESS_KEY};
use crate::{Error, Result};

/// When generation ends. Start from [`GenerateOptions::default`]: at an end-of-generation token or a full context.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct GenerateOptions {
    max_tokens: Option<usize>,
    stop: Vec<String>,
    ignore_end: bool,
}

impl GenerateOptions {
    /// The most tokens to generate.
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// A text that ends generation where it appears; it is not part of what is generated. May be given often.
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.stop.push(text);
        }
        self
    }

    /// Go on after end-of-generation tokens, for benchmarks.
    pub fn ignore_end(mut self, ignore: bool) -> Self {
        self.ignore_end = ignore;
        self
    }
}

/// Why generation ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Finish {
    /// The model chose this end-of-generation token.
    End(u32),
    /// This stop text appeared.
    Stop(String),
    /// The most tokens that were asked for are there.
    Length,
    /// The context is full.
    Context,
}

impl std::fmt::Display for Finish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finish::End(_) => f.write_str("end"),
            Finish::Stop(text) => write!(f, "stop text {text:?}"),
            Finish::Length => f.write_str("length"),
            Finish::Context => f.write_str("context full"),
        }
    }
}

/// One generated token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The token.
    pub token: u32,
    text: String,
}

impl Step {
    /// The text that is complete with this token: often the token's own, empty while a character or a stop text may be
    /// on its way.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Tokens of a [`Stepper`], one by one: an iterator over [`Step`]s.
///
/// Each token is fed when the next one is asked for. The last one is fed by [`Generation::finish`], and not at all
/// where the iterator is dropped before. An error ends the iterator; after [`Error::Cancelled`], [`Generation::finish`]
/// and another [`Stepper::generate`] go on.
#[must_use = "tokens are generated as they are asked for"]
pub struct Generation<'a> {
    stepper: &'a mut Stepper,
    sampler: &'a mut Sampler,
    options: GenerateOptions,
    decoder: Decoder,
    /// Text that may turn out to be the beginning of a stop text.
    held: String,
    /// The last token, not fed yet.
    pending: Option<u32>,
    count: usize,
    finish: Option<Finish>,
    failed: bool,
}

impl Stepper {
    /// Chooses the next token by the sampler, without feeding it: none that the file says must not be generated
    /// ([`Tokenizer::suppressed_tokens`](crate::text::Tokenizer::suppressed_tokens)). [`Sampler::sample`] on
    /// [`Stepper::logits`] chooses among all.
    ///
    /// # Errors
    /// [`Error::NothingFed`] where there are no logits; those of [`Sampler::sample`]; where the file says so of some
    /// token, those of [`Model::tokenizer`](crate::Model::tokenizer).
    pub fn sample(&self, sampler: &mut Sampler) -> Result<u32> {
        if self.logits.is_empty() {
            return Err(Error::NothingFed);
        }
        let suppressed = match self.model().metadata().contains(SUPPRESS_KEY) {
            true => self.model().tokenizer()?.suppressed_tokens(),
            false => &[],
        };
        if let Some(left) = self.logits.left()
            && let Some(token) = sampler.of_largest((left.largest, left.place), left.width, suppressed)
        {
            return Ok(token);
        }
        sampler.sample_without(self.logits.all(self.model())?, suppressed)
    }

    /// Continues the sequence. The sampler's penalties see the tokens fed so far.
    ///
    /// # Errors
    /// [`Error::NothingFed`] where there are no logits; those of [`Model::tokenizer`](crate::Model::tokenizer).
    pub fn generate<'a>(
        &'a mut self,
        sampler: &'a mut Sampler,
        options: GenerateOptions,
    ) -> Result<Generation<'a>> {
        if self.logits.is_empty() {
            return Err(Error::NothingFed);
        }
        let decoder = self
            .model()
            .tokenizer()?
            .decoder_with(crate::text::DecodeOptions { strip_space_prefix: false, ..Default::default() });
        sampler.set_history(self.tokens());
        Ok(Generation {
            stepper: self,
            sampler,
            options,
            decoder,
            held: String::new(),
            pending: None,
            count: 0,
            finish: None,
            failed: false,
        })
    }
}

impl Generation<'_> {
    /// Why generation ended; `None` before the iterator does.
    pub fn finish_reason(&self) -> Option<&Finish> {
        self.finish.as_ref()
    }

    /// Tokens generated so far.
    pub fn tokens(&self) -> usize {
        self.count
    }

    /// Feeds the last token, so that the sequence holds all that was generated, and gives the reason of the end.
    ///
    /// # Errors
    /// Those of [`Stepper::feed`].
    pub fn finish(mut self) -> Result<Option<Finish>> {
        self.feed_pending()?;
        Ok(self.finish)
    }

    /// Whether there was room for the last token.
    fn feed_pending(&mut self) -> Result<bool> {
        if let Some(token) = self.pending {
            if self.stepper.len() >= self.stepper.context() {
                return Ok(false);
            }
            self.stepper.feed(&[token])?;
            self.pending = None;
        }
        Ok(true)
    }

    /// Ends generation; gives what text was held back.
    fn end(&mut self, finish: Finish) -> String {
        self.finish = Some(finish);
        let mut text = std::mem::take(&mut self.held);
        text.push_str(self.decoder.finish());
        text
    }

    fn advance(&mut self) -> Result<Option<Step>> {
        if self.options.max_tokens == Some(self.count) {
            let text = self.end(Finish::Length);
            return Ok(self.last_step(text));
        }
        if !self.feed_pending()? {
            let text = self.end(Finish::Context);
            return Ok(self.last_step(text));
        }
        let token = self.stepper.sample(self.sampler)?;
        let end = self.stepper.model().tokenizer()?.is_end_of_generation(token);
        if end && !self.options.ignore_end {
            let text = self.end(Finish::End(token));
            return Ok(self.last_step(text));
        }
        self.sampler.accept(token);
        self.pending = Some(token);
        self.count += 1;
        self.held.push_str(self.decoder.push(token));
        let text = match first_stop(&self.held, &self.options.stop) {
            Some((at, stop)) => {
                self.finish = Some(Finish::Stop(stop.to_owned()));
                self.held.truncate(at);
                std::mem::take(&mut self.held)
            }
            None => {
                let keep = self.held.len() - possible_stop(&self.held, &self.options.stop);
                let rest = self.held.split_off(keep);
                std::mem::replace(&mut self.held, rest)
            }
        };
        Ok(Some(Step { token, text }))
    }

    /// Text that was held back and comes after the last token, as a step of that token.
    fn last_step(&self, text: String) -> Option<Step> {
        let token = self.pending.or(self.stepper.tokens().last().copied())?;
        (!text.is_empty()).then_some(Step { token, text })
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finish.is_some() || self.failed {
            return None;
        }
        let step = self.advance();
        self.failed = step.is_err();
        step.transpose()
    }
}

/// Where in `text` the first stop text begins, and which it is.
fn first_stop<'a>(text: &str, stops: &'a [String]) -> Option<(usize, &'a str)> {
    stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop.as_str()))).min_by_key(|&(at, _)| at)
}

/// How many bytes at the end of `text` could be the beginning of a stop text.
fn possible_stop(text: &str, stops: &[String]) -> usize {
    let longest = |stop: &String| {
        let lengths = (1..stop.len().min(text.len() + 1)).rev();
        lengths
            .filter(|&len| stop.is_char_boundary(len))
            .find(|&len| stop.get(..len).is_some_and(|s| text.ends_with(s)))
    };
    stops.iter().filter_map(longest).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_of_stop_texts_are_held_back() {
        let stops = ["</s>".to_owned(), "\n\n".to_owned(), "éa".to_owned()];
        for (text, held) in [("abc", 0), ("abc<", 1), ("abc</s", 3), ("<\n", 1), ("aé", 2), ("", 0)] {
            assert_eq!(possible_stop(text, &stops), held, "{text:?}");
        }
        assert_eq!(first_stop("a\n\nb</s>", &stops), Some((1, "\n\n")));
        assert_eq!(first_stop("a\nb", &stops), None);
    }
}
