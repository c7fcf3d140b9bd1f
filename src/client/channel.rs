//! [`Channel`]: a client's way to a server, shared by all stubs that have a clone of it.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::builder::{Addresses, ChannelBuilder, Target};
use super::connecting::{Attempt, LastFailure, WAITING};
use super::link::Link;
use super::retry::Tokens;
use super::state::ChannelState;
use crate::address::{Address, AddressParseError};
use crate::backoff::Backoff;
use crate::driver::{BoxError, CloseReason, Sender, Sleeping};
use crate::http2::ErrorCode;
use crate::socket::ConnectError;

/// A client's way to one server. Give each stub a clone. Clones share one connection, which is
/// opened when it is needed and opened again after it has ended. Any number of calls can be in
/// flight; calls beyond what the server allows wait, and are sent in the order in which they were made,
/// as far as their tasks poll them. One that its task does not poll is passed over after 1 ms.
///
/// A call that no server has processed (RFC 9113 §8.7) is sent again, up to five times, on a new
/// connection if there is one, unless its request is a stream. No other call is repeated, unless there
/// is a [`RetryPolicy`](crate::RetryPolicy). Errors are [`Status`](tonic::Status)es. If there is no
/// connection, the status is UNAVAILABLE with the [`ConnectError`] as its source. A call has no deadline
/// unless the caller sets one, by `Request::set_timeout` or [`ChannelBuilder::timeout`]. The deadline
/// covers the whole call, on both ends. A response over a Unix socket has the server's
/// [`PeerIdentity`](crate::PeerIdentity) among its extensions.
///
/// ```no_run
/// # #[cfg(feature = "ping")]
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use samehost::Channel;
/// use samehost::ping::{PingRequest, PingServiceClient};
///
/// let channel = Channel::connect("unix:/run/app/ping.sock").await?;
/// let reply = PingServiceClient::new(channel).ping(PingRequest::ping()).await?;
/// assert_eq!(reply.into_inner().message, "pong");
/// # Ok(()) }
/// ```
///
/// It is a tower service, so that interceptors and layers go around it:
///
/// ```no_run
/// # #[cfg(feature = "ping")]
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use samehost::Channel;
/// use samehost::ping::PingServiceClient;
/// use tonic::{Request, Status};
/// use tonic::service::interceptor::InterceptorLayer;
/// use tower::Layer;
///
/// fn with_token(mut request: Request<()>) -> Result<Request<()>, Status> {
///     request.metadata_mut().insert("authorization", "Bearer 1234".parse().unwrap());
///     Ok(request)
/// }
///
/// let channel = Channel::connect("unix:/run/app/ping.sock").await?;
/// // Any layer of tower, tower-http or your own goes here.
/// let channel = InterceptorLayer::new(with_token).layer(channel);
/// let client = PingServiceClient::new(channel);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Channel(pub(super) Arc<ChannelCore>);

pub(super) struct ChannelCore {
    pub(super) config: Arc<ChannelBuilder>,
    /// The connection that calls go to.
    link: Mutex<Option<Arc<Link>>>,
    /// The attempt to connect that is under way. Calls that start together share it and its
    /// outcome.
    pub(super) attempt: Mutex<Weak<Attempt>>,
    /// The backoff between attempts for calls that wait for a server.
    pub(super) backoff: Mutex<Backoff>,
    pub(super) failure: Arc<LastFailure>,
    /// The state, without what the connection itself knows.
    pub(super) changes: watch::Sender<ChannelState>,
    pub(super) tokens: Tokens,
    /// How often a server has found that this channel sends too many keep-alive PINGs.
    pub(super) too_many_pings: AtomicU32,
}

impl Channel {
    /// Returns a channel that is connected to `address`, with the defaults of [`ChannelBuilder`].
    ///
    /// # Errors
    ///
    /// See [`ChannelBuilder::connect`], which also describes cancellation and panics. If `address`
    /// is not an address, the kind is [`InvalidAddress`](crate::ConnectErrorKind::InvalidAddress).
    pub async fn connect<A>(address: A) -> Result<Self, ConnectError>
    where
        A: TryInto<Address, Error: Into<AddressParseError>>,
    {
        let address = address.try_into().map_err(|error| ConnectError::from(error.into()))?;
        Self::builder(address).connect().await
    }

    /// Returns options for a channel to one address, or to the first of several that has a server.
    /// If something is not an address, [`ChannelBuilder::connect`] reports it, or the calls of a
    /// channel that connects lazily.
    ///
    /// Several addresses are in order of preference (gRPC's `pick_first`). Each attempt to connect
    /// begins with the first. The next is tried when that fails, or has not answered within 250 ms.
    /// While a later address is in use, the ones before it are tried again after 1 s, and at
    /// intervals that double up to 30 s. New calls return to the first address that works again.
    /// Calls in flight end where they are.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// use samehost::Channel;
    ///
    /// let channel = Channel::builder(["unix:/run/app/main.sock", "unix:/run/app/spare.sock"])
    ///     .wait_for_ready(true)
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn builder(addresses: impl Into<Addresses>) -> ChannelBuilder {
        ChannelBuilder::new(addresses.into().into())
    }

    /// Returns a channel over a stream that is already connected, such as one end of a socketpair
    /// between a parent and its child. Calls wait until the server has begun to speak, as long as
    /// their deadlines allow. After the stream has ended, every call fails with UNAVAILABLE.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, which drives the connection.
    pub fn from_stream<T>(stream: T) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let config = ChannelBuilder::new(Target::Stream);
        let sender = Sender::start(Sleeping::new(stream), config.driver_options(0));
        Self::new(config, Some(Arc::new(Link::given(sender))))
    }

    /// Returns a channel whose connections `connect` opens. They may lead to a child's standard
    /// input and output, a vsock or something in memory. `connect` is called at the first call, and
    /// again when a call finds that the connection has ended. The stream may keep what is written to it
    /// until it is flushed, as TLS does. [`ChannelBuilder::from_connector`] has options for it.
    ///
    /// What `connect` returns runs in a task of its own. It is dropped when the connect timeout passes or
    /// no call waits for it any more, so it has to be cancel-safe. If it panics, the attempt has failed.
    ///
    /// ```no_run
    /// # #[cfg(feature = "ping")]
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// use samehost::Channel;
    /// use samehost::ping::{PingRequest, PingServiceClient};
    ///
    /// let channel = Channel::from_connector(|| tokio::net::UnixStream::connect("/run/app.sock"));
    /// PingServiceClient::new(channel).ping(PingRequest::ping()).await?;
    /// # Ok(()) }
    /// ```
    pub fn from_connector<F, C, T, E>(connect: F) -> Self
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output = Result<T, E>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        E: Into<BoxError>,
    {
        ChannelBuilder::from_connector(connect).connect_lazy()
    }

    /// Returns whether the channel has observers of its calls.
    pub(crate) fn is_observed(&self) -> bool {
        self.0.config.observers.is_some()
    }

    pub(super) fn new(config: ChannelBuilder, link: Option<Arc<Link>>) -> Self {
        Self(Arc::new(ChannelCore {
            tokens: Tokens::new(config.retry.as_ref()),
            config: Arc::new(config.into_config()),
            link: Mutex::new(link),
            attempt: Mutex::default(),
            backoff: Mutex::new(WAITING),
            failure: Arc::default(),
            changes: watch::Sender::new(ChannelState::Idle),
            too_many_pings: AtomicU32::new(0),
        }))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = &self.0.config.target;
        f.debug_struct("Channel").field("target", target).finish_non_exhaustive()
    }
}

impl ChannelCore {
    pub(super) fn is_of_stream(&self) -> bool {
        matches!(self.config.target, Target::Stream)
    }

    /// Returns the last connection, even if it has ended.
    #[inline]
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        lock(&self.link).clone()
    }

    /// Returns the connection if it takes calls.
    pub(super) fn current(&self) -> Option<Arc<Link>> {
        lock(&self.link).as_ref().filter(|link| link.sender.is_open()).cloned()
    }

    /// Makes `link` the connection that calls go to.
    pub(super) fn install(&self, link: Arc<Link>) {
        self.failure.clear();
        let earlier = lock(&self.link).replace(link);
        self.retire(earlier);
        self.changes.send_replace(ChannelState::Ready);
    }

    /// Removes `link`, which takes no more calls. The next call opens another connection.
    pub(super) fn discard(&self, link: &Arc<Link>) {
        let discarded = lock(&self.link).take_if(|current| Arc::ptr_eq(current, link));
        self.retire(discarded);
    }

    /// Removes the last connection if it has ended.
    pub(super) fn discard_ended(&self) {
        let discarded = lock(&self.link).take_if(|current| !current.sender.is_open());
        self.retire(discarded);
    }

    /// Drops a link without the lock, since that may end the connection.
    fn retire(&self, link: Option<Arc<Link>>) {
        let Some(link) = link else { return };
        if let Some(CloseReason::GoneAway { code: ErrorCode::ENHANCE_YOUR_CALM, debug }) =
            link.sender.close_reason()
            && debug == "too_many_pings"
        {
            let address = link.address.as_deref().map(tracing::field::display);
            tracing::warn!(
                address,
                "keep-alive PINGs are too many for the server: half of them from now on (raise the \
                 channel's keep_alive_interval)"
            );
            self.too_many_pings.fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
