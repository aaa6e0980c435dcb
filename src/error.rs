//! The one error type of the public API.

use std::path::PathBuf;

use gristmill_kernels::quant::GgmlType;

/// A shorthand for results with [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, one variant for each thing that a caller can act on.
///
/// Each message says what was expected, what was found and, where that helps, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, mapped, read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    // ---- gguf
    /// The bytes do not begin as a GGUF file does.
    #[error(
        "not a GGUF file: expected it to begin with \"GGUF\", found \"{}\"{hint}",
        found.escape_ascii()
    )]
    NotGguf {
        /// The first bytes, at most four.
        found: Vec<u8>,
        /// What the file may be, beginning with a semicolon; empty where there is no guess.
        hint: &'static str,
    },
    /// A version of GGUF that cannot be read.
    #[error(
        "GGUF version {found} cannot be read, only 2 and 3 can: convert the model again with newer tools"
    )]
    GgufVersion {
        /// The version that the file gives.
        found: u32,
    },
    /// The file ends where more is announced: it is cut short, or its lengths are wrong.
    #[error(
        "{place} needs {needed} bytes from byte {at} on, but only {left} are left: \
         the file is cut short (download it again) or damaged"
    )]
    GgufTruncated {
        /// What was being read, with the key or tensor.
        place: String,
        /// Where in the file, in bytes from its beginning.
        at: u64,
        /// Bytes needed from there on.
        needed: u64,
        /// Bytes that are there.
        left: u64,
    },
    /// `general.alignment` is not what it must be.
    #[error("the metadata key `general.alignment` must be a power of two, found {found}")]
    GgufAlignment {
        /// The alignment that the file gives.
        found: u64,
    },
    /// A metadata key is empty or not UTF-8.
    #[error("metadata key number {index} (at byte {at}) must be UTF-8 and not empty, found {found:?}")]
    MetadataKey {
        /// Which key, counted from 0.
        index: u64,
        /// Where in the file, in bytes from its beginning.
        at: u64,
        /// The key, as far as it can be shown.
        found: String,
    },
    /// A metadata key stands in the file twice.
    #[error("the metadata key `{key}` is there twice")]
    MetadataDuplicate {
        /// The key.
        key: String,
    },
    /// The id of a metadata value's kind is unknown.
    #[error("the metadata key `{key}` has a value of unknown kind {found}; known are 0 to 12")]
    MetadataUnknownType {
        /// The key.
        key: String,
        /// The id that the file gives.
        found: u32,
    },
    /// A boolean is neither 0 nor 1.
    #[error("the metadata key `{key}` holds the boolean {found}, which must be 0 or 1")]
    MetadataBool {
        /// The key.
        key: String,
        /// The byte that the file gives.
        found: u8,
    },
    /// Arrays are nested too deeply.
    #[error("the metadata key `{key}` nests arrays more than {} levels deep", crate::gguf::MAX_NESTING)]
    MetadataNesting {
        /// The key.
        key: String,
    },
    /// A metadata key that is needed is not there.
    #[error("the metadata key `{key}` is missing; expected {expected}")]
    MetadataMissing {
        /// The key.
        key: String,
        /// What its value would have to be.
        expected: &'static str,
    },
    /// The value of a metadata key is of another kind, or does not fit.
    #[error("the metadata key `{key}` must be {expected}, found {found}")]
    MetadataType {
        /// The key.
        key: String,
        /// What the value must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The name of a tensor is not UTF-8.
    #[error("the name of tensor number {index} (at byte {at}) is not UTF-8: {found:?}")]
    TensorName {
        /// Which tensor, counted from 0.
        index: u64,
        /// Where in the file, in bytes from its beginning.
        at: u64,
        /// The name, as far as it can be shown.
        found: String,
    },
    /// A tensor stands in the table twice, or in two parts of a split file.
    #[error("the tensor `{tensor}` is there twice")]
    TensorDuplicate {
        /// The tensor.
        tensor: String,
    },
    /// The id of a tensor's type is unknown.
    #[error(
        "the tensor `{tensor}` has the unknown type {found}; known are 0 to {}: the file may be newer than this program",
        GgmlType::ALL.len() - 1
    )]
    TensorUnknownType {
        /// The tensor.
        tensor: String,
        /// The id that the file gives.
        found: u32,
    },
    /// A tensor has more than four dimensions.
    #[error("the tensor `{tensor}` has {found} dimensions; at most {} are possible", crate::gguf::MAX_DIMS)]
    TensorDims {
        /// The tensor.
        tensor: String,
        /// Dimensions that the file gives.
        found: u64,
    },
    /// One of a tensor's dimensions is zero.
    #[error("the tensor `{tensor}` has a dimension of size 0: {shape}")]
    TensorZeroDim {
        /// The tensor.
        tensor: String,
        /// Its shape, row length first.
        shape: String,
    },
    /// A tensor is larger than memory can be.
    #[error("the tensor `{tensor}` of shape {shape} and type {ty} is too large for this machine to address")]
    TensorSize {
        /// The tensor.
        tensor: String,
        /// Its shape, row length first.
        shape: String,
        /// Its type.
        ty: GgmlType,
    },
    /// A row of a tensor is no whole number of blocks.
    #[error("the tensor `{tensor}` has rows of {found} weights; {ty} needs a multiple of {}", ty.block_len())]
    TensorRow {
        /// The tensor.
        tensor: String,
        /// Its type.
        ty: GgmlType,
        /// Its row length.
        found: usize,
    },
    /// A tensor's offset is not aligned.
    #[error(
        "the tensor `{tensor}` begins at offset {found}, which is no multiple of the alignment {alignment}"
    )]
    TensorUnaligned {
        /// The tensor.
        tensor: String,
        /// Its offset in the data section.
        found: u64,
        /// What the offset must be a multiple of.
        alignment: u64,
    },
    /// A tensor's offset is so large that its end cannot be computed.
    #[error(
        "the tensor `{tensor}` of {bytes} bytes cannot begin at offset {found}: its end overflows 64 bits"
    )]
    TensorOffset {
        /// The tensor.
        tensor: String,
        /// Its offset in the data section.
        found: u64,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A tensor ends behind the end of the file.
    #[error(
        "the tensor `{tensor}` ends at byte {end}, but the file has only {file_len}: \
         it is cut short (download it again) or damaged"
    )]
    TensorOutside {
        /// The tensor.
        tensor: String,
        /// Where it ends, in bytes from the beginning of the file.
        end: u64,
        /// Bytes of the file.
        file_len: u64,
    },
    /// Two tensors share bytes.
    #[error("the tensor `{tensor}` overlaps the tensor `{other}`")]
    TensorOverlap {
        /// The tensor that begins later.
        tensor: String,
        /// The tensor that begins earlier.
        other: String,
    },
    // ---- model and backend
    /// The operating system gave fewer threads than asked for.
    #[error("expected {count} threads, but the system gives no more ({reason}): ask for fewer")]
    Threads {
        /// Threads asked for.
        count: usize,
        /// What the system said.
        reason: String,
    },
    /// There is not enough memory.
    #[error("out of memory: {what} need {bytes} bytes; use a shorter context or a smaller batch")]
    OutOfMemory {
        /// What the memory is for.
        what: &'static str,
        /// Bytes asked for.
        bytes: u64,
    },
    /// A mistake in this library: please report it.
    #[error("internal error, please report it: {what}")]
    Internal {
        /// What went wrong.
        what: &'static str,
    },
    // ---- text: tokenizers

    // ---- text: templates

    // ---- generate

    // ---- ggml
    /// This ggml has no such operation for this tensor type.
    #[cfg(feature = "ggml")]
    #[error("ggml {} has no {operation} for {ty}", crate::ggml::version())]
    GgmlUnsupported {
        /// What was asked for.
        operation: &'static str,
        /// For which type.
        ty: gristmill_kernels::quant::GgmlType,
    },
    /// A slice given to ggml is too short, too long, or no whole number of blocks.
    #[cfg(feature = "ggml")]
    #[error("{what}: ggml would need {expected}, found {found}")]
    GgmlSize {
        /// Which slice, and what is counted.
        what: &'static str,
        /// What its length must be.
        expected: String,
        /// What it is.
        found: usize,
    },
    /// The type can only be quantized with an importance for each column.
    #[cfg(feature = "ggml")]
    #[error("{ty} cannot be quantized without an importance matrix: give one value for each column")]
    GgmlImatrix {
        /// The type.
        ty: gristmill_kernels::quant::GgmlType,
    },
    /// A value that is to be quantized is an infinity or not a number.
    #[cfg(feature = "ggml")]
    #[error("value {index} is {value}: ggml quantizes finite numbers only")]
    GgmlNotFinite {
        /// Which value.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// ggml failed; the message is its own.
    #[cfg(feature = "ggml")]
    #[error("ggml failed to {operation}: {message}")]
    Ggml {
        /// What was asked for.
        operation: &'static str,
        /// What ggml said: its last lines of log, or the assertion that failed.
        message: String,
    },
}

impl From<gristmill_kernels::Mismatch> for Error {
    fn from(mismatch: gristmill_kernels::Mismatch) -> Self {
        Error::Internal { what: mismatch.what }
    }
}
