//! Reads every tensor once: numbers that are none, zeros where there should be weights, rows that say nothing.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use gristmill_kernels::encode::decode;
use gristmill_kernels::simd::Level;

use super::{Options, Progress, Report, percent, size, some_of};
use crate::backend::cpu::cores;
use crate::backend::cpu::threads::{Team, Threads};
use crate::generate::StepperOptions;
use crate::gguf::TensorInfo;
use crate::model::Model;
use crate::model::file::{ModelFile, TensorView};
use crate::text::{EncodeOptions, Tokenizer};
use crate::{Error, Result};

/// Weights that a thread looks at at a time: few enough for its caches.
const TASK: usize = 1 << 16;
/// Tasks of each thread between two words of progress.
const TASKS: usize = 16;

/// What was counted in a tensor, or a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Weights that are infinite or no number.
    not_finite: u64,
    /// Groups of at least 32 weights, and how many of them are all zero.
    groups: u64,
    zero_groups: u64,
    /// Rows whose weights are all the same number but zero.
    constant_rows: u64,
    /// Rows of zeros.
    zero_rows: u64,
    /// Parts of [`TASK`] weights that are all zero.
    zero_parts: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.not_finite += other.not_finite;
        self.groups += other.groups;
        self.zero_groups += other.zero_groups;
        self.constant_rows += other.constant_rows;
        self.zero_rows += other.zero_rows;
        self.zero_parts += other.zero_parts;
    }

    /// Counts in whole rows of `row_len` weights, or in a part of one row where that is 0.
    fn of(weights: &[f32], group: usize, row_len: usize) -> Tally {
        let mut tally = Tally::default();
        let zero = |weights: &[f32]| weights.iter().all(|&weight| weight == 0.0);
        tally.not_finite = weights.iter().filter(|weight| !weight.is_finite()).count() as u64;
        for group in weights.chunks(group.max(1)) {
            tally.groups += 1;
            tally.zero_groups += u64::from(zero(group));
        }
        if row_len > 1 {
            for row in weights.chunks_exact(row_len) {
                let Some(&first) = row.first() else { continue };
                let constant = row.iter().all(|&weight| weight == first);
                tally.zero_rows += u64::from(constant && first == 0.0);
                tally.constant_rows += u64::from(constant && first != 0.0);
            }
        }
        tally.zero_parts = u64::from(weights.len() >= TASK && tally.zero_groups == tally.groups);
        tally
    }
}

/// How a tensor is cut into tasks.
struct Cut {
    /// Weights of a task; whole blocks, and whole rows where [`Cut::row_len`] is not 0.
    task: usize,
    row_len: usize,
}

impl Cut {
    fn new(info: &TensorInfo) -> Cut {
        let (row_len, block) = (info.row_len(), info.ty.block_len());
        if row_len <= TASK {
            // At least `TASK`, so that a part of zeros is one.
            Cut { task: TASK.div_ceil(row_len.max(1)) * row_len, row_len }
        } else {
            Cut { task: TASK.next_multiple_of(block), row_len: 0 }
        }
    }
}

/// Tells what [`Tally`]s say of all tensors.
#[derive(Default)]
struct Findings {
    damaged: Vec<String>,
    holes: Vec<String>,
    zero_rows: Vec<String>,
    constant_rows: Vec<String>,
    groups: u64,
    zero_groups: u64,
    unread: Vec<String>,
}

impl Findings {
    fn add(&mut self, info: &TensorInfo, tally: &Tally) {
        let name = &info.name;
        self.groups += tally.groups;
        self.zero_groups += tally.zero_groups;
        if tally.not_finite > 0 {
            self.damaged.push(format!("{name} ({} of {})", tally.not_finite, info.elements()));
        }
        // Vectors may be of one number, and rows of tokens that never came may be of zeros.
        let vocabulary =
            matches!(name.as_str(), "token_embd.weight" | "output.weight" | "per_layer_token_embd.weight");
        if info.rows() <= 1 || vocabulary || info.name.ends_with(".bias") {
            return;
        }
        let all_zero = tally.zero_groups == tally.groups;
        if tally.zero_parts > 0 || all_zero {
            self.holes.push(format!("{name} ({:.1} % zeros)", percent(tally.zero_groups, tally.groups)));
        } else if tally.zero_rows > 0 {
            self.zero_rows.push(format!("{name} ({} of {})", tally.zero_rows, info.rows()));
        }
        if tally.constant_rows > 0 {
            self.constant_rows.push(format!("{name} ({} of {})", tally.constant_rows, info.rows()));
        }
    }

    fn tell(&self, bytes: u64, report: &mut Report) {
        let some = |names: &[String]| some_of(names.iter());
        if !self.unread.is_empty() {
            report.warn(
                "weights",
                format!(
                    "{} tensors have a type that cannot be read: {}",
                    self.unread.len(),
                    some(&self.unread)
                ),
                "Get the model in another type.",
            );
        }
        if !self.damaged.is_empty() {
            report.fault(
                "weights",
                format!("{} tensors hold infinities or NaN: {}", self.damaged.len(), some(&self.damaged)),
                "Every answer comes out as nonsense: download the file again, or quantize it again from whole weights.",
            );
        }
        if !self.holes.is_empty() {
            report.warn(
                "weights",
                format!("{} matrices have long stretches of zeros: {}", self.holes.len(), some(&self.holes)),
                "So it looks where parts of a file were never downloaded: compare its hash with the source's.",
            );
        }
        if !self.zero_rows.is_empty() {
            report.note(
                "weights",
                format!("rows of zeros in {}", some(&self.zero_rows)),
                "As pruning leaves them.",
            );
        }
        if !self.constant_rows.is_empty() {
            report.warn(
                "weights",
                format!("rows of one and the same number in {}", some(&self.constant_rows)),
                "No training makes such rows: compare the file's hash with the source's.",
            );
        }
        if self.damaged.is_empty() && self.holes.is_empty() && self.constant_rows.is_empty() {
            let zeros = percent(self.zero_groups, self.groups);
            report.ok(
                "weights",
                format!("{} read, all numbers are finite; {zeros:.2} % of the blocks are zeros", size(bytes)),
            );
        }
    }
}

/// Reads all tensors.
pub(super) fn check(
    file: &ModelFile,
    options: &Options,
    report: &mut Report,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<()> {
    let total = file.tensors().fold(0, |sum: u64, tensor| sum.saturating_add(tensor.info.bytes()));
    if total == 0 {
        return Ok(());
    }
    let threads = Threads::new(options.threads.unwrap_or_else(cores::default_count))?;
    let level = options.level.unwrap_or_else(Level::detect);
    let mut findings = Findings::default();
    let mut done = 0;
    let mut tell = |bytes: u64| {
        done += bytes;
        if progress(Progress { done, total }).is_break() { Err(Error::Cancelled) } else { Ok(()) }
    };
    threads.enter(|team| {
        for tensor in file.tensors() {
            if tensor.info.ty.is_computable() {
                let tally = read(team, level, tensor, &mut tell)?;
                findings.add(tensor.info, &tally);
            } else {
                findings.unread.push(format!("{} ({})", tensor.info.name, tensor.info.ty));
                tell(tensor.info.bytes())?;
            }
        }
        Ok::<_, Error>(())
    })?;
    findings.tell(total, report);
    twice(file, report);
    Ok(())
}

/// Reads one tensor, some megabytes at a time.
fn read(
    team: &Team<'_>,
    level: Level,
    tensor: TensorView<'_>,
    tell: &mut impl FnMut(u64) -> Result<()>,
) -> Result<Tally> {
    let info = tensor.info;
    let cut = Cut::new(info);
    let bytes_of = |weights: usize| weights / info.ty.block_len() * info.ty.block_bytes();
    let group = info.ty.block_len().max(32);
    let all = Mutex::new(Tally::default());
    let slab = bytes_of(cut.task).max(1).saturating_mul(TASKS * team.count());
    for bytes in tensor.bytes.chunks(slab) {
        let parts: Vec<&[u8]> = bytes.chunks(bytes_of(cut.task).max(1)).collect();
        let failed = Mutex::new(Ok(()));
        team.run(parts.len(), &|task, _| {
            let Some(part) = parts.get(task) else { return };
            let mut weights = vec![0.0; part.len() / info.ty.block_bytes() * info.ty.block_len()];
            match decode(level, info.ty, part, &mut weights) {
                Ok(()) => {
                    let tally = Tally::of(&weights, group, cut.row_len);
                    all.lock().unwrap_or_else(PoisonError::into_inner).add(&tally);
                }
                Err(_) => {
                    let error = Error::TensorType { tensor: info.name.clone(), ty: info.ty };
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
                }
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        tell(bytes.len() as u64)?;
    }
    Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Whether the output repeats the embedding, which would do for both.
fn twice(file: &ModelFile, report: &mut Report) {
    let (Some(embedding), Some(output)) = (file.tensor("token_embd.weight"), file.tensor("output.weight"))
    else {
        return;
    };
    if embedding.info.ty == output.info.ty && embedding.bytes == output.bytes {
        report.note(
            "tensors",
            format!("output.weight repeats token_embd.weight, {}", size(output.info.bytes())),
            "Without it the file is that much smaller: a model without an output uses the embedding.",
        );
    }
}

/// Feeds a short text: whether the logits behind it are numbers.
pub(super) fn feed(model: &Model, tokenizer: Option<&Tokenizer>, report: &mut Report) -> Result<()> {
    if model.is_encoder() {
        return Ok(());
    }
    let text =
        tokenizer.and_then(|tokenizer| tokenizer.encode("The quick brown fox", EncodeOptions::PROMPT).ok());
    let tokens = text.filter(|tokens| !tokens.is_empty()).unwrap_or_else(|| vec![0]);
    let fed = model.stepper(StepperOptions::default().context(tokens.len())).and_then(|mut stepper| {
        stepper.feed(&tokens)?;
        Ok(stepper.try_logits()?.iter().all(|logit| logit.is_finite()))
    });
    match fed {
        Ok(true) => report.ok("architecture", "a short text gives finite logits"),
        Ok(false) => report.fault(
            "architecture",
            "a short text gives logits that are infinite or no numbers",
            "Nothing can be generated: the weights are damaged, or the parameters are another model's.",
        ),
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Err(error) => {
            report.fault("architecture", format!("a short text cannot be fed: {error}"), "Get the file anew.")
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_kernels::quant::GgmlType;

    #[test]
    fn zeros_constants_and_what_is_no_number_are_counted() {
        let mut weights = vec![0.5; 64];
        weights.extend([0.0; 64]);
        weights.extend((0..64).map(|i| i as f32 + 1.0));
        weights[130] = f32::NAN;
        weights[140] = f32::INFINITY;
        let tally = Tally::of(&weights, 32, 64);
        let expected =
            Tally { not_finite: 2, groups: 6, zero_groups: 2, constant_rows: 1, zero_rows: 1, zero_parts: 0 };
        assert_eq!(tally, expected);
        let zeros = Tally::of(&vec![0.0; TASK], 256, 0);
        assert_eq!((zeros.zero_parts, zeros.zero_rows), (1, 0));
    }

    #[test]
    fn tasks_are_whole_rows_or_whole_blocks() {
        let info =
            |row_len, ty| TensorInfo { name: "w".into(), ne: [row_len, 7, 1, 1], dims: 2, ty, range: 0..0 };
        for (row_len, ty) in [(1, GgmlType::F32), (768, GgmlType::Q4_K), (TASK, GgmlType::Q8_0)] {
            let cut = Cut::new(&info(row_len, ty));
            assert!(cut.task >= TASK && cut.task.is_multiple_of(row_len) && cut.row_len == row_len);
        }
        let cut = Cut::new(&info(TASK + 256, GgmlType::Q6_K));
        assert_eq!((cut.task, cut.row_len), (TASK, 0));
    }
}
