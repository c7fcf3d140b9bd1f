//! [`ChannelBuilder`]: the options of a blocking channel.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::address::{Address, AddressParseError};
use crate::client::{CallDefaults, ChannelStats, RetryPolicy};
use crate::observer::{Observer, ObserverOptions, Observers};
use crate::policy::PeerPolicy;
use crate::socket::CONNECT_TIMEOUT;

/// The options of a [`Channel`](super::Channel): how it connects and calls.
/// [`Channel::builder`](super::Channel::builder) makes it.
///
/// ```no_run
/// # #[cfg(feature = "ping")]
/// # fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use samehost::blocking::Channel;
/// use samehost::ping::{BlockingPingServiceClient, PingRequest};
/// use samehost::{PeerPolicy, RetryPolicy};
///
/// let channel = Channel::builder("unix:/run/app/ping.sock")
///     .require_server(PeerPolicy::root())
///     .timeout(Duration::from_secs(2))
///     .retry(RetryPolicy::new())
///     .connect()?;
/// let mut client = BlockingPingServiceClient::new(channel);
/// client.ping(PingRequest::ping())?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ChannelBuilder {
    pub(super) address: Result<Arc<Address>, AddressParseError>,
    pub(super) connect_timeout: Duration,
    pub(super) server: Option<PeerPolicy>,
    pub(super) defaults: CallDefaults,
    pub(super) retry: Option<RetryPolicy>,
    observing: ObserverOptions,
}

impl ChannelBuilder {
    pub(super) fn new(address: Result<Arc<Address>, AddressParseError>) -> Self {
        Self {
            address,
            connect_timeout: CONNECT_TIMEOUT,
            server: None,
            defaults: CallDefaults::new(),
            retry: None,
            observing: ObserverOptions::default(),
        }
    }

    pub(super) fn observers(&self) -> Option<Observers> {
        self.observing.observers()
    }

    /// Sets how long connecting may take, until the server begins to speak. The time in which a host name
    /// is resolved counts, but nothing interrupts a resolver that takes longer. Default: 20 s.
    /// `Duration::MAX` means no limit. Zero does not: it leaves no time to connect.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets whether a call that finds no server waits for one within its deadline. Without this it
    /// fails with UNAVAILABLE. Default: no. It tries again 5 ms after the first failure and up to 1
    /// s after later ones, varied by up to 20 %. It also goes on waiting, however often that
    /// happens, if a server ends without having processed the call. It does not wait for what only
    /// a person can change: see
    /// [`ConnectErrorKind::is_permanent`](crate::ConnectErrorKind::is_permanent). If the deadline
    /// ends the wait, the call fails with DEADLINE_EXCEEDED. [`WaitForReady`](crate::WaitForReady)
    /// sets it for one call.
    #[must_use]
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.defaults.wait_for_ready = wait;
        self
    }

    /// Sets which servers the channel may talk to. A server is the process that began to listen on
    /// the Unix socket. In `/tmp`, for example, that can be anybody's process. A connection to
    /// another server is closed before anything is sent. Over TCP no server can be identified, so
    /// connecting fails. Default: any server.
    #[must_use]
    pub fn require_server(mut self, policy: PeerPolicy) -> Self {
        self.server = Some(policy);
        self
    }

    /// Sets the deadline of calls that have none of their own, counted from the moment the call is
    /// made. It holds at both ends. Default: none. Zero does not mean that there is none: it leaves a
    /// call no time to wait for anything.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.defaults.set_timeout(timeout);
        self
    }

    /// Sets which failed calls are made again. See [`RetryPolicy`]. The thread sleeps between two
    /// attempts. Default: none. Calls that no server has processed are sent again in any case.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Sets the program's name in the `user-agent` that servers see. It comes before this library's
    /// name and version: `app/1.0 grpc-rust-samehost/0.1.0`. A request that already has the field
    /// keeps it. Default: only this library's name and version.
    ///
    /// # Errors
    ///
    /// If `agent` is not a valid field value, for example because it has a control character.
    pub fn user_agent<A>(mut self, agent: A) -> Result<Self, A::Error>
    where
        A: TryInto<HeaderValue>,
    {
        self.defaults.set_user_agent(&agent.try_into()?);
        Ok(self)
    }

    /// Adds an [`Observer`], which is told what happens on the channel's connections and calls. The
    /// threads that make calls tell it. Several observers are told one after the other. Since nothing
    /// runs between calls, the end of a connection is told when the next call finds it, or when the
    /// channel is dropped. If an observer makes a call on the channel while it is told that the channel
    /// connects, that call fails with UNAVAILABLE. Default: none, which costs nothing.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observing.add(observer);
        self
    }

    /// Returns statistics of what the channel is doing, which can be read at any time. They count
    /// from now on, and cost as much as an [`observer`](Self::observer).
    pub fn stats(&mut self) -> ChannelStats {
        let stats = ChannelStats::default();
        self.observing.add(stats.clone());
        stats
    }

    /// Sets whether each call has its own span (`tracing`, INFO, "call"), with the field names of
    /// OpenTelemetry's conventions for RPC. Its parent is the caller's span. Default: no.
    #[must_use]
    pub fn trace_calls(mut self, traces: bool) -> Self {
        self.observing.trace_calls(traces);
        self
    }
}

impl fmt::Debug for ChannelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBuilder").field("address", &self.address).finish_non_exhaustive()
    }
}
