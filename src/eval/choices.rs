//! Multiple-choice tasks, answered by the choice that the model finds likeliest.

use super::reader::Reader;
use super::task::Choice;
use super::text::encode;
use super::{Options, Progress, Share, Task};
use crate::model::Model;
use crate::{Error, Result};

/// How a model did on some tasks.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Choices {
    /// Tasks whose right answer has the greatest log-likelihood: `acc` of lm-evaluation-harness.
    pub likeliest: Share,
    /// Tasks whose right answer has the greatest log-likelihood for each of its characters: `acc_norm`.
    pub per_character: Share,
    /// Tasks whose right answer has the greatest log-likelihood for each of its bytes: `acc_bytes`.
    pub per_byte: Share,
    /// The tasks one by one.
    pub answered: Vec<Answered>,
}

/// What a model made of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The logarithm of the probability of each choice's text.
    pub log_likelihoods: Vec<f64>,
    /// The right answer.
    pub answer: usize,
}

/// Has `model` answer tasks, calling `progress` with the share of right answers so far after each.
///
/// A choice's text is scored as it goes on from its prompt, both encoded as one text; special tokens are not looked for,
/// and BOS stands before it where the model wants that. What the choices of a task have in common is read once.
/// [`Options::context`] bounds prompt and text together.
///
/// # Errors
/// [`Error::NoTasks`]; [`Error::ContextFull`] for a task that is longer than the context; [`Error::NothingFed`] for an empty
/// prompt where the model has no BOS; [`Error::NoNextToken`] for an encoder; [`Error::NonFiniteLogit`] for damaged weights;
/// [`Error::Cancelled`]; those of the tokenizer.
pub fn choices(
    model: &Model,
    tasks: &[Task],
    options: &Options,
    mut progress: impl FnMut(Progress),
) -> Result<Choices> {
    let tasks = tasks.get(..options.limit.unwrap_or(tasks.len()).min(tasks.len())).unwrap_or_default();
    if tasks.is_empty() {
        return Err(Error::NoTasks);
    }
    let mut reader = Reader::new(model, options, options.context)?;
    let none = Share::default();
    let mut found = Choices { likeliest: none, per_character: none, per_byte: none, answered: Vec::new() };
    for task in tasks {
        let log_likelihoods = log_likelihoods(model, &mut reader, &task.choices)?;
        let right = |length: fn(&str) -> usize| {
            let scores = log_likelihoods.iter().zip(&task.choices);
            best(scores.map(|(score, choice)| score / length(&choice.text) as f64)) == task.answer
        };
        found.likeliest.count(right(|_| 1));
        found.per_character.count(right(|text| text.chars().count()));
        found.per_byte.count(right(str::len));
        found.answered.push(Answered { log_likelihoods, answer: task.answer });
        let estimate = Some(found.likeliest.estimate());
        progress(Progress { done: found.answered.len(), total: tasks.len(), estimate });
    }
    Ok(found)
}

/// The place of the greatest; of several the first.
fn best(scores: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (place, score) in scores.enumerate() {
        if score > best.1 {
            best = (place, score);
        }
    }
    best.0
}

fn log_likelihoods(model: &Model, reader: &mut Reader<'_>, choices: &[Choice]) -> Result<Vec<f64>> {
    let texts = choices.iter().map(|choice| pair(model, choice)).collect::<Result<Vec<_>>>()?;
    let shared = shared(&texts);
    let mut sequence = reader.begin();
    let common = texts.first().and_then(|(tokens, _)| tokens.get(..shared)).unwrap_or_default();
    reader.losses(&mut sequence, common, &[])?;
    let score = |(tokens, scored): &(Vec<u32>, usize)| {
        let read = tokens.get(shared..tokens.len().saturating_sub(1)).unwrap_or_default();
        let targets = tokens.get(*scored..).unwrap_or_default();
        let losses = reader.losses(&mut sequence.clone(), read, targets)?;
        Ok(-losses.iter().sum::<f64>())
    };
    texts.iter().map(score).collect()
}

/// How many tokens all texts begin with, and none scores: nor the one before, whose prediction is the first that counts.
fn shared(texts: &[(Vec<u32>, usize)]) -> usize {
    let mut shared = texts.iter().map(|(_, scored)| scored.saturating_sub(1)).min().unwrap_or(0);
    if let Some(((first, _), others)) = texts.split_first() {
        for (other, _) in others {
            let alike = first.iter().zip(other).take_while(|(a, b)| a == b).count();
            shared = shared.min(alike);
        }
    }
    shared
}

/// The tokens of a choice, prompt and text, and the first of them that is scored.
fn pair(model: &Model, choice: &Choice) -> Result<(Vec<u32>, usize)> {
    // Spaces at the prompt's end belong to the word that follows.
    let prompt = choice.prompt.trim_end();
    let whole = format!("{} {}", choice.prompt, choice.text);
    let mut scored = encode(model, prompt)?.len();
    let mut tokens = encode(model, &whole)?;
    if scored == 0 {
        // Something has to stand before the first token for it to be predicted.
        let special = model.tokenizer()?.special_tokens();
        tokens.insert(0, special.bos.or(special.eos).ok_or(Error::NothingFed)?);
        scored = 1;
    }
    model.check_tokens(&tokens)?;
    // Where prompt and text melt into one token, that is scored.
    scored = scored.min(tokens.len().saturating_sub(1)).max(1);
    Ok((tokens, scored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_ends_before_what_is_scored() {
        assert_eq!(shared(&[(vec![1, 2, 3, 4], 3), (vec![1, 2, 3, 5], 3)]), 2);
        assert_eq!(shared(&[(vec![1, 2, 3, 4], 3), (vec![1, 7, 3, 4], 3)]), 1);
        assert_eq!(shared(&[(vec![1, 2], 1), (vec![1, 3], 1)]), 0);
    }

    #[test]
    fn of_equal_choices_the_first_is_taken() {
        assert_eq!(best([-3.0, -1.0, -1.0].into_iter()), 1);
        assert_eq!(best([f64::NEG_INFINITY; 2].into_iter()), 0);
    }
}
