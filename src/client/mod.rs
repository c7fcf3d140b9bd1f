//! [`Channel`]: what the stubs that tonic generates send their calls through.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::address::{Address, Kind};
pub use crate::driver::ResponseBody;
use crate::driver::{BoxError, SendError, Sender};
use crate::socket::{self, ConnectError};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a call is sent again that no server has seen.
const RESENDS: u32 = 3;

/// A client's way to one server: give a clone to each stub. Clones share one connection, which is
/// opened when it is needed and opened again after it was lost. Any number of calls can be in
/// flight; those beyond what the server allows wait.
///
/// A call that was not sent because its connection had closed goes out again on a new one; no other
/// call is repeated. Errors are [`Status`]es: UNAVAILABLE where there is no connection, with the
/// [`ConnectError`] as its source. There is no deadline unless the caller sets one, for example by
/// `tokio::time::timeout`; `Request::set_timeout` only tells the server.
///
/// ```no_run
/// # #[cfg(feature = "ping")]
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use samehost::{Address, Channel};
/// use samehost::ping::{PingRequest, PingServiceClient};
///
/// let address: Address = "unix:/run/app/ping.sock".parse()?;
/// let channel = Channel::connect(&address).await?;
/// let reply = PingServiceClient::new(channel).ping(PingRequest::ping()).await?;
/// assert_eq!(reply.into_inner().message, "pong");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Channel(Arc<Shared>);

struct Shared {
    target: Target,
    authority: Authority,
    /// Held while connecting, so that calls that start together share one connection.
    connection: Mutex<Option<Sender>>,
}

/// Where a new connection comes from.
enum Target {
    Address {
        address: Address,
        connect_timeout: Duration,
    },
    /// The stream was given, and there is no second one.
    Stream,
}

/// How a [`Channel`] connects; from [`Channel::builder`].
#[derive(Clone, Debug)]
pub struct ChannelBuilder {
    address: Address,
    connect_timeout: Duration,
}

impl ChannelBuilder {
    /// How long connecting may take, for Unix sockets as for TCP: name resolution and the wait
    /// for a server whose backlog is full included. Default 5 s; `Duration::MAX` for no limit.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// A channel that is connected. That the server speaks HTTP/2 is not waited for: if it does not,
    /// the first call says so.
    ///
    /// # Errors
    ///
    /// A [`ConnectError`] that says what to do, after the connect timeout at the latest.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it leaves no connection.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO and time enabled.
    pub async fn connect(self) -> Result<Channel, ConnectError> {
        let channel = self.connect_lazy();
        match channel.0.sender().await {
            Err(Unconnected::Connect(error)) => Err(error),
            Ok(_) | Err(Unconnected::StreamEnded) => Ok(channel),
        }
    }

    /// A channel that connects at its first call. A call that finds no server fails with
    /// UNAVAILABLE; the next one tries again.
    pub fn connect_lazy(self) -> Channel {
        let Self { address, connect_timeout } = self;
        let authority = authority(&address);
        Channel::new(Target::Address { address, connect_timeout }, authority, None)
    }
}

impl Channel {
    /// A channel that is connected to `address`, with the defaults of [`ChannelBuilder`].
    ///
    /// # Errors
    ///
    /// See [`ChannelBuilder::connect`], which also tells of cancellation and panics.
    pub async fn connect(address: &Address) -> Result<Self, ConnectError> {
        Self::builder(address).connect().await
    }

    /// Options for a channel to `address`.
    pub fn builder(address: &Address) -> ChannelBuilder {
        ChannelBuilder { address: address.clone(), connect_timeout: CONNECT_TIMEOUT }
    }

    /// A channel over a stream that is already connected, such as one end of a socketpair between
    /// a parent and its child. After the stream has ended, every call fails with UNAVAILABLE.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it closes the stream.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn from_stream<T>(stream: T) -> Result<Self, std::io::Error>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let sender = Sender::start(stream).await.map_err(std::io::Error::other)?;
        Ok(Self::new(Target::Stream, Authority::from_static("localhost"), Some(sender)))
    }

    fn new(target: Target, authority: Authority, sender: Option<Sender>) -> Self {
        Self(Arc::new(Shared { target, authority, connection: Mutex::new(sender) }))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Channel");
        if let Target::Address { address, .. } = &self.0.target {
            debug.field("address", address);
        }
        debug.finish_non_exhaustive()
    }
}

impl Shared {
    /// The connection, opened now if there is none that can take a call.
    async fn sender(&self) -> Result<Sender, Unconnected> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.as_ref().filter(|sender| sender.is_open()) {
            return Ok(sender.clone());
        }
        let Target::Address { address, connect_timeout } = &self.target else {
            return Err(Unconnected::StreamEnded);
        };
        let stream = socket::connect(address, *connect_timeout).await?;
        let sender = Sender::start(stream)
            .await
            .map_err(|source| ConnectError::NotHttp2 { address: address.clone(), source })?;
        Ok(connection.insert(sender).clone())
    }

    fn not_http2(&self, source: BoxError) -> Unconnected {
        match &self.target {
            Target::Address { address, .. } => {
                ConnectError::NotHttp2 { address: address.clone(), source }.into()
            }
            Target::Stream => Unconnected::StreamEnded,
        }
    }

    async fn call(&self, mut request: Request<Body>) -> Result<Response<ResponseBody>, Status> {
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(uri)
            .map_err(|error| Status::internal(format!("the request's path is invalid: {error}")))?;
        for _ in 0..RESENDS {
            match self.sender().await?.send(request).await {
                Ok(response) => return Ok(response),
                Err(SendError::Failed(status)) => return Err(status),
                Err(SendError::NotHttp2(source)) => return Err(self.not_http2(source).into()),
                Err(SendError::NotSent(unsent)) => request = *unsent,
            }
        }
        Err(Status::unavailable("the server keeps closing its connections: try again later"))
    }
}

/// Why there is no connection to send a call on.
enum Unconnected {
    Connect(ConnectError),
    StreamEnded,
}

impl From<ConnectError> for Unconnected {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<Unconnected> for Status {
    fn from(why: Unconnected) -> Self {
        match why {
            Unconnected::Connect(error) => {
                let mut status = Self::unavailable(error.to_string());
                status.set_source(Arc::new(error));
                status
            }
            Unconnected::StreamEnded => {
                Self::unavailable("the stream that this channel was made from has ended")
            }
        }
    }
}

/// What the server sees as `:authority`. Over a Unix socket there is no host to name.
fn authority(address: &Address) -> Authority {
    let text = match address.kind() {
        Kind::Unix(_) | Kind::UnixAbstract(_) => None,
        Kind::Tcp(ip) => Some(ip.to_string()),
        Kind::Host(host, port) => Some(format!("{host}:{port}")),
    };
    // An IPv6 scope id has no place in a URI; it means nothing to the server.
    text.and_then(|text| text.parse().ok()).unwrap_or(Authority::from_static("localhost"))
}

impl Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = ResponseFuture;

    /// Always ready: a call waits for its connection itself.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        let shared = Arc::clone(&self.0);
        ResponseFuture(Box::pin(async move { shared.call(request).await }))
    }
}

/// A [`Channel`]'s call, until the response's head is there. Dropping it cancels the call.
pub struct ResponseFuture(
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Status>> + Send>>,
);

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
