//! The log of `serve`, which goes to standard error.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IsTerminal, Write};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::escaped::escaped;
use crate::failure::in_options;

/// The format of log events.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Format {
    /// A line of text for each event.
    Text,
    /// A JSON object in a line for each event.
    Json,
}

/// Writes the events of the whole process that pass the filter to standard error, from now on. Text
/// from peers is escaped, and options have the names that this command gives them.
pub(crate) fn start(filter: EnvFilter, format: Format) {
    let colours = has_colours(
        io::stderr().is_terminal(),
        std::env::var_os("NO_COLOR").as_deref(),
        std::env::var_os("TERM").as_deref(),
    );
    match format {
        Format::Text => text(filter, colours, io::stderr).init(),
        Format::Json => json(filter, io::stderr).init(),
    }
}

fn text<W: Write>(
    filter: EnvFilter,
    colours: bool,
    open: impl Fn() -> W + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let fields = debug_fn(|writer: &mut Writer<'_>, field, value: &dyn fmt::Debug| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", escaped(&value)),
            name => write!(writer, "{name}={}", escaped(&value)),
        }
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Such an error would be printed on standard error, too, and panic if that is closed.
        .log_internal_errors(false)
        .with_ansi(colours)
        .with_writer(move || InOptions(open()))
        .fmt_fields(fields.delimited(" "))
        .finish()
}

/// JSON has its own escapes in strings.
fn json<W: Write>(
    filter: EnvFilter,
    open: impl Fn() -> W + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(move || InOptions(open()))
        .finish()
}

/// Writes with the names of this command's options. It gets each event in one piece.
struct InOptions<W>(W);

impl<W: Write> Write for InOptions<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = in_options(&String::from_utf8_lossy(event));
        self.0.write_all(text.as_bytes()).map(|()| event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Returns whether to use colours: on a terminal that has them, unless `NO_COLOR` is set and not
/// empty (no-color.org).
fn has_colours(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    is_terminal
        && no_color.is_none_or(OsStr::is_empty)
        && term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use super::*;

    fn logged<S: Subscriber + Send + Sync>(
        subscriber: impl FnOnce(Arc<File>) -> S,
        events: impl FnOnce(),
    ) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let file = Arc::new(File::create(&path).unwrap());
        tracing::subscriber::with_default(subscriber(file), events);
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn what_a_peer_sent_is_escaped() {
        let hostile = "\u{1b}[31m\r\nINFO all is well\u{202e}";
        let text = logged(
            |file| text(EnvFilter::new("info"), false, move || Arc::clone(&file)),
            || {
                let _in_span = tracing::info_span!("call", method = hostile).entered();
                tracing::info!(path = hostile, why = %hostile, size = 7, "refused: {hostile}");
            },
        );
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert_eq!(text.matches("\\u{202e}").count(), 4, "{text}");
        assert!(text.contains("refused: \\u{1b}[31m\\r\\nINFO"), "{text}");
        assert!(text.contains(" size=7"), "{text}");
        assert!(!text.trim_end().contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
    }

    #[test]
    fn options_have_the_names_of_this_command_in_both_formats() {
        let event = || tracing::warn!(at = 7, "too many (Server::max_connections)");
        let text =
            logged(|file| text(EnvFilter::new("info"), false, move || Arc::clone(&file)), event);
        let json = logged(|file| json(EnvFilter::new("info"), move || Arc::clone(&file)), event);
        for log in [text, json] {
            assert!(log.contains("too many (--max-connections)"), "{log}");
        }
    }

    #[test]
    fn colours_are_for_terminals_that_have_them() {
        let xterm = Some(OsStr::new("xterm"));
        assert!(has_colours(true, None, xterm));
        assert!(has_colours(true, Some(OsStr::new("")), xterm));
        assert!(!has_colours(false, None, xterm));
        assert!(!has_colours(true, Some(OsStr::new("1")), xterm));
        assert!(!has_colours(true, None, Some(OsStr::new("dumb"))));
        assert!(!has_colours(true, None, None));
    }
}
