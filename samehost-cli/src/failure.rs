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
        let text = in_options(&error.to_string());
        match error.kind() {
            BindErrorKind::NotLoopback => Self::Usage(text),
            _ => Self::Failed(text),
        }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(in_options(&error.to_string()))
    }
}

/// What a text of the library tells a programmer to use, and what this command has for it. Longer
/// texts come before their parts.
const OPTIONS: [(&str, &str); 15] = [
    ("set BindOptions::allow_shared_directory", "give --allow-shared-directory"),
    ("set BindOptions::allow_remote", "give --allow-remote"),
    ("(BindOptions::mode, BindOptions::group)", "(serve --mode, serve --group)"),
    ("BindOptions::republish", "--republish"),
    ("BindOptions::allow_take_over", "--take-over"),
    ("BindOptions::mode", "--mode"),
    ("Server::timeout", "serve --timeout"),
    ("Server::peer_policy", "the --allow options"),
    ("Server::max_concurrent_streams", "serve --max-streams"),
    ("Server::max_connections_per_uid", "--max-connections-per-uid"),
    ("Server::max_connections", "--max-connections"),
    ("raise the channel's connect_timeout", GIVE_MORE_TIME),
    (
        "give the call more time (the request's set_timeout or the channel's timeout)",
        GIVE_MORE_TIME,
    ),
    (r#" (a channel takes several, as in Channel::builder(["unix:/a", "unix:/b"]))"#, ""),
    (", as str::trim does", ""),
];

/// The remedy of a call that takes too long, where the subcommand has no option for it.
pub(crate) const GIVE_MORE_TIME: &str = "give it more time";

/// Replaces what the library calls its options in a text by the options of this command.
pub(crate) fn in_options(text: &str) -> String {
    OPTIONS.iter().fold(text.to_owned(), |text, (library, command)| text.replace(library, command))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Adds the text of all source files of a directory, with strings of several lines in one.
    fn add_sources(directory: &Path, all: &mut String) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                add_sources(&path, all);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
                let lines: Vec<_> = lines.collect();
                *all += &lines.join("\n").replace("\\\n", "");
            }
        }
    }

    #[test]
    fn the_library_has_every_text_that_is_replaced() {
        let mut sources = String::new();
        add_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../src"), &mut sources);
        let sources = sources.replace("\\\"", "\"");
        for (text, _) in OPTIONS {
            assert!(sources.contains(text), "{text}");
        }
    }
}
