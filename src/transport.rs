//! tonic's own transport on our sockets (feature `tonic-transport`): tonic's server accepts from a
//! [`Listener`], and its client connects by a [`Connector`]. The address, the socket file and its
//! permissions are the same as everywhere here; the HTTP/2 is hyper's.

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

/// Returns the accepted connections, until a successor takes the socket over. It is for
/// `serve_with_incoming` of tonic's server.
///
/// After an error of accept(2) it waits before it accepts again, 5 ms at first and up to 1 s. tonic
/// would try again at once, and would do so without end if there are no file descriptors left.
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

/// The peer of a connection that a [`Listener`] accepted. tonic's server makes it an extension of
/// each request. A [`PeerPolicyLayer`](crate::PeerPolicyLayer) finds it there, too.
#[derive(Clone, Debug)]
pub struct ConnectInfo(Peer);

impl ConnectInfo {
    /// Returns the identity of the process at the other end, or `None` over TCP, where it is
    /// unknown.
    pub fn peer_identity(&self) -> Option<&PeerIdentity> {
        self.0.identity()
    }

    /// Returns the TCP peer, or `None` over a Unix socket.
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

/// Connects tonic's client to an [`Address`]. It is a tower service for `connect_with_connector` of
/// tonic's `Endpoint`, and ignores the URI that it is called with. The server sees the URI's
/// authority.
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
    /// Returns a connector to `address`. If that is not an address, each attempt to connect fails
    /// with [`InvalidAddress`](crate::ConnectErrorKind::InvalidAddress).
    pub fn new<A>(address: A) -> Self
    where
        A: TryInto<Address, Error: Into<AddressParseError>>,
    {
        let address = address.try_into().map_err(|error| error.into().into());
        Self { address, timeout: CONNECT_TIMEOUT }
    }

    /// Sets how long connecting may take, including name resolution and the wait for a server whose
    /// backlog is full. Default 20 s; `Duration::MAX` means no limit. A shorter timeout of tonic's
    /// `Endpoint` holds, too.
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

/// The future of a [`Connector`]. Dropping it leaves no connection open.
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
