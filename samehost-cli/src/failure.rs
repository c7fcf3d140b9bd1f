//! [`Failure`]: why a subcommand could not do its work.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use samehost::{BindError, BindErrorKind};

/// The result of a subcommand.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// Why a subcommand could not do its work. The text is one line that contains the remedy.
pub(crate) enum Failure {
    /// The command exits with 1.
    Failed(String),
    /// The command was used wrongly, and exits with 2.
    Usage(String),
    /// Nobody reads standard output any more, as after `head -1`. The command exits with 1 and says
    /// nothing.
    Unread,
}

impl Failure {
    /// Returns the failure of a write to standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(format!("cannot write to standard output: {error}")),
        }
    }

    /// Returns the failure to bind an address. One beyond loopback is wrong usage, without the
    /// option for it.
    pub(crate) fn bind(error: &BindError) -> Self {
        let text = with_options(&error.to_string());
        match error.kind() {
            BindErrorKind::NotLoopback => Self::Usage(text),
            _ => Self::Failed(text),
        }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Replaces the library's options in an error text by those of this command.
fn with_options(text: &str) -> String {
    text.replace("set BindOptions::allow_shared_directory", "give --allow-shared-directory")
        .replace("set BindOptions::allow_remote", "give --allow-remote")
        .replace("BindOptions::republish", "--republish")
        .replace("BindOptions::allow_take_over", "--take-over")
        .replace("BindOptions::mode", "--mode")
}
