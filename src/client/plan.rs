//! [`CallPlan`]: what a channel adds to a call. The client without a runtime uses it, too.

use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::builder::WaitForReady;
use crate::driver::MoreFields;
use crate::grpc::{GRPC_TIMEOUT, field, grpc_timeout, timeout_value};

/// Where a user agent names this library and its version, in the form that "gRPC over HTTP2" asks
/// for.
const AGENT: &str = concat!("grpc-rust-samehost/", env!("CARGO_PKG_VERSION"));

static TIMEOUT: HeaderName = GRPC_TIMEOUT;

/// What holds for the calls of a channel that do not say it themselves.
#[derive(Clone)]
pub(crate) struct CallDefaults {
    pub(crate) wait_for_ready: bool,
    /// The deadline, and its value on the wire.
    timeout: Option<(Duration, HeaderValue)>,
    user_agent: HeaderValue,
}

impl CallDefaults {
    pub(crate) const fn new() -> Self {
        Self { wait_for_ready: false, timeout: None, user_agent: HeaderValue::from_static(AGENT) }
    }

    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = Some((timeout, timeout_value(timeout)));
    }

    /// Sets the user agent of a program that is called `agent`.
    pub(crate) fn set_user_agent(&mut self, agent: &HeaderValue) {
        let whole = [agent.as_bytes(), b" ", AGENT.as_bytes()].concat();
        // Both parts are valid field values, so both together are one.
        if let Ok(whole) = HeaderValue::from_bytes(&whole) {
            self.user_agent = whole;
        }
    }
}

/// How long a call may take, whether it waits for a server, and which fields the channel adds to its
/// headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallPlan {
    /// The time from the call's start to its deadline.
    pub(crate) timeout: Option<Duration>,
    pub(crate) waits_for_ready: bool,
    adds_agent: bool,
    adds_timeout: bool,
}

impl CallPlan {
    /// Returns the plan of a call. `headers` are its own, or `None` for a head that never changes and has
    /// neither a timeout nor a user agent. `wait_for_ready` is the call's own choice, if it has one.
    pub(crate) fn new(
        headers: Option<&HeaderMap>,
        wait_for_ready: Option<WaitForReady>,
        defaults: &CallDefaults,
    ) -> Self {
        let own_timeout = headers.and_then(grpc_timeout);
        let default = defaults.timeout.as_ref().map(|(timeout, _)| *timeout);
        Self {
            timeout: own_timeout.or(default),
            waits_for_ready: wait_for_ready.map_or(defaults.wait_for_ready, |wait| wait.0),
            adds_agent: headers.is_none_or(|headers| field(headers, &USER_AGENT).is_none()),
            adds_timeout: own_timeout.is_none() && default.is_some(),
        }
    }

    /// Returns the fields that the channel adds.
    pub(crate) fn more_fields<'a>(&self, defaults: &'a CallDefaults) -> MoreFields<'a> {
        let timeout = defaults.timeout.as_ref().filter(|_| self.adds_timeout);
        [
            self.adds_agent.then_some((&USER_AGENT, &defaults.user_agent)),
            timeout.map(|(_, value)| (&TIMEOUT, value)),
        ]
    }

    /// Notes that the call's own headers have the time that is left.
    pub(crate) fn note_own_timeout(&mut self) {
        self.adds_timeout = false;
    }
}
