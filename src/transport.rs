//! tonic's own transport on our sockets, for those who stay on it (feature `tonic-transport`): the
//! [`Listener`] as what tonic's server accepts from, and a [`Connector`] for its client. The
//! address, the socket's file and who may connect to it are as everywhere here; the HTTP/2 is
//! hyper's.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio_stream::Stream;
use tonic::transport::server::Connected;
use tower::Service;

use crate::address::{Address, AddressParseError};
use crate::socket::{
    self, CONNECT_TIMEOUT, Conn, ConnectError, Listener, Peer, PeerIdentity, TcpPeer,
};

/// The connections that are accepted, until the socket is handed over to a successor: for `serve_with_incoming` of tonic's server.
///
/// After an error of accept(2) it accepts nothing for a moment, 5 ms at first and up to 1 s, as
/// tonic would try again at once, and go on doing so where file descriptors have run out.
///
/// ```no_run
/// # #[cfg(feature = "ping")]
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use samehost::ping::{Ping, PingServiceServer};
/// use samehost::{Address, Listener};
///
/// let address: Address = "unix:/run/ping.sock".parse()?;
/// let listener = Listener::bind(&address).await?;
/// tonic::transport::Server::builder()
///     .add_service(PingServiceServer::new(Ping::default()))
///     .serve_with_incoming(listener)
///     .await?;
/// # Ok(()) }
/// ```
impl Stream for Listener {
    type Item = io::Result<Conn>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Conn>>> {
        self.get_mut().poll_accept(cx)
    }
}

/// What tonic's server tells its services of a connection that a [`Listener`] accepted, as an
/// extension of each request. A [`PeerPolicyLayer`](crate::PeerPolicyLayer) finds it, too.
#[derive(Clone, Debug)]
pub struct ConnectInfo(Peer);

impl ConnectInfo {
    /// The process at the other end. `None` over TCP, which does not know it.
    pub fn peer_identity(&self) -> Option<&PeerIdentity> {
        self.0.identity()
    }

    /// What TCP knows of the other end. `None` over a Unix socket.
    pub fn tcp_peer(&self) -> Option<&TcpPeer> {
        match &self.0 {
            Peer::Tcp(peer) => Some(peer),
            Peer::Unix(_) | Peer::Unknown => None,
        }
    }
}

impl Connected for Conn {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo(Peer::of(Some(self)))
    }
}

/// Connects tonic's client to an [`Address`]: a tower service that pays no regard to the URI it is
/// called with, for `connect_with_connector` of tonic's `Endpoint`. The URI's authority is what the
/// server sees.
///
/// ```no_run
/// # #[cfg(feature = "ping")]
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use samehost::Connector;
/// use samehost::ping::PingServiceClient;
/// use tonic::transport::Endpoint;
///
/// let connector = Connector::new("unix:/run/ping.sock");
/// let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
/// let client = PingServiceClient::new(channel);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    address: Result<Address, ConnectError>,
    timeout: Duration,
}

impl Connector {
    /// Connects to `address`. What is no address is told at each connecting, by
    /// [`InvalidAddress`](crate::ConnectErrorKind::InvalidAddress).
    pub fn new<A>(address: A) -> Self
    where
        A: TryInto<Address, Error: Into<AddressParseError>>,
    {
        let address = address.try_into().map_err(|error| error.into().into());
        Self { address, timeout: CONNECT_TIMEOUT }
    }

    /// How long connecting may take, name resolution and the wait for a server whose backlog is
    /// full included. Default 20 s; `Duration::MAX` for no limit. A shorter one of tonic's `Endpoint`
    /// counts as well.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<Conn>;
    type Error = ConnectError;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Connecting {
        let Self { address, timeout } = self.clone();
        Connecting(Box::pin(async move {
            socket::connect_within(&address?, timeout).await.map(TokioIo::new)
        }))
    }
}

/// A [`Connector`] at work. Dropped, it leaves no connection.
#[must_use = "futures do nothing unless polled"]
pub struct Connecting(Pin<Box<dyn Future<Output = Result<TokioIo<Conn>, ConnectError>> + Send>>);

impl Future for Connecting {
    type Output = Result<TokioIo<Conn>, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}
