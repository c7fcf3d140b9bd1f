//! [`Link`]: a channel's connection to one server, and how one is opened.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tracing::Level;

use super::builder::ChannelBuilder;
use super::channel::lock;
use super::connecting::LastFailure;
use super::reopening::Reopening;
use super::watched::{Attempted, WatchedLink};
use crate::address::{Address, Kind};
use crate::descriptors::ReceivedSet;
use crate::driver::{CloseReason, Options, Sender, Sleeping, Socket};
use crate::far::FAR;
use crate::http2::KeepAlive;
use crate::observer::ConnectionInfo;
use crate::policy::PeerPolicy;
use crate::socket::{self, ConnectError, ConnectErrorKind, Peer, PeerIdentity};

/// The authority for a Unix socket, which has no host name.
const LOCAL: &[u8] = b"localhost";

/// What a connector opens.
pub(super) type BoxStream = Box<dyn ByteStream>;

pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Opens a stream.
#[derive(Clone)]
pub(super) struct Connect(pub(super) Arc<dyn Fn() -> ConnectFuture + Send + Sync>);

type ConnectFuture = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send>>;

/// A connection to one server.
pub(super) struct Link {
    pub(super) sender: Sender,
    /// What the server sees as `:authority`.
    pub(super) authority: Vec<u8>,
    /// `None` for a stream that a connector or the user opened.
    pub(super) address: Option<Arc<Address>>,
    /// The extensions of each response: they identify the server if the transport can.
    extensions: Extensions,
    /// The index of its address among the channel's addresses.
    pub(super) preference: usize,
    /// The connection as observers see it, if there are observers.
    pub(super) observed: Option<Arc<ConnectionInfo>>,
    /// The task that looks for a server that is preferred to this one. It ends with the link.
    search: Mutex<Option<JoinSet<()>>>,
}

impl AsRef<Sender> for Link {
    fn as_ref(&self) -> &Sender {
        &self.sender
    }
}

impl Link {
    /// Returns a link on a stream that the caller gave.
    pub(super) fn given(sender: Sender) -> Self {
        Self::new(sender, None, None, 0)
    }

    fn new(
        sender: Sender,
        address: Option<Arc<Address>>,
        server: Option<PeerIdentity>,
        preference: usize,
    ) -> Self {
        let authority = address.as_deref().map_or_else(|| LOCAL.to_vec(), authority);
        let mut extensions = Extensions::new();
        if let Some(server) = server {
            extensions.insert(server);
        }
        let search = Mutex::default();
        Self { sender, authority, address, extensions, preference, observed: None, search }
    }

    fn observed_as(self, observed: Option<Arc<ConnectionInfo>>) -> Self {
        Self { observed, ..self }
    }

    /// Returns the extensions of a response on this connection, with the descriptors that came with
    /// its head.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED if this process could not take the descriptors.
    pub(super) fn extensions(
        &self,
        descriptors: Option<Box<ReceivedSet>>,
    ) -> Result<Extensions, Status> {
        let mut extensions = self.extensions.clone();
        match descriptors.map(|arrived| arrived.set) {
            None => {}
            Some(Ok(descriptors)) => drop(extensions.insert(descriptors)),
            Some(Err(why)) => return Err(Status::resource_exhausted(why)),
        }
        Ok(extensions)
    }

    pub(super) fn keep_searching(&self, search: JoinSet<()>) {
        *lock(&self.search) = Some(search);
    }
}

impl ChannelBuilder {
    /// Returns the options for a connection, after servers closed `too_many_pings` connections for
    /// too many PINGs.
    pub(super) fn driver_options(&self, too_many_pings: u32) -> Options {
        let mut options = self.options;
        options.http2.keep_alive = self.keep_alive_interval.map(|interval| KeepAlive {
            interval: interval.saturating_mul(1 << too_many_pings.min(16)).min(FAR),
            timeout: self.keep_alive_timeout,
            when_idle: self.keep_alive_while_idle,
        });
        // The wait for the server's SETTINGS has its own limits: the connect timeout and the calls'
        // deadlines. A server that is late with the acknowledgement of ours may still answer.
        options.http2.handshake_timeout = FAR;
        // A server that was stopped, with its container or machine, may go on later. How long a call waits
        // for that is its own deadline's, or keep-alive's.
        options.http2.frame_timeout = FAR;
        options.http2.send_timeout = FAR;
        // No request is sent until then: a client cannot know whether a server read it.
        options.http2.initial_max_streams = 0;
        options
    }

    /// Opens a connection to one of the channel's addresses, and waits until the server speaks.
    pub(super) async fn open_address(
        &self,
        address: &Arc<Address>,
        preference: usize,
        too_many_pings: u32,
        failure: &LastFailure,
    ) -> Result<Link, ConnectError> {
        let attempted = Attempted::began(self, Some(address));
        let opening = LinkOpening::begin(self, Some(address), too_many_pings, failure);
        attempted.ended(self.attempt_address(address, preference, opening).await)
    }

    async fn attempt_address(
        &self,
        address: &Arc<Address>,
        preference: usize,
        mut opening: LinkOpening<'_>,
    ) -> Result<Link, ConnectError> {
        loop {
            let mut conn = match socket::connect_within(address, opening.time_left()).await {
                Err(error) if error.kind() == ConnectErrorKind::TimedOut => {
                    return Err(opening.timed_out());
                }
                opened => opened?,
            };
            let is_watched = self.observers.is_some() || tracing::enabled!(Level::INFO);
            if conn.is_unix() || self.server.is_some() || is_watched {
                conn = conn.identified(address).map_err(|e| ConnectError::io(address, e))?;
            }
            if let Some(policy) = &self.server {
                check_server(policy, conn.peer_identity(), address)?;
            }
            let server = conn.peer_identity().cloned();
            let peer = Peer::of(Some(&conn));
            if let Some((sender, observed)) = opening.speaks(conn, &peer).await? {
                let link = Link::new(sender, Some(Arc::clone(address)), server, preference);
                return Ok(link.observed_as(observed));
            }
        }
    }

    /// Opens a connection by a connector.
    pub(super) async fn open_stream(
        &self,
        connect: &Connect,
        too_many_pings: u32,
        failure: &LastFailure,
    ) -> Result<Link, ConnectError> {
        let attempted = Attempted::began(self, None);
        let opening = LinkOpening::begin(self, None, too_many_pings, failure);
        attempted.ended(self.attempt_stream(connect, opening).await)
    }

    async fn attempt_stream(
        &self,
        connect: &Connect,
        mut opening: LinkOpening<'_>,
    ) -> Result<Link, ConnectError> {
        loop {
            let stream = match timeout(opening.time_left(), connect.0()).await {
                Ok(opened) => opened.map_err(ConnectError::connector)?,
                Err(_) => return Err(opening.timed_out()),
            };
            if self.server.is_some() {
                return Err(ConnectError::unknown_server(None));
            }
            let spoken = opening.speaks(Sleeping::new(stream), &Peer::Unknown).await?;
            if let Some((sender, observed)) = spoken {
                return Ok(Link::given(sender).observed_as(observed));
            }
        }
    }
}

/// An attempt to connect, which may open several connections one after the other.
struct LinkOpening<'a> {
    config: &'a ChannelBuilder,
    address: Option<&'a Arc<Address>>,
    too_many_pings: u32,
    failure: &'a LastFailure,
    started: Instant,
    reopening: Reopening,
}

impl<'a> LinkOpening<'a> {
    fn begin(
        config: &'a ChannelBuilder,
        address: Option<&'a Arc<Address>>,
        too_many_pings: u32,
        failure: &'a LastFailure,
    ) -> Self {
        let (started, reopening) = (Instant::now(), Reopening::new());
        Self { config, address, too_many_pings, failure, started, reopening }
    }

    /// Starts HTTP/2 on what was opened, and waits until the server speaks, or until it is time for
    /// another connection (`None`), because the server has ended this one.
    async fn speaks<T: Socket + Send + 'static>(
        &mut self,
        io: T,
        peer: &Peer,
    ) -> Result<Option<(Sender, Option<Arc<ConnectionInfo>>)>, ConnectError> {
        let (watch, observed) = WatchedLink::opening(self.config, self.address, peer);
        let options = self.config.driver_options(self.too_many_pings);
        let sender = Sender::start_watched(io, options, watch);
        let address = self.address.map(AsRef::as_ref);
        self.failure.set(ConnectError::silent(address, None));
        match timeout(self.time_left(), sender.ready()).await {
            Ok(Ok(())) => return Ok(Some((sender, observed))),
            Ok(Err(close_reason)) => match self.reopening.next(close_reason.as_ref()) {
                Some(wait) if wait.is_zero() => {}
                Some(wait) => sleep(wait).await,
                None => return Err(not_ready(address, close_reason)),
            },
            Err(_) => {
                return Err(ConnectError::silent(address, Some(self.config.connect_timeout)));
            }
        }
        Ok(None)
    }

    fn timed_out(&self) -> ConnectError {
        let address = self.address.map(AsRef::as_ref);
        ConnectError::timed_out(address, Some(self.config.connect_timeout))
    }

    /// Returns how much of the connect timeout is left.
    fn time_left(&self) -> Duration {
        self.config.connect_timeout.saturating_sub(self.started.elapsed())
    }
}

/// Returns why no connection is ready. `close_reason` is `None` if the server has announced its end.
pub(crate) fn not_ready(
    address: Option<&Address>,
    close_reason: Option<CloseReason>,
) -> ConnectError {
    match close_reason {
        Some(CloseReason::NotHttp2(error)) => ConnectError::not_http2(address, error.why),
        Some(close_reason) => ConnectError::closed(address, &close_reason),
        None => ConnectError::closed(address, &"it is about to end"),
    }
}

/// Fails if `policy` does not accept the server.
pub(crate) fn check_server(
    policy: &PeerPolicy,
    server: Option<&PeerIdentity>,
    address: &Address,
) -> Result<(), ConnectError> {
    match server {
        Some(server) if policy.allows(server) => Ok(()),
        Some(server) => Err(ConnectError::wrong_server(address, server)),
        None => Err(ConnectError::unknown_server(Some(address))),
    }
}

/// Returns the value of `:authority` that a server sees.
pub(crate) fn authority(address: &Address) -> Vec<u8> {
    match address.kind() {
        Kind::Unix(_) | Kind::UnixAbstract(_) => LOCAL.to_vec(),
        // An IPv6 scope id is not allowed in a URI (RFC 3986 §3.2.2), and has no meaning for the
        // server.
        Kind::Tcp(std::net::SocketAddr::V6(v6)) => format!("[{}]:{}", v6.ip(), v6.port()).into(),
        Kind::Tcp(v4) => v4.to_string().into(),
        Kind::Host(host, port) => format!("{host}:{port}").into(),
    }
}
