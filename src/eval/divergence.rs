//! How far a model's predictions are from those of another: of a quantized one from the original, say.

use gristmill_kernels::logits::divergence as kl;

use super::perplexity::bytes;
use super::reader::{Logits, Reader, parts};
use super::text::Chunks;
use super::{Distribution, Estimate, Options, Perplexity, Progress, Share};
use crate::model::Model;
use crate::{Error, Result};

/// What two models make of one text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Divergence {
    /// The model's perplexity.
    pub model: Perplexity,
    /// The reference's perplexity.
    pub reference: Perplexity,
    /// The logarithm of the model's perplexity over the reference's. Its error is far smaller than those of the two, for what
    /// is hard for one is hard for the other.
    pub log_ratio: Estimate,
    /// The Kullback-Leibler divergence of the model's prediction from the reference's at each scored position, in nats.
    pub kl: Distribution,
    /// How much more probable, or less, each token of the text is for the model.
    pub probability_change: Distribution,
    /// The root of the mean square of those changes.
    pub rms_probability_change: Estimate,
    /// At how many positions both find the same token likeliest.
    pub same_top: Share,
}

/// What is kept of a position.
struct Compared {
    loss: f64,
    reference_loss: f64,
    kl: f64,
    same_top: bool,
}

/// Measures the divergence of `model` from `reference` over `text`, cut and scored as by
/// [`perplexity`](super::perplexity()), calling `progress` with the mean divergence so far after each chunk.
///
/// Both models read the text side by side. No more than some megabytes of logits are held at a time, and a few numbers of
/// each position.
///
/// # Errors
/// [`Error::VocabularyMismatch`] where the two have not the same tokens; those of [`perplexity`](super::perplexity()).
pub fn divergence(
    model: &Model,
    reference: &Model,
    text: &str,
    options: &Options,
    mut progress: impl FnMut(Progress),
) -> Result<Divergence> {
    same_vocabulary(model, reference)?;
    let context = Some(options.chunk_len());
    let mut reader = Reader::new(model, options, context)?;
    let mut reference_reader = Reader::new(reference, options, context)?;
    let chunks = Chunks::new(reference, text, options)?;
    let (level, together) = (model.level(), reader.positions_together());
    let (mut compared, mut scored_bytes): (Vec<Compared>, usize) = (Vec::new(), 0);
    for (number, chunk) in chunks.iter().enumerate() {
        let (tokens, targets) = chunks.apart(&chunk);
        scored_bytes += bytes(reference, targets)?;
        let (mut sequence, mut reference_sequence) = (reader.begin(), reference_reader.begin());
        for part in parts(tokens, targets, options.batch) {
            let hidden = reader.read(&mut sequence, part.tokens, &part.outputs)?;
            let other = reference_reader.read(&mut reference_sequence, part.tokens, &part.outputs)?;
            let blocks = hidden.blocks(together).zip(other.blocks(together));
            for ((block, other), targets) in blocks.zip(part.targets.chunks(together)) {
                let other =
                    reference_reader.logits(other, |backend, logits| Ok(backend.read(logits)?.to_vec()))?;
                let width = reference.vocabulary();
                compared.extend(reader.score(block, |row, logits| {
                    let other = other.get(row * width..(row + 1) * width).unwrap_or_default();
                    let (ours, other) = (Logits::new(level, logits)?, Logits::new(level, other)?);
                    let target = targets.get(row);
                    Ok(Compared {
                        loss: -ours.log_probability(target)?,
                        reference_loss: -other.log_probability(target)?,
                        kl: kl(level, (other.values, other.log_sum), (ours.values, ours.log_sum))?,
                        same_top: ours.top() == other.top(),
                    })
                })?);
            }
        }
        let estimate = Some(Estimate::mean(compared.iter().map(|position| position.kl)));
        progress(Progress { done: number + 1, total: chunks.len(), estimate });
    }
    let perplexity = |loss: fn(&Compared) -> f64| {
        let losses: Vec<f64> = compared.iter().map(loss).collect();
        Perplexity::new(&losses, scored_bytes, chunks.len(), options.chunk_len())
    };
    Ok(summary(&compared, perplexity(|at| at.loss), perplexity(|at| at.reference_loss)))
}

fn summary(compared: &[Compared], model: Perplexity, reference: Perplexity) -> Divergence {
    let changes: Vec<f64> =
        compared.iter().map(|at| libm::exp(-at.loss) - libm::exp(-at.reference_loss)).collect();
    let square = Estimate::mean(changes.iter().map(|change| change * change));
    let root = libm::sqrt(square.value);
    let mut same_top = Share::default();
    compared.iter().for_each(|at| same_top.count(at.same_top));
    Divergence {
        model,
        reference,
        log_ratio: Estimate::mean(compared.iter().map(|at| at.loss - at.reference_loss)),
        kl: Distribution::new(compared.iter().map(|at| at.kl).collect()),
        probability_change: Distribution::new(changes),
        // Where nothing changes, there is no error either.
        rms_probability_change: square.carried(root, if root > 0.0 { 0.5 / root } else { 0.0 }),
        same_top,
    }
}

/// That both models have the same tokens, and as many logits.
fn same_vocabulary(model: &Model, reference: &Model) -> Result<()> {
    let (ours, theirs) = (model.vocabulary(), reference.vocabulary());
    if ours != theirs {
        let (expected, found) = (format!("{theirs} tokens"), format!("{ours}"));
        return Err(Error::VocabularyMismatch { expected, found });
    }
    let (ours, theirs) = (model.tokenizer()?, reference.tokenizer()?);
    let tokens = 0..ours.vocab_len().max(theirs.vocab_len()) as u32;
    let text =
        |text: Option<&[u8]>| text.map_or("none".to_owned(), |text| format!("\"{}\"", text.escape_ascii()));
    for token in tokens {
        let (ours, theirs) = (ours.token_text(token), theirs.token_text(token));
        if ours != theirs {
            let (expected, found) = (format!("{} as token {token}", text(theirs)), text(ours));
            return Err(Error::VocabularyMismatch { expected, found });
        }
    }
    Ok(())
}
