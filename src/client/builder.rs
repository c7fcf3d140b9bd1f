//! [`ChannelBuilder`]: how a channel connects and calls.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};

use super::channel::Channel;
use super::link::{BoxStream, Connect};
use super::plan::CallDefaults;
use super::retry::RetryPolicy;
use super::stats::ChannelStats;
use crate::address::{Address, AddressParseError};
use crate::descriptors::MAX_PER_CALL;
use crate::driver::{BoxError, BusyPoll, Options};
use crate::grpc::panic_message;
use crate::observer::{Observer, ObserverOptions, Observers};
use crate::policy::PeerPolicy;
use crate::socket::{CONNECT_TIMEOUT, ConnectError};

/// How long a PING may go without an answer by default. It is gRPC's default.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The options of a [`Channel`]: how it connects and calls. [`Channel::builder`] makes it.
#[derive(Clone)]
pub struct ChannelBuilder {
    pub(super) target: Target,
    pub(super) connect_timeout: Duration,
    pub(super) server: Option<PeerPolicy>,
    pub(super) defaults: CallDefaults,
    pub(super) retry: Option<RetryPolicy>,
    pub(super) keep_alive_interval: Option<Duration>,
    pub(super) keep_alive_timeout: Duration,
    pub(super) keep_alive_while_idle: bool,
    pub(super) options: Options,
    observing: ObserverOptions,
    /// The observers above, shared, once the channel exists.
    pub(super) observers: Option<Observers>,
}

/// Where a new connection comes from.
#[derive(Clone)]
pub(super) enum Target {
    /// In order of preference. There is at least one.
    Addresses(Arc<[Arc<Address>]>),
    Connector(Connect),
    /// The caller gave a connected stream. There is no second one.
    Stream,
    /// What the caller gave is not an address.
    Nowhere(ConnectError),
}

/// One address, or several in order of preference, for [`Channel::builder`]. It is made from
/// anything that converts to an [`Address`], and from an array, a slice or a `Vec` of such values:
///
/// ```
/// use samehost::{Address, Channel};
///
/// # fn main() -> Result<(), samehost::AddressParseError> {
/// let names = ["unix:/run/app/main.sock", "unix:/run/app/spare.sock"];
/// let parsed: Vec<Address> = vec![names[0].parse()?, names[1].parse()?];
/// for builder in [
///     Channel::builder(names[0]),
///     Channel::builder(names),
///     Channel::builder(&names[..]),
///     Channel::builder(&parsed[1..]),
///     Channel::builder(parsed),
/// ] {
///     let _channel = builder.connect_timeout(std::time::Duration::from_secs(1));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Addresses(Result<Vec<Address>, AddressParseError>);

impl<A> From<A> for Addresses
where
    A: TryInto<Address, Error: Into<AddressParseError>>,
{
    fn from(address: A) -> Self {
        Self(address.try_into().map(|address| vec![address]).map_err(Into::into))
    }
}

impl<A, const N: usize> From<[A; N]> for Addresses
where
    A: TryInto<Address, Error: Into<AddressParseError>>,
{
    fn from(addresses: [A; N]) -> Self {
        Self::collect(addresses)
    }
}

impl<A> From<Vec<A>> for Addresses
where
    A: TryInto<Address, Error: Into<AddressParseError>>,
{
    fn from(addresses: Vec<A>) -> Self {
        Self::collect(addresses)
    }
}

impl<A> From<&[A]> for Addresses
where
    A: Clone + TryInto<Address, Error: Into<AddressParseError>>,
{
    fn from(addresses: &[A]) -> Self {
        Self::collect(addresses.iter().cloned())
    }
}

impl Addresses {
    fn collect<A>(addresses: impl IntoIterator<Item = A>) -> Self
    where
        A: TryInto<Address, Error: Into<AddressParseError>>,
    {
        let each = |address: A| address.try_into().map_err(Into::into);
        Self(addresses.into_iter().map(each).collect())
    }
}

impl From<Addresses> for Target {
    fn from(Addresses(addresses): Addresses) -> Self {
        match addresses {
            Ok(addresses) if addresses.is_empty() => {
                Self::Nowhere(AddressParseError::none_given().into())
            }
            Ok(addresses) => Self::Addresses(addresses.into_iter().map(Arc::new).collect()),
            Err(error) => Self::Nowhere(error.into()),
        }
    }
}

/// Whether one call waits for a server, whatever its channel does
/// ([`ChannelBuilder::wait_for_ready`]). It is an extension of the request.
///
/// ```
/// use samehost::WaitForReady;
/// use tonic::Request;
///
/// let mut request = Request::new(());
/// request.extensions_mut().insert(WaitForReady(true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady(pub bool);

/// Returns the error for a connector that panicked.
fn panicked(panic: &(dyn Any + Send)) -> io::Error {
    io::Error::other(format!("it panicked: {}", panic_message(panic)))
}

impl ChannelBuilder {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            connect_timeout: CONNECT_TIMEOUT,
            server: None,
            defaults: CallDefaults::new(),
            retry: None,
            keep_alive_interval: None,
            keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
            keep_alive_while_idle: false,
            options: Options::default(),
            observing: ObserverOptions::default(),
            observers: None,
        }
    }

    /// Returns the options that the new channel keeps.
    pub(super) fn into_config(mut self) -> Self {
        self.observers = self.observing.observers();
        self
    }

    /// Returns options for a channel whose connections `connect` opens. See
    /// [`Channel::from_connector`].
    pub fn from_connector<F, C, T, E>(connect: F) -> Self
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output = Result<T, E>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        E: Into<BoxError>,
    {
        Self::new(Target::Connector(Connect(Arc::new(move || {
            // A panic would end the task of the attempt, and nobody would learn of it.
            let connecting = catch_unwind(AssertUnwindSafe(&connect));
            Box::pin(async move {
                let mut connecting = pin!(connecting.map_err(|panic| panicked(&*panic))?);
                let connected = poll_fn(|cx| {
                    let poll = AssertUnwindSafe(|| connecting.as_mut().poll(cx));
                    match catch_unwind(poll) {
                        Ok(polled) => polled.map_err(io::Error::other),
                        Err(panic) => Poll::Ready(Err(panicked(&*panic))),
                    }
                });
                Ok(Box::new(connected.await?) as BoxStream)
            })
        }))))
    }

    /// Sets how long connecting may take, on Unix sockets and over TCP. That includes name
    /// resolution, the wait for a server whose backlog is full, and the wait until the server
    /// begins to speak. With several addresses, each may take that long. Default: 20 s, as in gRPC.
    /// `Duration::MAX` means no limit. Zero does not: it leaves no time to connect.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets whether a call that finds no server waits for one within its deadline. Without this it
    /// fails with UNAVAILABLE. Default: no. [`WaitForReady`] sets it for one call.
    ///
    /// A server is there when it has sent its SETTINGS. If it accepts a connection and closes it,
    /// is about to end, or ends without having processed the call, the call goes on waiting,
    /// however often that happens. All waiting calls of a channel share one attempt to connect. The
    /// next attempt comes 5 ms after the first failure and up to 1 s after later ones, varied by up
    /// to 20 %. A call does not wait for what only a person can change: see
    /// [`ConnectErrorKind::is_permanent`](crate::ConnectErrorKind::is_permanent). If the deadline
    /// ends the wait, the error says what the call waited for.
    #[must_use]
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.defaults.wait_for_ready = wait;
        self
    }

    /// Sets the deadline of calls that have none of their own, counted from the moment the call is
    /// made. It holds at both ends (`grpc-timeout`). Default: none. A call sets its own by
    /// `Request::set_timeout`, which may be longer. Zero does not mean that there is
    /// none: it leaves a call no time to wait for anything.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.defaults.set_timeout(timeout);
        self
    }

    /// Sets which failed calls are made again. See [`RetryPolicy`]. Default: none. Calls that no
    /// server has processed are sent again in any case.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Sets which servers the channel may talk to. A server is the process that began to listen on
    /// the Unix socket. In `/tmp`, for example, that can be anybody's process. A connection to
    /// another server is closed before anything is sent. Over TCP no server can be identified, so
    /// connecting fails. Default: any server.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// use samehost::{Channel, PeerPolicy};
    ///
    /// let ours = PeerPolicy::same_user().or(PeerPolicy::root());
    /// let channel =
    ///     Channel::builder("unix:/tmp/app.sock").require_server(ours).connect().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn require_server(mut self, policy: PeerPolicy) -> Self {
        self.server = Some(policy);
        self
    }

    /// Sends a PING (RFC 9113 §6.7) after `interval` without traffic while calls are open. If no
    /// answer comes within [`keep_alive_timeout`](Self::keep_alive_timeout), the connection is
    /// closed and its calls fail with UNAVAILABLE. Default: no PINGs. On one host this finds
    /// servers that are stopped or stuck. A server that has ended is noticed at once without it.
    ///
    /// A server that finds this too often closes the connection (GOAWAY, "too_many_pings"). From the
    /// channel's next connection on, the interval is twice as long (gRFC A8). Zero means no PINGs, too.
    #[must_use]
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.keep_alive_interval = (!interval.is_zero()).then_some(interval);
        self
    }

    /// Sets how long a PING may go without an answer. Default: 20 s. It has an effect only with
    /// [`keep_alive_interval`](Self::keep_alive_interval).
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.keep_alive_timeout = timeout;
        self
    }

    /// Sets whether PINGs are also sent while no call is open. Default: no. It has an effect only
    /// with [`keep_alive_interval`](Self::keep_alive_interval).
    #[must_use]
    pub fn keep_alive_while_idle(mut self, enabled: bool) -> Self {
        self.keep_alive_while_idle = enabled;
        self
    }

    /// Sets how long a connection may have no call before it is closed. The next call opens another
    /// one. A call that waits until the server takes it counts. A new connection has at least one second
    /// for its first call. Default: no limit. Zero means the same.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.http2.idle_timeout = (!timeout.is_zero()).then_some(timeout);
        self
    }

    /// Sets the program's name in the `user-agent` that servers see. It comes before this library's
    /// name and version: `app/1.0 grpc-rust-samehost/0.1.0`. A request that already has the field
    /// keeps it.
    ///
    /// ```
    /// # fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// use samehost::Channel;
    ///
    /// let channel = Channel::builder("unix:/run/app.sock").user_agent("app/1.0")?;
    /// # Ok(()) }
    /// ```
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

    /// Sets how many bytes of headers a response may have. They are counted as for
    /// SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113 §6.5.2): name, value and 32 for each field. Trailers
    /// have the same limit. The server is told the limit. If a response exceeds it, only its own
    /// call fails, with RESOURCE_EXHAUSTED. A server of this crate keeps to it: a status that is too
    /// large comes without its details, then with a part of its message, then without metadata.
    /// Default: 16 KiB.
    #[must_use]
    pub fn max_header_list_size(mut self, bytes: u32) -> Self {
        self.options.http2.max_header_list_size = bytes;
        self
    }

    /// Lets calls carry [`Descriptors`](crate::Descriptors) over a Unix socket, to a server that
    /// takes them (`Server::descriptors`). The channel takes at most `max_per_call` with one
    /// response; the maximum is 253.
    ///
    /// A request with more descriptors than the server takes fails with FAILED_PRECONDITION before
    /// anything is sent. So does a request with descriptors on a channel without this option, or
    /// over TCP. Of each connection, the descriptors that have arrived and that nobody has taken
    /// yet are at most a quarter of RLIMIT_NOFILE. A call beyond that fails with
    /// RESOURCE_EXHAUSTED. Default: 0.
    #[must_use]
    pub fn descriptors(mut self, max_per_call: u8) -> Self {
        self.options.http2.descriptors = max_per_call.min(MAX_PER_CALL as u8);
        self
    }

    /// Spends CPU time to answer faster. See [`BusyPoll`]. Default: off.
    #[must_use]
    pub fn busy_poll(mut self, busy_poll: BusyPoll) -> Self {
        self.options.busy_poll = busy_poll.where_it_helps();
        self
    }

    /// Adds an [`Observer`], which is told what happens on the channel's connections and calls.
    /// Several observers are told one after the other. With an observer, stubs of `samehost-build`
    /// make unary calls as HTTP requests, whose bodies can be counted. Default: none, which costs
    /// nothing.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observing.add(observer);
        self
    }

    /// Returns statistics of what the channel is doing, which can be read at any time. They count
    /// from now on, and cost as much as an [`observer`](Self::observer).
    ///
    /// ```no_run
    /// # fn f() {
    /// let mut builder = samehost::Channel::builder("unix:/run/app.sock");
    /// let stats = builder.stats();
    /// let channel = builder.connect_lazy();
    /// // Later on:
    /// println!("{} calls", stats.snapshot().calls_in_flight);
    /// # }
    /// ```
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

    /// Returns a channel that is connected: the server has sent its SETTINGS.
    ///
    /// # Errors
    ///
    /// A [`ConnectError`] that says what to do. It comes after the connect timeout at the latest. With
    /// several addresses, each but the first may begin 250 ms after the one before it.
    ///
    /// # Cancel safety
    ///
    /// If it is cancelled, no connection remains.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO and time enabled.
    pub async fn connect(self) -> Result<Channel, ConnectError> {
        let channel = self.connect_lazy();
        channel.0.connect_once().await?;
        Ok(channel)
    }

    /// Returns a channel that connects at its first call. A call that finds no server fails with
    /// UNAVAILABLE; the next one tries again. It needs no runtime, but its calls panic outside of one.
    pub fn connect_lazy(self) -> Channel {
        Channel::new(self, None)
    }
}

impl fmt::Debug for ChannelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBuilder").field("target", &self.target).finish_non_exhaustive()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(addresses) => f.debug_list().entries(&**addresses).finish(),
            Self::Connector(_) => f.write_str("a connector"),
            Self::Stream => f.write_str("a stream"),
            Self::Nowhere(error) => fmt::Debug::fmt(error, f),
        }
    }
}
