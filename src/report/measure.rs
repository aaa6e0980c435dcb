//! What is measured of a model: the one place that asks `eval` and `speed`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use gristmill_kernels::encode::decode;
use gristmill_kernels::simd::Level;

use super::data::{Divergence, Measured, Quality, Rate, Settings, Size, Speed, TensorError, Turn, TypeShare};
use crate::backend::cpu::threads::{Team, Threads};
use crate::eval::{self, Estimate};
use crate::generate::{CancelHandle, StepperOptions};
use crate::model::file::{ModelFile, TensorView};
use crate::model::{Model, ModelOptions};
use crate::speed::{self, Case, Figures, Remark, Suite, Test, memory};
use crate::{Error, Result};

/// Hears how far a measurement is, so many parts of so many; an error ends it.
pub type Tell<'a> = &'a mut dyn FnMut(usize, usize) -> Result<()>;

impl From<Estimate> for Measured {
    fn from(estimate: Estimate) -> Self {
        let error = if estimate.error.is_finite() { estimate.error } else { 0.0 };
        Measured { value: estimate.value, error }
    }
}

/// What a file is made of.
pub fn size(file: &ModelFile) -> Size {
    let mut types: BTreeMap<&str, TypeShare> = BTreeMap::new();
    for tensor in file.tensors() {
        let ty = tensor.info.ty.name();
        let new = || TypeShare { ty: ty.to_owned(), tensors: 0, weights: 0, bytes: 0 };
        let share = types.entry(ty).or_insert_with(new);
        share.tensors += 1;
        share.weights = share.weights.saturating_add(tensor.info.elements() as u64);
        share.bytes = share.bytes.saturating_add(tensor.info.bytes());
    }
    let mut types: Vec<TypeShare> = types.into_values().collect();
    types.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    let sum = |of: fn(&TypeShare) -> u64| types.iter().map(of).fold(0, u64::saturating_add);
    let (bytes, weights) = (sum(|share| share.bytes), sum(|share| share.weights));
    Size { bytes, weights, bits_per_weight: bytes as f64 * 8.0 / weights.max(1) as f64, types }
}

/// How well `model` predicts the text, and how far it is from `reference`.
pub fn quality(
    model: &Model,
    reference: Option<&Model>,
    text: &str,
    settings: &Settings,
    tell: Tell<'_>,
) -> Result<Quality> {
    let cancel = CancelHandle::default();
    let mut options = eval::Options::default().context(settings.context).cancel(cancel.clone());
    if let Some(chunks) = settings.chunks {
        options = options.limit(chunks);
    }
    let mut ended = Ok(());
    let progress = |at: eval::Progress| {
        if let Err(error) = tell(at.done, at.total) {
            ended = Err(error);
            cancel.cancel();
        }
    };
    let found = match reference {
        None => eval::perplexity(model, text, &options, progress).map(|found| (found, None)),
        Some(reference) => eval::divergence(model, reference, text, &options, progress).map(|found| {
            let divergence = Divergence {
                mean: found.kl.mean().into(),
                median: found.kl.median(),
                p99: found.kl.quantile(0.99),
                max: found.kl.max(),
                same_top: found.same_top.estimate().into(),
                log_ratio: found.log_ratio.into(),
            };
            (found.model, Some(divergence))
        }),
    };
    ended?;
    let (found, divergence) = found?;
    Ok(Quality {
        perplexity: found.perplexity.into(),
        bits_per_byte: found.bits_per_byte.into(),
        tokens: found.tokens,
        chunks: found.chunks,
        divergence,
    })
}

/// One run of each test, after one that warms up and brings in what of the file is not in memory.
pub fn turn(suite: &mut Suite, model: &Model, settings: &Settings) -> Result<Turn> {
    let options = speed::Options::default();
    speed::first_token(model, &options, 1)?;
    suite.add(model, &options, &[Test::prompt(settings.prompt), Test::generate(settings.generate)])?;
    suite.round(&mut || ())?;
    let cases = suite.take_cases();
    let last = |rates: Option<&[f64]>| {
        let last = rates.and_then(<[f64]>::last).copied();
        last.ok_or(Error::Internal { what: "a test of speed without runs" })
    };
    Ok(Turn {
        reference: last(Some(suite.reference()))?,
        prompt: last(cases.first().map(Case::rates))?,
        generate: last(cases.get(1).map(Case::rates))?,
    })
}

/// What a model's turns say together; `None` of no turns.
pub fn speed(turns: &[Turn]) -> Option<Speed> {
    let all = |of: fn(&Turn) -> f64| turns.iter().map(of).collect::<Vec<f64>>();
    let reference = all(|turn| turn.reference);
    let rate = |rates: Vec<f64>| {
        let Figures { median, least, most } = Figures::of(&rates)?;
        let remark = Remark::of(&rates, &reference).map(|remark| remark.to_string());
        Some(Rate { median, least, most, remark })
    };
    Some(Speed { prompt: rate(all(|turn| turn.prompt))?, generate: rate(all(|turn| turn.generate))? })
}

/// Runs a model once as its speed is measured, and gives the most memory that this process has held so far: all of it the model's
/// where the process does nothing else. `None` where the system does not tell.
///
/// # Errors
/// Those of opening and running the model.
pub fn peak(path: &Path, settings: &Settings, options: &ModelOptions) -> Result<Option<u64>> {
    let model = options.clone().open(path)?;
    let (prompt, all) = (settings.prompt, settings.prompt.saturating_add(settings.generate));
    let mut stepper = model.stepper(StepperOptions::default().context(all))?;
    let tokens: Vec<u32> = (0..all).map(|i| (i * 7919 % model.vocabulary().max(1)) as u32).collect();
    let (prompt, generated) = tokens.split_at(prompt);
    stepper.feed(prompt)?;
    generated.iter().try_for_each(|&token| stepper.feed(&[token]).map(|_| ()))?;
    Ok(memory::peak())
}

/// How far each matrix of `file` is from the one of that name in `reference`: the root mean square of the differences over
/// that of the reference's weights. Matrices that only one of the two has are left out.
pub fn tensors(
    file: &ModelFile,
    reference: &ModelFile,
    threads: &Threads,
    level: Level,
    tell: Tell<'_>,
) -> Result<Vec<TensorError>> {
    let total = file.tensor_count();
    let mut found = Vec::new();
    for (number, tensor) in file.tensors().enumerate() {
        tell(number, total)?;
        let Some(other) = reference.tensor(&tensor.info.name) else { continue };
        if tensor.info.rows() <= 1 || tensor.info.ne != other.info.ne {
            continue;
        }
        if !(tensor.info.ty.is_computable() && other.info.ty.is_computable()) {
            continue;
        }
        let (difference, weights) = threads.enter(|team| squares(team, level, tensor, other))?;
        let error = if weights > 0.0 { libm::sqrt(difference / weights) } else { 0.0 };
        let (layer, kind) = place(&tensor.info.name);
        found.push(TensorError { layer, kind, ty: tensor.info.ty.name().to_owned(), error });
    }
    Ok(found)
}

/// The layer, and what a tensor is in it.
fn place(name: &str) -> (Option<u32>, String) {
    let short = name.strip_suffix(".weight").unwrap_or(name);
    let layer = short.strip_prefix("blk.").and_then(|rest| {
        let (number, kind) = rest.split_once('.')?;
        Some((number.parse().ok()?, kind))
    });
    match layer {
        Some((layer, kind)) => (Some(layer), kind.to_owned()),
        None => (None, short.to_owned()),
    }
}

/// The sums of the squares of a tensor's differences from another, and of the other's weights: the same however many threads
/// there are.
fn squares(
    team: &Team<'_>,
    level: Level,
    tensor: TensorView<'_>,
    other: TensorView<'_>,
) -> Result<(f64, f64)> {
    /// Weights of a task: whole blocks of every type.
    const TASK: usize = 1 << 16;
    let weights = tensor.info.elements();
    let tasks = weights.div_ceil(TASK);
    let sums: Vec<Mutex<Option<(f64, f64)>>> = (0..tasks).map(|_| Mutex::new(None)).collect();
    team.run(tasks, &|task, _| {
        let len = TASK.min(weights - task * TASK);
        let read = |tensor: &TensorView<'_>| {
            let ty = tensor.info.ty;
            let bytes = |weights: usize| weights / ty.block_len() * ty.block_bytes();
            let mut out = vec![0.0; len];
            decode(level, ty, tensor.bytes.get(bytes(task * TASK)..)?.get(..bytes(len))?, &mut out).ok()?;
            Some(out)
        };
        let (Some(own), Some(theirs), Some(place)) = (read(&tensor), read(&other), sums.get(task)) else {
            return;
        };
        let square = |x: f32| f64::from(x) * f64::from(x);
        let difference = own.iter().zip(&theirs).map(|(a, b)| square(a - b)).sum();
        let sum = (difference, theirs.iter().map(|&x| square(x)).sum());
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(sum);
    });
    let mut total = (0.0, 0.0);
    for place in sums {
        let sum = place.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (difference, weights) =
            sum.ok_or_else(|| Error::TensorType { tensor: tensor.info.name.clone(), ty: tensor.info.ty })?;
        total = (total.0 + difference, total.1 + weights);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_summed_up_with_what_the_machine_did() {
        let turn = |reference, rate| Turn { reference, prompt: 10.0 * rate, generate: rate };
        assert_eq!(speed(&[]), None);
        let found = speed(&[turn(1.0, 5.0), turn(0.5, 3.0), turn(1.0, 4.0)]).unwrap();
        assert_eq!((found.prompt.median, found.generate.least, found.generate.most), (40.0, 3.0, 5.0));
        let remark = found.generate.remark.unwrap();
        assert!(remark.starts_with("unsteady") && remark.contains("machine is unsteady"), "{remark}");
    }

    #[test]
    fn tensors_have_a_layer_and_a_kind() {
        assert_eq!(place("blk.12.attn_q.weight"), (Some(12), "attn_q".to_owned()));
        assert_eq!(place("token_embd.weight"), (None, "token_embd".to_owned()));
        assert_eq!(place("blk.x.y"), (None, "blk.x.y".to_owned()));
    }
}
