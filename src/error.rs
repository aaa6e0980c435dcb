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
    /// A chat template does not parse.
    #[error("the chat template does not parse: line {line}: {what}")]
    TemplateSyntax {
        /// The line of the template, from 1.
        line: usize,
        /// What was expected and what was found.
        what: String,
    },

    /// A chat template called `raise_exception`: it does not take such a conversation. The message is its own.
    #[error("the chat template refuses this conversation: {message}")]
    TemplateRefused {
        /// The template's words.
        message: String,
    },

    /// A chat template read something that was not given, or did to a value what its type does not allow.
    #[error("the chat template fails at line {line}: {what}")]
    TemplateFailed {
        /// The line of the template, from 1; 0 where it is not known.
        line: usize,
        /// What went wrong there.
        what: String,
    },

    /// A chat template, or its input, exceeds a bound that keeps hostile templates in check.
    #[error("the chat template was stopped: {what}; if it is trusted, raise `RenderInput::limits`")]
    TemplateLimit {
        /// Which bound.
        what: String,
    },
    // ---- generate
}
