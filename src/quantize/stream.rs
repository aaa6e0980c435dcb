//! Reads, converts and writes rows, some megabytes at a time.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use gristmill_kernels::encode::{Encoder, decode, first_damaged_block};
use gristmill_kernels::quant::GgmlType;
use gristmill_kernels::simd::Level;

use super::rules;
use super::write::Unfinished;
use super::{Options, Plan, Planned, Progress};
use crate::backend::cpu::cores;
use crate::backend::cpu::threads::{Team, Threads};
use crate::gguf::{ByteOrder, DataWriter, Metadata, Writer, split};
use crate::model::file::ModelFile;
use crate::{Error, Result};

/// Weights that a thread converts at a time: few enough for its caches, enough to pay for handing them out.
const TASK: usize = 1 << 16;
/// Tasks of each thread between two writes.
const TASKS: usize = 8;

/// Bytes of tensors from files, without mapping more than their headers: what is mapped counts as memory once it was read.
struct Source<'a> {
    file: &'a ModelFile,
    /// By the tensor's part; none where the bytes in memory are others than in the file, or there is no file.
    files: Vec<Option<(PathBuf, File)>>,
    /// The part that holds a tensor.
    parts: HashMap<&'a str, usize>,
    buffer: Vec<u8>,
}

impl<'a> Source<'a> {
    fn open(file: &'a ModelFile) -> Result<Self> {
        let (mut files, mut parts) = (Vec::new(), HashMap::new());
        for (number, (path, gguf)) in file.parts().enumerate() {
            let path = path.filter(|_| gguf.byte_order == ByteOrder::Little);
            let open = |path: &std::path::Path| match File::open(path) {
                Ok(file) => Ok((path.to_owned(), file)),
                Err(source) => Err(Error::Io { path: path.to_owned(), source }),
            };
            files.push(path.map(open).transpose()?);
            parts.extend(gguf.tensors.iter().map(|tensor| (tensor.name.as_str(), number)));
        }
        Ok(Self { file, files, parts, buffer: Vec::new() })
    }

    /// `len` bytes of a tensor, from its byte `at` on.
    fn read(&mut self, planned: &Planned, at: u64, len: usize) -> Result<&[u8]> {
        let tensor = &planned.tensor;
        let missing = || Error::Internal { what: "a tensor's bytes are not where they were" };
        let part = self.parts.get(tensor.name.as_str()).and_then(|&part| self.files.get_mut(part));
        if let Some(Some((path, file))) = part {
            self.buffer.resize(len, 0);
            file.seek(SeekFrom::Start(tensor.range.start.saturating_add(at)))
                .and_then(|_| file.read_exact(&mut self.buffer))
                .map_err(|source| Error::Io { path: path.clone(), source })?;
            return Ok(&self.buffer);
        }
        let view = self.file.tensor(&tensor.name).ok_or_else(missing)?;
        let at = usize::try_from(at).map_err(|_| missing())?;
        view.bytes.get(at..).and_then(|bytes| bytes.get(..len)).ok_or_else(missing)
    }
}

/// Writes all files of a plan.
pub(super) fn run(
    file: &ModelFile,
    options: &Options,
    plan: &Plan,
    names: &[PathBuf],
    mut metadata: Metadata,
    mut progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let threads = Threads::new(options.threads.unwrap_or_else(cores::default_count))?;
    let level = options.level.unwrap_or_else(Level::detect);
    let mut source = Source::open(file)?;
    let mut unfinished = Unfinished::default();
    let mut encoders = HashMap::new();
    let (mut done, total) = (0, plan.bytes_before());
    for (number, name) in names.iter().enumerate() {
        if names.len() > 1 {
            metadata.set(split::NUMBER_KEY, number as u16);
            metadata.set(split::COUNT_KEY, names.len() as u16);
            metadata.set(split::TENSORS_KEY, plan.tensors.len() as i32);
        }
        let mut writer = Writer::new(std::mem::take(&mut metadata))?;
        let tensors = || plan.tensors.iter().filter(|planned| planned.part == number);
        for planned in tensors() {
            let tensor = &planned.tensor;
            let shape = tensor.shape().get(..rules::dims(tensor)).unwrap_or_else(|| tensor.shape());
            writer.tensor(&planned.name, shape, planned.ty)?;
        }
        let in_file = |error: Error| error.in_file(name);
        let mut out = writer.start(unfinished.begin(name)?).map_err(in_file)?;
        for planned in tensors() {
            let mut tell = |bytes: u64| {
                done += bytes;
                progress(Progress { tensor: &planned.tensor.name, done, total })
            };
            tell_flow(tell(0))?;
            if planned.ty == planned.tensor.ty {
                copy(&mut source, planned, &mut out, &mut tell)?;
            } else {
                let encoder = match encoders.entry(planned.ty) {
                    std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::hash_map::Entry::Vacant(entry) => entry
                        .insert(Encoder::new(planned.ty).map_err(|source| encode_error(planned, source))?),
                };
                let importance = importance(options, planned)?;
                let convert = Convert { planned, encoder, importance, level };
                threads.enter(|team| convert.run(team, &mut source, &mut out, &mut tell))?;
            }
        }
        out.finish().map_err(in_file)?;
    }
    unfinished.finish()
}

fn tell_flow(flow: ControlFlow<()>) -> Result<()> {
    if flow.is_break() { Err(Error::Cancelled) } else { Ok(()) }
}

fn encode_error(planned: &Planned, source: gristmill_kernels::encode::EncodeError) -> Error {
    Error::Encode { tensor: planned.tensor.name.clone(), source }
}

/// Writes a tensor as it is.
fn copy(
    source: &mut Source<'_>,
    planned: &Planned,
    out: &mut DataWriter<BufWriter<File>>,
    tell: &mut impl FnMut(u64) -> ControlFlow<()>,
) -> Result<()> {
    let tensor = &planned.tensor;
    let block = tensor.ty.block_bytes();
    let slab = (1 << 22) / block * block;
    let (mut at, end) = (0, tensor.bytes());
    while at < end {
        let len = (end - at).min(slab as u64) as usize;
        let bytes = source.read(planned, at, len)?;
        if let Some(found) = first_damaged_block(tensor.ty, bytes) {
            return Err(damaged(planned, tensor.ty, at / block as u64 + found as u64));
        }
        out.write(&planned.name, bytes)?;
        at += len as u64;
        tell_flow(tell(len as u64))?;
    }
    Ok(())
}

fn damaged(planned: &Planned, ty: GgmlType, block: u64) -> Error {
    Error::TensorDamaged { tensor: planned.tensor.name.clone(), ty, block }
}

/// The importance of a tensor's columns: for tensors of experts, those of one expert after those of the other.
fn importance<'a>(options: &'a Options, planned: &Planned) -> Result<Option<&'a [f32]>> {
    let tensor = &planned.tensor;
    let Some(imatrix) = &options.imatrix else { return Ok(None) };
    let expected = tensor.row_len() * tensor.shape().get(2).copied().unwrap_or(1);
    let found = match imatrix.entries.get(&tensor.name) {
        Some(found) if found.len() == expected => return Ok(Some(found)),
        found => found.map(Vec::len),
    };
    let embedding = matches!(tensor.name.as_str(), "token_embd.weight" | "per_layer_token_embd.weight");
    match found {
        Some(found) if !embedding => {
            Err(Error::ImportanceShape { tensor: tensor.name.clone(), expected, found })
        }
        _ if rules::wants_importance(&tensor.name, planned.ty, options.mix.0) => {
            Err(Error::ImportanceMissing { tensor: tensor.name.clone(), ty: planned.ty })
        }
        _ => {
            tracing::debug!(tensor = tensor.name, "the importance matrix has nothing for this tensor");
            Ok(None)
        }
    }
}

/// One tensor's conversion.
struct Convert<'a> {
    planned: &'a Planned,
    encoder: &'a Encoder,
    importance: Option<&'a [f32]>,
    level: Level,
}

impl Convert<'_> {
    fn run(
        &self,
        team: &Team<'_>,
        source: &mut Source<'_>,
        out: &mut DataWriter<BufWriter<File>>,
        tell: &mut impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let tensor = &self.planned.tensor;
        let (row_len, rows) = (tensor.row_len(), tensor.rows());
        let row = |ty: GgmlType| {
            let found = row_len;
            ty.row_bytes(row_len).ok_or_else(|| Error::TensorRow { tensor: tensor.name.clone(), ty, found })
        };
        let (from_bytes, to_bytes) = (row(tensor.ty)?, row(self.planned.ty)?);
        // No task spans two experts, for each has an importance of its own.
        let per_expert = tensor.shape().get(1).copied().unwrap_or(1).max(1);
        let per_task = (TASK / row_len.max(1)).clamp(1, per_expert);
        let mut written = Vec::new();
        let mut begin = 0;
        while begin < rows {
            let mut tasks = Vec::new();
            let mut end = begin;
            while end < rows && tasks.len() < TASKS * team.count() {
                let count = per_task.min(per_expert - end % per_expert).min(rows - end);
                tasks.push((end, count));
                end += count;
            }
            let bytes = source.read(self.planned, (begin * from_bytes) as u64, (end - begin) * from_bytes)?;
            written.resize((end - begin) * to_bytes, 0);
            let mut rest = written.as_mut_slice();
            let mut places = Vec::with_capacity(tasks.len());
            for &(_, count) in &tasks {
                let (place, after) = rest.split_at_mut((count * to_bytes).min(rest.len()));
                places.push(Mutex::new((place, Ok(()))));
                rest = after;
            }
            team.run(tasks.len(), &|task, _| {
                let (Some(&(first, count)), Some(place)) = (tasks.get(task), places.get(task)) else {
                    return;
                };
                let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
                let at = (first - begin) * from_bytes;
                let bytes = bytes.get(at..at + count * from_bytes).unwrap_or_default();
                place.1 = self.rows(first, row_len, per_expert, bytes, place.0);
            });
            for place in places {
                place.into_inner().unwrap_or_else(PoisonError::into_inner).1?;
            }
            out.write(&self.planned.name, &written)?;
            tell_flow(tell(((end - begin) * from_bytes) as u64))?;
            begin = end;
        }
        Ok(())
    }

    /// Converts some rows of one expert.
    fn rows(
        &self,
        first: usize,
        row_len: usize,
        per_expert: usize,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        let tensor = &self.planned.tensor;
        let blocks = bytes.len() / tensor.ty.block_bytes();
        let mut weights = vec![0.0; blocks * tensor.ty.block_len()];
        decode(self.level, tensor.ty, bytes, &mut weights)
            .map_err(|_| Error::TensorType { tensor: tensor.name.clone(), ty: tensor.ty })?;
        let of_expert = |all: &'_ [f32]| -> Option<std::ops::Range<usize>> {
            let begin = (first / per_expert).checked_mul(row_len)?;
            (begin + row_len <= all.len()).then_some(begin..begin + row_len)
        };
        let importance = match self.importance {
            Some(all) => Some(
                of_expert(all)
                    .and_then(|range| all.get(range))
                    .ok_or(Error::Internal { what: "the importance of an expert is missing" })?,
            ),
            None => None,
        };
        self.encoder
            .encode(self.level, &weights, row_len, importance, out)
            .map_err(|source| encode_error(self.planned, source))?;
        let row_blocks = row_len / self.planned.ty.block_len().max(1);
        match first_damaged_block(self.planned.ty, out) {
            Some(found) => Err(damaged(self.planned, self.planned.ty, (first * row_blocks + found) as u64)),
            None => Ok(()),
        }
    }
}
