//! Quantizing files: another type for each tensor, by the rules and with the bytes of llama-quantize.
//!
//! [`plan`] says what becomes of each tensor; [`quantize`] does it. Rows are read, converted on all threads and written some
//! megabytes at a time, so memory does not grow with the model. The new file gets its name when it is whole.
//!
//! ```
//! use std::ops::ControlFlow;
//! use gristmill::quantize::{Mix, Options, quantize};
//!
//! # let dir = std::env::temp_dir().join(format!("gristmill-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir).unwrap();
//! # let input = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/qwen3.f16.gguf");
//! # let output = dir.join("q8_0.gguf");
//! let options = Options::new(Mix::named("Q8_0")?);
//! let report = quantize(input, &output, &options, |_| ControlFlow::Continue(()))?;
//! assert!(report.bytes_after < report.bytes_before);
//! # std::fs::remove_dir_all(&dir).unwrap();
//! # Ok::<(), gristmill::Error>(())
//! ```
#![forbid(unsafe_code)]

mod imatrix;
mod mix;
mod prune;
mod rules;
mod stream;
mod write;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use gristmill_kernels::quant::GgmlType;
use gristmill_kernels::simd::Level;

use crate::gguf::split::{self, PartName};
use crate::gguf::{DEFAULT_ALIGNMENT, Metadata, TensorInfo, Value};
use crate::model::file::ModelFile;
use crate::{Error, Result};

pub use imatrix::{Imatrix, ImatrixSums, TensorSums};
pub use mix::Mix;
use prune::Kept;
use rules::Rules;

/// What to make of a file.
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    mix: Mix,
    pure: bool,
    leave_output: bool,
    tensor_types: Vec<(String, GgmlType)>,
    output_type: Option<GgmlType>,
    token_embedding_type: Option<GgmlType>,
    imatrix: Option<Imatrix>,
    pruned: BTreeSet<u32>,
    metadata: Vec<(String, Value)>,
    splitting: Splitting,
    threads: Option<usize>,
    level: Option<Level>,
}

/// Into how many files the result goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Splitting {
    /// One, however many the input has.
    #[default]
    One,
    /// As many as the input has, each with the same tensors.
    Keep,
    /// As many as are needed so that none has more than this many bytes of tensors, but for single ones that are larger.
    MaxBytes(u64),
}

impl Options {
    /// The mix by its own rules, without an importance matrix, in one file.
    pub fn new(mix: Mix) -> Self {
        Self {
            mix,
            pure: false,
            leave_output: false,
            tensor_types: Vec::new(),
            output_type: None,
            token_embedding_type: None,
            imatrix: None,
            pruned: BTreeSet::new(),
            metadata: Vec::new(),
            splitting: Splitting::One,
            threads: None,
            level: None,
        }
    }

    /// Gives all tensors the mix's default type, without its rules.
    pub fn pure(mut self, pure: bool) -> Self {
        self.pure = pure;
        self
    }

    /// Leaves the tensor `output.weight` as it is.
    pub fn leave_output(mut self, leave: bool) -> Self {
        self.leave_output = leave;
        self
    }

    /// Gives tensors whose names match the regular expression `pattern` this type. The first pattern that matches counts.
    pub fn tensor_type(mut self, pattern: impl Into<String>, ty: GgmlType) -> Self {
        self.tensor_types.push((pattern.into(), ty));
        self
    }

    /// Gives `output.weight` this type.
    pub fn output_type(mut self, ty: GgmlType) -> Self {
        self.output_type = Some(ty);
        self
    }

    /// Gives the token embeddings this type.
    pub fn token_embedding_type(mut self, ty: GgmlType) -> Self {
        self.token_embedding_type = Some(ty);
        self
    }

    /// Weighs errors by this importance matrix.
    pub fn imatrix(mut self, imatrix: Imatrix) -> Self {
        self.imatrix = Some(imatrix);
        self
    }

    /// Leaves these layers out, counted from 0. The others close up, and `block_count` tells how many are left.
    pub fn prune_layers(mut self, layers: impl IntoIterator<Item = u32>) -> Self {
        self.pruned.extend(layers);
        self
    }

    /// Gives the result this value under `key`, in place of the file's own. The rules see it too, where they ask for it.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Splits the result.
    pub fn splitting(mut self, splitting: Splitting) -> Self {
        self.splitting = splitting;
        self
    }

    /// Works with this many threads instead of one for each fast core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Works in this level's instructions; the result does not depend on it.
    pub fn level(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }
}

/// What becomes of one tensor.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The tensor as it is in the input.
    pub tensor: TensorInfo,
    /// The name that it will have: another where layers before it are left out.
    pub name: String,
    /// The type that it will have.
    pub ty: GgmlType,
    /// Bytes that it will have.
    pub bytes: u64,
    /// Which file it goes to, counted from 0.
    pub part: usize,
}

/// What becomes of a file.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All tensors, in the order in which they are written.
    pub tensors: Vec<Planned>,
    /// How many have a type with smaller blocks than was meant for them, since their rows are no whole number of blocks.
    pub fallbacks: usize,
    /// How many are quantized already and lose once more.
    pub requantized: usize,
    /// How many files there will be.
    pub parts: usize,
    /// The first tensor whose type would make garbage of it without the importance matrix that is not there.
    pub unweighed: Option<String>,
}

impl Plan {
    /// Bytes of all tensors now.
    pub fn bytes_before(&self) -> u64 {
        self.tensors.iter().map(|planned| planned.tensor.bytes()).sum()
    }

    /// Bytes of all tensors then.
    pub fn bytes_after(&self) -> u64 {
        self.tensors.iter().map(|planned| planned.bytes).sum()
    }
}

/// How far the work is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The tensor at hand.
    pub tensor: &'a str,
    /// Bytes of the input that are done.
    pub done: u64,
    /// Bytes of the input.
    pub total: u64,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Report {
    /// The files that were written.
    pub files: Vec<PathBuf>,
    /// Bytes of all tensors before.
    pub bytes_before: u64,
    /// Bytes of all tensors now.
    pub bytes_after: u64,
    /// See [`Plan::fallbacks`].
    pub fallbacks: usize,
    /// See [`Plan::requantized`].
    pub requantized: usize,
}

/// Says what would become of an open file.
///
/// # Errors
/// [`Error::TensorPattern`], [`Error::TensorLayer`], [`Error::TensorRow`], [`Error::TensorType`]; [`Error::InvalidOption`] where
/// layers that are not there are to be left out, or all; what is wrong with the metadata.
pub fn plan(file: &ModelFile, options: &Options) -> Result<Plan> {
    let mut tensors: Vec<(usize, &TensorInfo)> = (file.parts().enumerate())
        .flat_map(|(part, (_, gguf))| gguf.tensors.iter().map(move |tensor| (part, tensor)))
        .collect();
    match options.splitting {
        Splitting::Keep => tensors.sort_by_key(|(part, tensor)| (*part, tensor.range.start)),
        // As llama.cpp sorts them: by layer, those of none first, and by name.
        _ => tensors.sort_by(|(_, a), (_, b)| order(&a.name).cmp(&order(&b.name))),
    }
    let metadata = metadata(file, options);
    let kept = Kept::new(&options.pruned, &metadata)?;
    let named: Vec<(usize, &TensorInfo, TensorInfo)> = (tensors.into_iter())
        .filter_map(|(part, tensor)| {
            let name = kept.name(&tensor.name)?;
            Some((part, tensor, TensorInfo { name, ..tensor.clone() }))
        })
        .collect();
    let infos: Vec<&TensorInfo> = named.iter().map(|(_, _, named)| named).collect();
    let mut rules = Rules::new(options, &metadata, &infos)?;
    let mut plan = Plan { tensors: Vec::new(), fallbacks: 0, requantized: 0, parts: 1, unweighed: None };
    let mut filled = 0_u64;
    for &(part, tensor, ref named) in &named {
        let ty = rules.ty(named)?;
        let changes = ty != tensor.ty;
        if changes && rules::wants_importance(&tensor.name, ty, options.mix.0) && options.imatrix.is_none() {
            plan.unweighed.get_or_insert_with(|| tensor.name.clone());
        }
        if changes && !(tensor.ty.is_computable() && ty.is_encodable()) {
            let ty = if ty.is_encodable() { tensor.ty } else { ty };
            return Err(Error::TensorType { tensor: tensor.name.clone(), ty });
        }
        let row = || Error::TensorRow { tensor: tensor.name.clone(), ty, found: tensor.row_len() };
        let bytes = if changes {
            (ty.row_bytes(tensor.row_len()).ok_or_else(row)? as u64).saturating_mul(tensor.rows() as u64)
        } else {
            tensor.bytes()
        };
        let part = match options.splitting {
            Splitting::One => 0,
            Splitting::Keep => part,
            Splitting::MaxBytes(most) => {
                let padded = bytes.next_multiple_of(DEFAULT_ALIGNMENT);
                if filled > 0 && filled.saturating_add(padded) > most {
                    plan.parts += 1;
                    filled = 0;
                }
                filled = filled.saturating_add(padded);
                plan.parts - 1
            }
        };
        plan.parts = plan.parts.max(part + 1);
        plan.requantized += usize::from(changes && tensor.ty.block_len() > 1);
        plan.tensors.push(Planned { tensor: tensor.clone(), name: named.name.clone(), ty, bytes, part });
    }
    plan.fallbacks = rules.fallbacks;
    if plan.parts > usize::from(u16::MAX) {
        let expected = format!("large enough for at most {} files", u16::MAX);
        return Err(Error::InvalidOption { option: "splitting", expected, found: plan.parts.to_string() });
    }
    Ok(plan)
}

/// Where a tensor stands in the files that llama.cpp writes.
fn order(name: &str) -> (i64, &str) {
    (rules::layer(name).unwrap_or(-1), name)
}

/// The metadata of the file to be, with all layers.
fn metadata(file: &ModelFile, options: &Options) -> Metadata {
    let mut metadata = file.metadata().clone();
    let mut set_last = |key: &str, value: Value| {
        metadata.remove(key);
        metadata.set(key, value);
    };
    // ggml's `GGML_QNT_VERSION`.
    set_last("general.quantization_version", Value::U32(2));
    let own = file.metadata().u32("general.file_type").ok().flatten();
    if let Some(id) = options.mix.id().or(own) {
        set_last("general.file_type", Value::U32(id));
    }
    for (key, value) in &options.metadata {
        set_last(key, value.clone());
    }
    for (key, value) in options.imatrix.iter().flat_map(imatrix::provenance) {
        set_last(key, value);
    }
    for key in [split::NUMBER_KEY, split::COUNT_KEY, split::TENSORS_KEY] {
        metadata.remove(key);
    }
    metadata
}

/// The names of `parts` files.
fn names(output: &Path, parts: usize) -> Result<Vec<PathBuf>> {
    if parts == 1 {
        return Ok(vec![output.to_owned()]);
    }
    let mut first = output.with_extension("").into_os_string();
    if output.extension().is_none_or(|extension| extension != "gguf") {
        first = output.as_os_str().to_owned();
    }
    first.push(format!("-00001-of-{parts:05}.gguf"));
    let path = PathBuf::from(first);
    match PartName::parse(&path) {
        Some(name) => Ok(name.paths().collect()),
        None => Err(Error::SplitName { path, count: parts as u16 }),
    }
}

/// Makes the file `output` out of the file `input` (and the other parts, where it is one of several).
///
/// `progress` is told how far the work is, some times a second, and may end it.
///
/// Where there are to be several files, `output` without its `.gguf` begins their names.
///
/// # Errors
/// Those of [`plan`]; [`Error::QuantizeOntoInput`] where `output` is one of the input's files; [`Error::Encode`] where weights
/// do not fit the type; [`Error::TensorDamaged`] where a tensor holds infinities or NaN; [`Error::ImportanceShape`],
/// [`Error::ImportanceMissing`] where the importance matrix does not fit; [`Error::Cancelled`] where `progress` ended the work;
/// [`Error::Io`]. No file stays behind then.
pub fn quantize(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    options: &Options,
    progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Report> {
    let (input, output) = (input.as_ref(), output.as_ref());
    let file = ModelFile::open(input)?;
    let plan = plan(&file, options)?;
    if let Some(tensor) = &plan.unweighed {
        let ty = plan.tensors.iter().find(|planned| planned.tensor.name == *tensor).map(|planned| planned.ty);
        return Err(Error::ImportanceMissing { tensor: tensor.clone(), ty: ty.unwrap_or(GgmlType::F32) });
    }
    let names = names(output, plan.parts)?;
    for (path, _) in file.parts() {
        if let Some(name) = names.iter().find(|name| path.is_some_and(|path| write::same_file(path, name))) {
            return Err(Error::QuantizeOntoInput { path: name.clone() });
        }
    }
    let mut metadata = metadata(&file, options);
    Kept::new(&options.pruned, &metadata)?.tell(&mut metadata)?;
    stream::run(&file, options, &plan, &names, metadata, progress)?;
    Ok(Report {
        files: names,
        bytes_before: plan.bytes_before(),
        bytes_after: plan.bytes_after(),
        fallbacks: plan.fallbacks,
        requantized: plan.requantized,
    })
}
