//! Logarithms of probabilities, for scoring text rather than choosing it.

use crate::{Error, Result};

/// That no logit is NaN or positive infinity.
pub(super) fn check(logits: &[f32]) -> Result<()> {
    match logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
        None => Ok(()),
        Some(token) => Err(Error::NonFiniteLogit {
            token,
            found: logits.get(token).copied().unwrap_or(f32::NAN),
            logits: logits.len(),
        }),
    }
}

/// The largest logit, and the logarithm of the sum of the exponentials of all logits less it, in order of ids.
fn normalizer(logits: &[f32]) -> Result<(f64, f64)> {
    check(logits)?;
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return Err(Error::NoTokenLeft { logits: logits.len() });
    }
    let max = f64::from(max);
    let sum: f64 = logits.iter().map(|&logit| libm::exp(f64::from(logit) - max)).sum();
    Ok((max, libm::log(sum)))
}

/// The natural logarithm of each token's probability: the logits less the logarithm of the sum of their exponentials.
///
/// No temperature, no penalties: what the model says.
///
/// # Errors
/// [`Error::NonFiniteLogit`] for NaN or positive infinity, [`Error::NoTokenLeft`] where no logit is above negative
/// infinity.
pub fn log_softmax(logits: &[f32]) -> Result<Vec<f64>> {
    let (max, log_sum) = normalizer(logits)?;
    Ok(logits.iter().map(|&logit| f64::from(logit) - max - log_sum).collect())
}

/// The natural logarithm of the probability of `token`: one value of [`log_softmax`], without the others.
///
/// # Errors
/// As [`log_softmax`], and [`Error::TokenOutOfRange`] for a token without a logit.
pub fn logprob(logits: &[f32], token: u32) -> Result<f64> {
    let &logit = logits.get(token as usize).ok_or(Error::TokenOutOfRange { token, vocab: logits.len() })?;
    let (max, log_sum) = normalizer(logits)?;
    Ok(f64::from(logit) - max - log_sum)
}
