//! The log of `serve`, which goes to standard error.

use std::ffi::OsStr;
use std::fmt;
use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
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
/// from peers is escaped.
pub(crate) fn start(filter: EnvFilter, format: Format) {
    if let Format::Json = format {
        // JSON has its own escapes in strings.
        let log = tracing_subscriber::fmt().json().with_env_filter(filter);
        return log.log_internal_errors(false).with_writer(std::io::stderr).init();
    }
    let colours = has_colours(
        std::io::stderr().is_terminal(),
        std::env::var_os("NO_COLOR").as_deref(),
        std::env::var_os("TERM").as_deref(),
    );
    subscriber(filter, colours, std::io::stderr).init();
}

fn subscriber<W>(filter: EnvFilter, colours: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let fields = debug_fn(|writer: &mut Writer<'_>, field, value: &dyn fmt::Debug| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", escaped(&in_options(&value))),
            name => write!(writer, "{name}={}", escaped(&value)),
        }
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Such an error would be printed on standard error, too, and panic if that is closed.
        .log_internal_errors(false)
        .with_ansi(colours)
        .with_writer(writer)
        .fmt_fields(fields.delimited(" "))
        .finish()
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
    use std::io::Read;

    use super::*;

    #[test]
    fn what_a_peer_sent_is_escaped() {
        let hostile = "\u{1b}[31m\r\nINFO all is well\u{202e}";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let logged = subscriber(EnvFilter::new("info"), false, File::create(&path).unwrap());
        tracing::subscriber::with_default(logged, || {
            let _in_span = tracing::info_span!("call", method = hostile).entered();
            tracing::info!(path = hostile, why = %hostile, size = 7, "refused: {hostile}");
        });
        let mut text = String::new();
        File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert_eq!(text.matches("\\u{202e}").count(), 4, "{text}");
        assert!(text.contains("refused: \\u{1b}[31m\\r\\nINFO"), "{text}");
        assert!(text.contains(" size=7"), "{text}");
        assert!(!text.trim_end().contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
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
