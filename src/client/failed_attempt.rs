//! [`FailedAttempt`]: what a status after the deadline says about the attempt that failed before.

use std::fmt;

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
