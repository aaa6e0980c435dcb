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
}
