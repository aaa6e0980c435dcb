//! Embeddings: a text as a vector, near to those of texts that mean the like.
//!
//! An [`Embedder`] runs encoders (BERT and its kin), which read a text as a whole, and decoders, whose last layer's results
//! stand for the text so far. How the tokens' vectors become one is the model's own [`Pooling`], which most files name.
#![forbid(unsafe_code)]

use crate::backend::cpu::Workspace;
use crate::backend::{Cache, CacheType, CacheTypes};
use crate::generate::CancelHandle;
use crate::model::Model;
use crate::model::pass::Pass;
use crate::text::EncodeOptions;
use crate::{Error, Result};

/// Tokens of a decoder that are fed in one pass.
const BATCH: usize = 512;

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Pooling {
    /// Not at all: each token keeps its own.
    None,
    /// Their mean.
    Mean,
    /// That of the first token.
    Cls,
    /// That of the last token.
    Last,
    /// None of them: a score, which a head of the model makes of a query and a document together.
    Rank,
}

impl Pooling {
    /// Every way, in the order of the numbers that files have for them.
    pub const ALL: &'static [Pooling] =
        &[Pooling::None, Pooling::Mean, Pooling::Cls, Pooling::Last, Pooling::Rank];

    /// Its name: `none`, `mean`, `cls`, `last`, `rank`.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::None => "none",
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::Last => "last",
            Pooling::Rank => "rank",
        }
    }
}

impl std::fmt::Display for Pooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How texts are embedded. Start from [`EmbedOptions::default`].
#[derive(Clone, Debug)]
#[must_use]
pub struct EmbedOptions {
    pooling: Option<Pooling>,
    normalize: bool,
    context: Option<usize>,
    cache: CacheTypes,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        EmbedOptions { pooling: None, normalize: true, context: None, cache: CacheType::F32.into() }
    }
}

impl EmbedOptions {
    /// The pooling; by default [`Model::pooling`], and where the file names none, the mean for an encoder and the last
    /// token for a decoder.
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = Some(pooling);
        self
    }

    /// Whether a pooled vector is made one of length 1, as is the default. Vectors of single tokens
    /// ([`Pooling::None`]) and scores ([`Pooling::Rank`]) always are as the model gives them.
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }

    /// The most tokens that a text may have; by default what the model was trained for. A longer text is an error: none
    /// is ever cut.
    pub fn context(mut self, tokens: usize) -> Self {
        self.context = Some(tokens);
        self
    }

    /// In which form keys and values are kept while a text is read: by default in f32, exactly.
    pub fn cache(mut self, types: impl Into<CacheTypes>) -> Self {
        self.cache = types.into();
        self
    }
}

/// What became of one text.
#[derive(Clone, PartialEq, Debug)]
pub struct Embedding {
    values: Vec<f32>,
    width: usize,
    tokens: usize,
}

impl Embedding {
    /// The numbers, row by row: one row, but for [`Pooling::None`] one for each token.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// As [`Embedding::values`].
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.width.max(1))
    }

    /// Numbers of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens of the text, with those that the tokenizer adds.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// Embeds texts, one after the other: `Send`, and can be stopped from elsewhere.
///
/// A text gives the same numbers, bit for bit, whatever came before it, on every instruction set and with any number of
/// threads.
///
/// ```
/// use gristmill::Model;
/// use gristmill::embed::{EmbedOptions, Pooling};
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vendor/models/tiny-instruct-q8_0.gguf");
/// let model = Model::open(path)?;
/// let mut embedder = model.embedder(EmbedOptions::default().pooling(Pooling::Mean))?;
/// let texts = embedder.embed_all(&["a red apple", "a green apple", "What is 3 + 4?"])?;
/// let alike = |a: usize, b: usize| -> f32 {
///     texts[a].values().iter().zip(texts[b].values()).map(|(x, y)| x * y).sum()
/// };
/// assert!(alike(0, 1) > alike(0, 2));
/// # Ok::<(), gristmill::Error>(())
/// ```
pub struct Embedder {
    model: Model,
    pooling: Pooling,
    normalize: bool,
    context: usize,
    cache: CacheTypes,
    work: Workspace,
    cancel: CancelHandle,
}

impl Model {
    /// The pooling that the model was trained with, as its file says (`*.pooling_type`); `None` where it is silent.
    ///
    /// # Errors
    /// [`Error::MetadataType`] for a number that stands for no pooling.
    pub fn pooling(&self) -> Result<Option<Pooling>> {
        let key = format!("{}.pooling_type", self.architecture().name);
        let Some(number) = self.metadata().u32(&key)? else { return Ok(None) };
        match Pooling::ALL.get(number as usize) {
            Some(&pooling) => Ok(Some(pooling)),
            None => {
                let expected = "0 (none), 1 (mean), 2 (cls), 3 (last) or 4 (rank)";
                Err(Error::MetadataType { key, expected, found: number.to_string() })
            }
        }
    }

    /// What embeds texts. Encoders and decoders can; how well a decoder does that was not trained for it is another
    /// matter.
    ///
    /// # Errors
    /// Those of [`Model::pooling`]; [`Error::ContextFull`] where the options ask for a longer context than the model can
    /// have at all.
    pub fn embedder(&self, options: EmbedOptions) -> Result<Embedder> {
        let silent = if self.is_encoder() { Pooling::Mean } else { Pooling::Last };
        let pooling = match options.pooling {
            Some(pooling) => pooling,
            None => self.pooling()?.unwrap_or(silent),
        };
        Ok(Embedder {
            model: self.clone(),
            pooling,
            normalize: options.normalize && !matches!(pooling, Pooling::None | Pooling::Rank),
            context: self.context_for(options.context)?,
            cache: options.cache,
            work: Workspace::default(),
            cancel: CancelHandle::default(),
        })
    }

    /// The embedding of one text: see [`Embedder::embed`].
    ///
    /// # Errors
    /// Those of [`Model::embedder`] and [`Embedder::embed`].
    pub fn embed(&self, text: &str, options: EmbedOptions) -> Result<Embedding> {
        self.embedder(options)?.embed(text)
    }
}

impl Embedder {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How tokens' vectors become one.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// The most tokens that a text may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// A handle that stops this embedder's work from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Embeds a text. The tokenizer adds the special tokens that the model wants (`[CLS]`, EOS); those that the text
    /// itself spells are plain text. What a model wants to stand before a text, such as `query: `, is the caller's to
    /// write.
    ///
    /// # Errors
    /// Those of [`Model::tokenizer`] and [`Embedder::embed_tokens`].
    pub fn embed(&mut self, text: &str) -> Result<Embedding> {
        let tokens = self.model.tokenizer()?.encode(text, EncodeOptions::default())?;
        self.embed_tokens(&tokens)
    }

    /// Embeds texts, one after the other.
    ///
    /// # Errors
    /// Those of [`Embedder::embed`], at the first text that fails.
    pub fn embed_all<S: AsRef<str>>(&mut self, texts: &[S]) -> Result<Vec<Embedding>> {
        texts.iter().map(|text| self.embed(text.as_ref())).collect()
    }

    /// Embeds tokens as they are.
    ///
    /// # Errors
    /// [`Error::NothingToEmbed`], [`Error::ContextFull`] and [`Error::TokenOutOfRange`] before any work;
    /// [`Error::PoolingAbsent`] where a score was asked of a model without a head for it;
    /// [`Error::Cancelled`] and [`Error::OutOfMemory`] on the way; [`Error::NonFiniteEmbedding`].
    pub fn embed_tokens(&mut self, tokens: &[u32]) -> Result<Embedding> {
        if tokens.is_empty() {
            return Err(Error::NothingToEmbed);
        }
        self.model.check_tokens(tokens)?;
        if tokens.len() > self.context {
            return Err(Error::ContextFull { needed: tokens.len(), context: self.context });
        }
        let mut pooled = self.pool(tokens)?;
        let mut width = pooled.len() / if self.pooling == Pooling::None { tokens.len() } else { 1 };
        if self.pooling != Pooling::None {
            pooled = self.finish(pooled)?;
            width = pooled.len();
        }
        if let Some(index) = pooled.iter().position(|x| !x.is_finite()) {
            let found = pooled.get(index).copied().unwrap_or(f32::NAN);
            return Err(Error::NonFiniteEmbedding { index, found });
        }
        if self.normalize {
            normalize(&mut pooled);
        }
        Ok(Embedding { values: pooled, width, tokens: tokens.len() })
    }

    /// The tokens' vectors as the pooling asks: all of them, or what they become.
    fn pool(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let Embedder { model, pooling, cache, work, cancel, .. } = self;
        let (network, pooling) = (model.network(), *pooling);
        let mean = pooling == Pooling::Mean || pooling == Pooling::Rank && network.ranks_mean();
        // A text goes through an encoder in one pass: its tokens see those behind them.
        let batch = if network.is_encoder() { tokens.len() } else { BATCH };
        let mut cache = Cache::new(*cache, network.cache_layers());
        let (mut rows, mut sums): (Vec<f32>, Vec<f64>) = (Vec::new(), Vec::new());
        let mut start = 0;
        for part in tokens.chunks(batch) {
            let end = start + part.len();
            let outputs: Vec<usize> = match pooling {
                Pooling::None => (0..part.len()).collect(),
                _ if mean => (0..part.len()).collect(),
                Pooling::Cls => (start == 0).then_some(0).into_iter().collect(),
                // An encoder's score is made of its first token, a decoder's of its last.
                Pooling::Rank if network.is_encoder() => vec![0],
                _ => (end == tokens.len()).then(|| part.len() - 1).into_iter().collect(),
            };
            model.pass(work, |backend| {
                let mut pass = Pass {
                    backend: &mut *backend,
                    cache: &mut cache,
                    tokens: part,
                    start,
                    // As transformers does, LongRoPE goes by the length of the text.
                    context: tokens.len(),
                    outputs: &outputs,
                    go_on: &mut |_| !cancel.take(),
                };
                let Some(hidden) = network.hidden(&mut pass)? else { return Ok::<_, Error>(()) };
                let numbers = backend.read(hidden)?;
                if !mean {
                    rows.extend_from_slice(numbers);
                    return Ok(());
                }
                sums.resize(hidden.width, 0.0);
                for row in numbers.chunks_exact(hidden.width.max(1)) {
                    sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
                }
                Ok(())
            })?;
            start = end;
        }
        if mean {
            return Ok(sums.iter().map(|sum| (sum / tokens.len() as f64) as f32).collect());
        }
        Ok(rows)
    }

    /// What the model makes of a pooled vector.
    fn finish(&mut self, pooled: Vec<f32>) -> Result<Vec<f32>> {
        let Embedder { model, pooling, work, .. } = self;
        let (network, architecture) = (model.network(), model.architecture().name);
        // No layer keeps anything of this.
        let mut cache = Cache::new(CacheType::F32.into(), []);
        model.pass(work, |backend| {
            let pooled = backend.write(pooled.len(), &pooled)?;
            let (tokens, outputs, go_on) = (&[], &[], &mut |_| true);
            let mut pass = Pass {
                backend: &mut *backend,
                cache: &mut cache,
                tokens,
                start: 0,
                context: 0,
                outputs,
                go_on,
            };
            let done = match pooling {
                Pooling::Rank => network.rank(&mut pass, pooled)?.ok_or(Error::PoolingAbsent {
                    architecture,
                    pooling: pooling.name(),
                    expected: "scores take a head (`cls.output`) that it lacks; choose mean, cls, last or none",
                })?,
                _ => network.project(&mut pass, pooled)?,
            };
            Ok(backend.read(done)?.to_vec())
        })
    }
}

/// Makes `x` a vector of length 1; one of zeros stays.
fn normalize(x: &mut [f32]) {
    let length = libm::sqrt(x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>());
    if length > 0.0 {
        x.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalized_vectors_have_length_one() {
        let mut x = [3e20, 0.0, -4e20];
        normalize(&mut x);
        assert_eq!(x, [0.6, 0.0, -0.8]);
        let mut zeros = [0.0; 3];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }

    #[test]
    fn an_embedder_can_be_sent() {
        fn sent<T: Send>() {}
        sent::<Embedder>();
        sent::<Embedding>();
    }
}
