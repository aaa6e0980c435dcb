//! How a command fails.

use std::fmt::{self, Display};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::output;

/// Why a command ended early.
pub enum Failure {
    /// The library says so.
    Library(gristmill::Error),
    /// Something about the command line or its files.
    Other(String),
    /// The command line itself is wrong.
    Usage(String),
    /// Whoever read standard output has gone: nothing is left to do, and nothing is wrong.
    NobodyReads,
    /// Ctrl-C.
    Interrupted,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Failure::Other(message.into())
    }

    /// A failure to read or write the file at `path`.
    pub fn file(path: &Path, error: impl Display) -> Self {
        Failure::Other(format!("{}: {error}", path.display()))
    }

    /// Tells it, once, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            Failure::NobodyReads => ExitCode::SUCCESS,
            Failure::Interrupted => ExitCode::from(130),
            Failure::Usage(message) => {
                output::note(format_args!("error: {message}\n\nFor more information, try '--help'."));
                ExitCode::from(2)
            }
            failure => {
                output::note(format_args!("error: {failure}"));
                ExitCode::FAILURE
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Library(error @ gristmill::Error::ContextFull { .. }) => {
                write!(f, "{error} (--ctx says how long it is)")
            }
            Failure::Library(error) => error.fmt(f),
            Failure::Other(message) | Failure::Usage(message) => f.write_str(message),
            Failure::NobodyReads => f.write_str("nobody reads the output"),
            Failure::Interrupted => f.write_str("stopped"),
        }
    }
}

impl From<gristmill::Error> for Failure {
    fn from(error: gristmill::Error) -> Self {
        match error {
            gristmill::Error::Cancelled => Failure::Interrupted,
            error => Failure::Library(error),
        }
    }
}

/// For standard output; errors of files are made by [`Failure::file`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::NobodyReads,
            _ => Failure::Other(format!("standard output: {error}")),
        }
    }
}
