//! The options of a driver, and the error type of bodies.

use super::busy_poll::BusyPoll;
use crate::http2::Config;

/// The options of a driver.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) http2: Config,
    pub(crate) busy_poll: Option<BusyPoll>,
}

/// The error type of tower and http-body.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
