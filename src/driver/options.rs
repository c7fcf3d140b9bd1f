//! What a connection is driven with, and the words that all of the driver uses.

use super::busy_poll::BusyPoll;
use crate::http2::Config;

/// What a connection is driven with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) http2: Config,
    pub(crate) busy_poll: Option<BusyPoll>,
}

/// The error type of tower and http-body.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
