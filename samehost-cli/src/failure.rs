//! [`Failure`]: how a subcommand says that it could not do its work.

use std::error::Error;
use std::io;
use std::process::ExitCode;

/// What a subcommand ends with.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// Why a subcommand could not do its work; its text is one line that says what to do.
pub(crate) enum Failure {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2.
    Usage(String),
}

impl Failure {
    /// Standard output takes no more.
    pub(crate) fn output(error: &io::Error) -> Self {
        Self::Failed(format!("cannot write to standard output: {error}"))
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}
