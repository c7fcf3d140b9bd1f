//! What a status after the deadline says: how long the call has [`Waited`], and about the [`FailedAttempt`]
//! before.

use std::fmt;
use std::time::Duration;

use tonic::Status;

use crate::observer::code_name;

/// The failure of the last attempt that was followed by another, if there was one. It displays as
/// the rest of a sentence.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailedAttempt(Option<Box<str>>);

impl FailedAttempt {
    /// Remembers the failure of attempt `number`, counted from 1.
    pub(crate) fn note(&mut self, number: u32, status: &Status) {
        let (code, message) = (code_name(status.code()), status.message());
        let text = match message.is_empty() {
            true => format!("; attempt {number} failed with {code}"),
            false => format!("; attempt {number} failed with {code}: {message}"),
        };
        self.0 = Some(text.into());
    }
}

impl fmt::Display for FailedAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or_default())
    }
}

/// A duration in the form that people write, such as `3 s`, and the attempt that failed in it.
pub(crate) struct Waited<'a> {
    pub(crate) time: Duration,
    pub(crate) failed: &'a FailedAttempt,
}

impl fmt::Display for Waited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, failed } = self;
        let nanos = time.as_nanos();
        match nanos {
            0 => f.write_str("0 s")?,
            _ if nanos.is_multiple_of(1_000_000_000) => write!(f, "{} s", time.as_secs())?,
            _ if nanos.is_multiple_of(1_000_000) => write!(f, "{} ms", time.as_millis())?,
            _ => write!(f, "{time:?}")?,
        }
        write!(f, "{failed}")
    }
}
