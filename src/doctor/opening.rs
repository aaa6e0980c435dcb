//! Whether a file is whole, and whether an architecture can make a model of it.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::{Report, percent, size, some_of};
use crate::gguf::Gguf;
use crate::gguf::split::PartName;
use crate::model::Model;
use crate::model::file::ModelFile;
use crate::{Error, Result};

/// Tells what is known of a whole file.
pub(super) fn whole(file: &ModelFile, report: &mut Report) {
    let (bytes, parts) = (file.file_bytes(), file.parts().len());
    let gguf = file.header();
    if file.tensor_count() == 0 {
        report.warn(
            "file",
            format!("GGUF {} without a tensor: a vocabulary, not a model", gguf.version),
            "It serves to tokenize; to run a model, get a file that has its weights.",
        );
        return;
    }
    report.ok(
        "file",
        format!(
            "whole: GGUF {}, {parts} part(s), {} tensors, {}",
            gguf.version,
            file.tensor_count(),
            size(bytes)
        ),
    );
    if let Some(name) = file.path().and_then(PartName::parse)
        && usize::from(name.count) != parts
    {
        report.warn(
            "name",
            format!("the name says part {} of {}, but the file is whole", name.number + 1, name.count),
            "Rename it, so that nobody looks for the other parts.",
        );
    }
}

/// Tells why a file could not be opened, and gives its header where that can be read.
pub(super) fn broken(path: &Path, error: Error, report: &mut Report) -> Result<Option<Gguf>> {
    let (inner, text) = match &error {
        Error::InFile { source, .. } => (&**source, source.to_string()),
        error => (error, error.to_string()),
    };
    let advice = match inner {
        Error::GgufTruncated { .. } | Error::TensorOutside { .. } | Error::EmptyFile { .. } => {
            "Download it again, or let the download end."
        }
        Error::SplitMissing { .. } => "Put all parts into one folder.",
        Error::SplitName { .. } => "Give the parts the names that they had.",
        Error::NotGguf { .. } => "Give a .gguf file; other forms of models must be converted first.",
        _ => "Get the file anew from where it was made, or convert the model again.",
    };
    report.fault("file", text, advice);
    let (header, len) = header(path)?;
    if let Some(header) = &header {
        let end = header.tensors.iter().map(|tensor| tensor.range.end).max().unwrap_or(0);
        if end > len {
            let inside = header.tensors.iter().filter(|tensor| tensor.range.end <= len).count();
            report.fault(
                "file",
                format!(
                    "{} of {} are there ({:.1} %), {inside} of {} tensors wholly",
                    size(len),
                    size(end),
                    percent(len, end),
                    header.tensors.len(),
                ),
                "The weights were not examined: the rest of this report is from the header alone.",
            );
        }
    }
    Ok(header)
}

/// The header of a file that is not whole, and the file's length.
fn header(path: &Path) -> Result<(Option<Gguf>, u64)> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let len = fs::metadata(path).map_err(failed)?.len();
    let mut file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // Most headers end in the first megabytes, which hold the vocabulary.
    let mut wanted = 1_u64 << 22;
    loop {
        let more = wanted.saturating_sub(bytes.len() as u64);
        let read = file.by_ref().take(more).read_to_end(&mut bytes).map_err(failed)?;
        match Gguf::parse_header(&bytes) {
            Ok(header) => return Ok((Some(header), len)),
            Err(Error::GgufTruncated { at, needed, .. }) if read > 0 && at.saturating_add(needed) <= len => {
                wanted = wanted.saturating_mul(2).max(at.saturating_add(needed));
            }
            Err(_) => return Ok((None, len)),
        }
    }
}

/// Tells why no model can be made of a whole file.
pub(super) fn refused(file: &ModelFile, error: &Error, report: &mut Report) {
    if file.tensor_count() == 0 {
        return;
    }
    let advice = match error {
        Error::UnsupportedArchitecture { .. } | Error::UnsupportedFeature { .. } => {
            "This version cannot run it; a later one, or another program, may."
        }
        Error::TensorType { .. } => "Get the model in another type, or quantize it anew from F16.",
        _ => "The file is damaged or was converted wrongly: get another one.",
    };
    report.fault("architecture", format!("it does not run: {error}"), advice);
}

/// Tells which tensors a model leaves alone.
pub(super) fn unused(file: &ModelFile, model: &Model, report: &mut Report) {
    let architecture = model.architecture().name;
    let blocks = model.metadata().u64(&format!("{architecture}.block_count")).ok().flatten().unwrap_or(0);
    // A layer's bias or scale changes its results where it is meant to be there; whole projections are left out on purpose,
    // as where layers share their keys.
    let matters = |name: &str| {
        let number = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse::<u64>().ok());
        let small = [".bias", ".scale", ".input_scale"].iter().any(|end| name.ends_with(end));
        number.is_some_and(|number| number < blocks) && small && !name.contains(".nextn.")
    };
    let told = |names: &[&String]| {
        let bytes = names.iter().filter_map(|name| file.tensor(name)).map(|tensor| tensor.info.bytes()).sum();
        format!("{} tensors are not used ({}): {}", names.len(), size(bytes), some_of(names.iter()))
    };
    let (odd, others): (Vec<&String>, Vec<&String>) =
        model.unused_tensors().iter().partition(|name| matters(name));
    report.ok("architecture", format!("{architecture}: it runs"));
    if !odd.is_empty() {
        report.warn(
            "tensors",
            told(&odd),
            "The model may be another than the architecture computes: compare its answers with another program's.",
        );
    }
    if !others.is_empty() {
        report.note("tensors", told(&others), "They take room on the disk, not in memory.");
    }
    if model.unused_tensors().is_empty() {
        report.ok("tensors", "all are used");
    }
}
