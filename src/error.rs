//! The one error type of the public API.

use std::path::PathBuf;

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

    // ---- model and backend

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
