//! Examining a model's file: what is wrong with it, what is odd, and what would make it faster or smaller here.
//!
//! The checks look at what a file says of itself (name, metadata, tensor table), at how its parts fit together (template,
//! special tokens, vocabulary, architecture), and at every weight. A file that cannot be opened as a model is examined as
//! far as it goes: what stands in the way is a [`Finding`], not an error.
//!
//! ```
//! use std::ops::ControlFlow;
//! use gristmill::doctor::{Options, Severity, examine};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vendor/models/tiny-instruct-q8_0.gguf");
//! let report = examine(path, &Options::default(), |_| ControlFlow::Continue(()))?;
//! assert_eq!(report.count(Severity::Fault), 0);
//! # Ok::<(), gristmill::Error>(())
//! ```
#![forbid(unsafe_code)]

mod advice;
mod name;
mod opening;
mod template;
mod tokens;
mod weights;

use std::ops::ControlFlow;
use std::path::Path;

use gristmill_kernels::simd::Level;
use serde::Serialize;

pub(crate) use name::quantization;

use crate::gguf::{Gguf, Metadata, TensorInfo};
use crate::model::file::ModelFile;
use crate::model::{Model, ModelOptions};
use crate::text::Tokenizer;
use crate::{Error, Result};

/// How much a finding matters, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is as it should be.
    Ok,
    /// Worth knowing, and nothing wrong.
    Note,
    /// The model runs, but something about it is likely not what its maker meant.
    Warning,
    /// The model cannot be used as it is, or gives wrong results.
    Fault,
}

impl Severity {
    /// Its name: `ok`, `note`, `warning`, `fault`.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Fault => "fault",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Severity,
    /// What was looked at: `file`, `name`, `architecture`, `tokenizer`, `special tokens`, `vocabulary`, `template`, `kind`,
    /// `tensors`, `weights`, `importance`, `memory`, `speed`.
    pub check: &'static str,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// All that was found in a file, in the order of the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many findings have this level.
    pub fn count(&self, level: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// The highest level of all.
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Severity::Ok)
    }

    fn worst_of(&self, check: &str) -> Severity {
        let of_check = self.findings.iter().filter(|finding| finding.check == check);
        of_check.map(|finding| finding.level).max().unwrap_or(Severity::Ok)
    }

    fn add(&mut self, level: Severity, check: &'static str, text: String, advice: Option<String>) {
        self.findings.push(Finding { level, check, text, advice });
    }

    fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(Severity::Ok, check, text.into(), None);
    }

    fn note(&mut self, check: &'static str, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Severity::Note, check, text.into(), Some(advice.into()).filter(|advice| !advice.is_empty()));
    }

    fn warn(&mut self, check: &'static str, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Severity::Warning, check, text.into(), Some(advice.into()));
    }

    fn fault(&mut self, check: &'static str, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Severity::Fault, check, text.into(), Some(advice.into()));
    }
}

/// How a file is examined.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether every tensor is read, and a text fed; by default both.
    pub weights: bool,
    /// Threads to work with instead of one for each fast core.
    pub threads: Option<usize>,
    /// The instruction set instead of the fastest; what is found does not depend on it.
    pub level: Option<Level>,
    /// The context that memory is reckoned for, in tokens; by default what the model was trained for, 4,096 at most.
    pub context: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self { weights: true, threads: None, level: None, context: None }
    }
}

/// How far the reading of weights is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes that were read.
    pub done: u64,
    /// Bytes of all tensors.
    pub total: u64,
}

/// What the checks look at: a whole file, or no more than its header.
struct Subject<'a> {
    path: Option<&'a Path>,
    metadata: &'a Metadata,
    tensors: Vec<&'a TensorInfo>,
    /// The whole file, where it is whole.
    file: Option<&'a ModelFile>,
    tokenizer: Option<&'a Tokenizer>,
    model: Option<&'a Model>,
}

impl<'a> Subject<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.metadata.str(key).ok().flatten()
    }

    /// Weights of all tensors.
    fn weights(&self) -> u64 {
        self.tensors.iter().fold(0, |sum: u64, tensor| sum.saturating_add(tensor.elements() as u64))
    }

    /// The matrices: what is quantized, where anything is.
    fn matrices(&self) -> impl Iterator<Item = &'a TensorInfo> {
        self.tensors.iter().copied().filter(|tensor| tensor.rows() > 1)
    }

    /// Whether tokens see those behind them, so that there is neither a next token nor a turn.
    fn is_encoder(&self) -> bool {
        self.model.is_some_and(Model::is_encoder)
    }
}

/// Examines the file at `path`, and all parts where it is one of several.
///
/// `progress` is told how far the reading of weights is, some times a second, and may end it.
///
/// # Errors
/// [`Error::Io`] where the file is not there or cannot be read, [`Error::NotAFile`]; [`Error::Threads`];
/// [`Error::Cancelled`] where `progress` ended the work. Whatever else is wrong is a finding.
pub fn examine(
    path: impl AsRef<Path>,
    options: &Options,
    progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let path = path.as_ref();
    match ModelFile::open(path) {
        Ok(file) => examine_file(&file, options, progress),
        Err(error @ (Error::Io { .. } | Error::NotAFile { .. })) => Err(error),
        Err(error) => {
            let mut report = Report::default();
            let header = opening::broken(path, error, &mut report)?;
            if let Some(Gguf { metadata, tensors, .. }) = &header {
                let tensors = tensors.iter().collect();
                examine_header(Some(path), metadata, tensors, options, &mut report);
            }
            Ok(report)
        }
    }
}

/// Examines a file that is open.
///
/// # Errors
/// [`Error::Threads`]; [`Error::Cancelled`] where `progress` ended the work.
pub fn examine_file(
    file: &ModelFile,
    options: &Options,
    progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let mut report = Report::default();
    opening::whole(file, &mut report);
    let mut model = ModelOptions::default();
    if let Some(threads) = options.threads {
        model = model.threads(threads);
    }
    if let Some(level) = options.level {
        model = model.level(level.name());
    }
    let model = match model.build(file.clone()) {
        Ok(model) => Some(model),
        Err(error @ Error::Threads { .. }) => return Err(error),
        Err(error) => {
            opening::refused(file, &error, &mut report);
            None
        }
    };
    let tokenizer = tokens::tokenizer(file.metadata(), &mut report);
    let subject = Subject {
        path: file.path(),
        metadata: file.metadata(),
        tensors: file.tensors().map(|tensor| tensor.info).collect(),
        file: Some(file),
        tokenizer: tokenizer.as_ref(),
        model: model.as_ref(),
    };
    header_checks(&subject, &mut report);
    if let Some(model) = &model {
        opening::unused(file, model, &mut report);
    }
    if options.weights {
        weights::check(file, options, &mut report, progress)?;
        if let Some(model) = &model {
            weights::feed(model, tokenizer.as_ref(), &mut report)?;
        }
    }
    advice::speed(&subject, options, &mut report);
    advice::memory(&subject, options, &mut report);
    Ok(report)
}

/// The checks for which a file need not be whole.
fn examine_header(
    path: Option<&Path>,
    metadata: &Metadata,
    tensors: Vec<&TensorInfo>,
    options: &Options,
    report: &mut Report,
) {
    let tokenizer = tokens::tokenizer(metadata, report);
    let subject = Subject { path, metadata, tensors, file: None, tokenizer: tokenizer.as_ref(), model: None };
    header_checks(&subject, report);
    advice::speed(&subject, options, report);
}

fn header_checks(subject: &Subject<'_>, report: &mut Report) {
    name::check(subject, report);
    tokens::check(subject, report);
    template::check(subject, report);
    advice::importance(subject, report);
}

/// Some of many names: the first few, and how many more there are.
fn some_of<T: std::fmt::Display>(names: impl ExactSizeIterator<Item = T>) -> String {
    const SHOWN: usize = 4;
    let more = names.len().saturating_sub(SHOWN);
    let mut text = names.take(SHOWN).map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 => format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30)),
        bytes => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

/// A share in percent.
fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
