//! [`Channel`]: what the stubs that tonic generates send their calls through.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::USER_AGENT;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::address::{Address, Kind};
use crate::driver::{self, BusyPoll, Options, Outgoing, Sender, Sleeping, Unsent, Waiter};
pub use crate::grpc::ResponseBody;
use crate::grpc::{Deadline, deadline_exceeded, field, grpc_timeout, not_grpc, status};
use crate::http2::KeepAlive;
use crate::policy::PeerPolicy;
use crate::socket::{self, CONNECT_TIMEOUT, Conn, ConnectError};

/// How often a call is sent again that no server has processed.
const RESENDS: u32 = 5;

/// The pauses of a call that waits for a server: doubled from the first up to the last.
const WAIT_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// In the form that "gRPC over HTTP2" asks for.
static AGENT: HeaderValue =
    HeaderValue::from_static(concat!("grpc-rust-samehost/", env!("CARGO_PKG_VERSION")));

/// A client's way to one server: give a clone to each stub. Clones share one connection, which is
/// opened when it is needed and opened again after it was lost. Any number of calls can be in
/// flight; those beyond what the server allows wait.
///
/// A call that no server has processed is sent again, on a new connection where it takes one; no
/// other call is repeated. Errors are [`Status`]es: UNAVAILABLE where there is no connection, with
/// the [`ConnectError`] as its source. There is no deadline unless the caller sets one, by
/// `Request::set_timeout`: it covers the whole call, on both ends.
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
    /// What the server sees as `:authority`.
    authority: Vec<u8>,
    connection: Mutex<Option<Sender>>,
    /// The attempt to connect that is under way, so that calls which start together share one
    /// connection, or one failure.
    attempt: Mutex<Weak<Attempt>>,
}

/// An attempt to connect. It goes on as long as a call waits for it, whichever that is.
struct Attempt {
    outcome: watch::Receiver<Option<Result<Sender, ConnectError>>>,
    /// Aborted with the last reference.
    _task: JoinSet<()>,
}

/// Where a new connection comes from.
enum Target {
    Address(Arc<ChannelBuilder>),
    /// The stream was given, and there is no second one.
    Stream,
}

/// How a [`Channel`] connects; from [`Channel::builder`].
#[derive(Clone, Debug)]
pub struct ChannelBuilder {
    address: Arc<Address>,
    connect_timeout: Duration,
    wait_for_ready: bool,
    server: Option<PeerPolicy>,
    options: Options,
}

impl ChannelBuilder {
    /// How long connecting may take, for Unix sockets as for TCP: name resolution and the wait
    /// for a server whose backlog is full included. Default 20 s; `Duration::MAX` for no limit.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Whether a call that finds no server waits for one, within its own deadline, rather than
    /// fails with UNAVAILABLE. Default: no.
    #[must_use]
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// Which servers to talk to. A server is whoever began to listen on the Unix socket: in `/tmp`,
    /// for one, that can be anybody. A connection to any other is closed before anything is sent;
    /// over TCP no server can be told from another, and connecting fails. Default: any.
    ///
    /// ```no_run
    /// # async fn f(address: samehost::Address) -> Result<(), Box<dyn std::error::Error>> {
    /// use samehost::{Channel, PeerPolicy};
    ///
    /// let ours = PeerPolicy::same_user().or(PeerPolicy::root());
    /// let channel = Channel::builder(&address).require_server(ours).connect().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn require_server(mut self, policy: PeerPolicy) -> Self {
        self.server = Some(policy);
        self
    }

    /// Asks a server that was not heard of for `interval` while it owes an answer for a sign (PING,
    /// RFC 9113 §6.7). Where none comes within `timeout`, the connection is closed and its calls
    /// fail with UNAVAILABLE. On one host it finds servers that are stopped or stuck; one that has
    /// ended is noticed at once anyway. Default: never.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.options.http2.keep_alive = Some(KeepAlive { interval, timeout, when_idle: false });
        self
    }

    /// Spends CPU time to answer faster: see [`BusyPoll`]. Default: not.
    #[must_use]
    pub fn busy_poll(mut self, busy_poll: BusyPoll) -> Self {
        self.options.busy_poll = busy_poll.where_it_helps();
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
        let channel = self.clone().connect_lazy();
        channel.0.open(&self).await?;
        Ok(channel)
    }

    /// A channel that connects at its first call. A call that finds no server fails with
    /// UNAVAILABLE; the next one tries again.
    pub fn connect_lazy(self) -> Channel {
        let authority = authority(&self.address);
        Channel::new(Target::Address(Arc::new(self)), authority, None)
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
        ChannelBuilder {
            address: Arc::new(address.clone()),
            connect_timeout: CONNECT_TIMEOUT,
            wait_for_ready: false,
            server: None,
            options: Options::default(),
        }
    }

    /// A channel over a stream that is already connected, such as one end of a socketpair between
    /// a parent and its child. After the stream has ended, every call fails with UNAVAILABLE.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, which drives the connection.
    pub fn from_stream<T>(stream: T) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let sender = Sender::start(Sleeping(stream), Options::default());
        Self::new(Target::Stream, LOCAL.to_vec(), Some(sender))
    }

    fn new(target: Target, authority: Vec<u8>, sender: Option<Sender>) -> Self {
        Self(Arc::new(Shared {
            target,
            authority,
            connection: Mutex::new(sender),
            attempt: Mutex::default(),
        }))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Channel");
        if let Target::Address(target) = &self.0.target {
            debug.field("address", &target.address);
        }
        debug.finish_non_exhaustive()
    }
}

impl Shared {
    /// The connection, if there is one that lives.
    fn current(&self) -> Option<Sender> {
        lock(&self.connection).as_ref().filter(|sender| sender.is_open()).cloned()
    }

    /// `sender` takes no more calls: the next one opens another connection.
    fn discard(&self, sender: &Sender) {
        let mut connection = lock(&self.connection);
        // The connection's end may be its last clone's, which is not to run under this lock.
        let discarded = connection.take_if(|current| current.is_same(sender));
        drop(connection);
        drop(discarded);
    }

    /// Opens the connection.
    async fn open(&self, target: &ChannelBuilder) -> Result<Sender, ConnectError> {
        let ChannelBuilder { address, connect_timeout, server, options, .. } = target;
        let mut conn = socket::connect_within(address, *connect_timeout).await?;
        if let Some(policy) = server {
            conn = only_if(policy, conn, address)?;
        }
        let sender = Sender::start(conn, *options);
        let earlier = lock(&self.connection).replace(sender.clone());
        drop(earlier);
        Ok(sender)
    }

    /// The connection, opened now if there is none. Its outcome is that of all who wait for it.
    async fn connect(self: &Arc<Self>) -> Result<Sender, Unconnected> {
        let Target::Address(target) = &self.target else {
            return self.current().ok_or(Unconnected::StreamEnded);
        };
        let attempt = {
            let mut under_way = lock(&self.attempt);
            // One that has come to its end drops the other half of its channel.
            let earlier = under_way.upgrade().filter(|it| it.outcome.has_changed().is_ok());
            match (earlier, self.current()) {
                (Some(attempt), _) => attempt,
                (None, Some(sender)) => return Ok(sender),
                (None, None) => {
                    let attempt = Arc::new(self.attempt(Arc::clone(target)));
                    *under_way = Arc::downgrade(&attempt);
                    attempt
                }
            }
        };
        let mut outcome = attempt.outcome.clone();
        let outcome = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        match outcome.ok().flatten() {
            Some(outcome) => Ok(outcome?),
            None => {
                let cause = io::Error::other("the runtime that connected was shut down");
                Err(ConnectError::failed(&target.address, cause).into())
            }
        }
    }

    /// Starts to connect, in a task of its own: no call's end is the end of it, as long as another
    /// one waits.
    fn attempt(self: &Arc<Self>, target: Arc<ChannelBuilder>) -> Attempt {
        let (sender, outcome) = watch::channel(None);
        let mut task = JoinSet::new();
        let channel = Arc::clone(self);
        task.spawn(async move {
            let outcome = channel.open(&target).await;
            let _ = sender.send(Some(outcome));
        });
        Attempt { outcome, _task: task }
    }

    /// As [`connect`](Self::connect), and waits for a server where that was asked for.
    async fn connect_or_wait(self: &Arc<Self>) -> Result<Sender, Unconnected> {
        let wait = matches!(&self.target, Target::Address(target) if target.wait_for_ready);
        let (mut pause, longest) = WAIT_PAUSES;
        loop {
            match self.connect().await {
                Err(Unconnected::Connect(error)) if wait => {
                    tracing::debug!(%error, "waiting for the server");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
                result => return result,
            }
        }
    }

    /// The server's address, unless the stream was given.
    fn server(&self) -> Option<&Arc<Address>> {
        match &self.target {
            Target::Address(target) => Some(&target.address),
            Target::Stream => None,
        }
    }

    fn not_http2(&self, source: driver::Lost) -> Unconnected {
        match self.server() {
            Some(address) => ConnectError::not_http2(address, &source).into(),
            None => Unconnected::StreamEnded,
        }
    }
}

/// The connection, if the server is one that `policy` accepts.
fn only_if(policy: &PeerPolicy, conn: Conn, address: &Address) -> Result<Conn, ConnectError> {
    let conn = conn.identified(address).map_err(|error| ConnectError::failed(address, error))?;
    match conn.peer_identity() {
        Some(server) if policy.allows(server) => Ok(conn),
        Some(server) => Err(ConnectError::wrong_server(address, server)),
        None => Err(ConnectError::unknown_server(address)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The authority of a Unix socket, which has no host to name.
const LOCAL: &[u8] = b"localhost";

fn authority(address: &Address) -> Vec<u8> {
    match address.kind() {
        Kind::Unix(_) | Kind::UnixAbstract(_) => LOCAL.to_vec(),
        // An IPv6 scope id has no place in a URI (RFC 3986 §3.2.2); it means nothing to the server.
        Kind::Tcp(std::net::SocketAddr::V6(v6)) => format!("[{}]:{}", v6.ip(), v6.port()).into(),
        Kind::Tcp(v4) => v4.to_string().into(),
        Kind::Host(host, port) => format!("{host}:{port}").into(),
    }
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
        let (parts, body) = request.into_parts();
        let agent = field(&parts.headers, &USER_AGENT).is_none().then_some(&AGENT);
        let deadline = grpc_timeout(&parts.headers).and_then(Deadline::after);
        let path = parts.uri.into_parts().path_and_query;
        let path = path.unwrap_or(PathAndQuery::from_static("/"));
        ResponseFuture {
            channel: Arc::clone(&self.0),
            request: Outgoing::new(parts.method, path, parts.headers, agent, body),
            deadline,
            stage: Stage::Send,
            resends: 0,
        }
    }
}

/// A [`Channel`]'s call, until the response's head is there. Dropping it cancels the call.
pub struct ResponseFuture {
    channel: Arc<Shared>,
    request: Outgoing<Body>,
    deadline: Option<Deadline>,
    stage: Stage,
    resends: u32,
}

enum Stage {
    /// To be put into the connection.
    Send,
    /// For want of a connection.
    Connect(Pin<Box<dyn Future<Output = Result<Sender, Unconnected>> + Send>>),
    /// For want of a slot: the server takes so many calls at a time.
    Wait(Waiter),
    Call(driver::Call),
}

impl ResponseFuture {
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<ResponseBody>, Status>> {
        loop {
            match &mut self.stage {
                Stage::Send => {
                    let Some(sender) = self.channel.current() else {
                        let channel = Arc::clone(&self.channel);
                        let connect = async move { channel.connect_or_wait().await };
                        self.stage = Stage::Connect(Box::pin(connect));
                        continue;
                    };
                    if let Err(status) = self.send(&sender, cx) {
                        return Poll::Ready(Err(status));
                    }
                }
                Stage::Connect(connect) => {
                    let Poll::Ready(connected) = connect.as_mut().poll(cx) else {
                        return Poll::Pending;
                    };
                    // Its own connection, even if it is lost by now: what it says counts.
                    self.send(&connected?, cx)?;
                }
                Stage::Wait(waiter) => match waiter.poll(cx) {
                    Poll::Ready(()) => self.stage = Stage::Send,
                    Poll::Pending => return Poll::Pending,
                },
                Stage::Call(call) => match Pin::new(call).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok((head, incoming))) => {
                        if let Some(status) = not_grpc(head.status, &head.headers) {
                            return Poll::Ready(Err(status));
                        }
                        let server = self.channel.server().cloned();
                        let body = ResponseBody::new(incoming, self.deadline.take(), server);
                        let mut response = Response::new(body);
                        *response.status_mut() = head.status;
                        *response.version_mut() = Version::HTTP_2;
                        *response.headers_mut() = match Arc::try_unwrap(head) {
                            Ok(head) => head.headers,
                            Err(head) => head.headers.clone(),
                        };
                        return Poll::Ready(Ok(response));
                    }
                    Poll::Ready(Err(error)) => {
                        if error.may_be_sent_again() && self.request.can_be_sent() && self.resend()
                        {
                            self.stage = Stage::Send;
                            continue;
                        }
                        return Poll::Ready(Err(match error {
                            driver::StreamError::Lost {
                                lost: lost @ driver::Lost::NotHttp2(_),
                                ..
                            } => self.channel.not_http2(lost).into(),
                            error => status(error, self.channel.server()),
                        }));
                    }
                },
            }
        }
    }

    /// Sends the request, or says what is next.
    fn send(&mut self, sender: &Sender, cx: &Context<'_>) -> Result<(), Status> {
        self.stage = match sender.send(&mut self.request, &self.channel.authority, cx) {
            Ok(call) => Stage::Call(call),
            Err(Unsent::Wait(waiter)) => Stage::Wait(waiter),
            Err(Unsent::Elsewhere(lost)) => {
                self.channel.discard(sender);
                if !self.resend() {
                    let error = driver::StreamError::Lost { lost, unprocessed: true };
                    return Err(status(error, self.channel.server()));
                }
                Stage::Send
            }
            Err(Unsent::NotHttp2(lost)) => return Err(self.channel.not_http2(lost).into()),
            Err(Unsent::TooLarge { limit }) => {
                return Err(Status::resource_exhausted(format!(
                    "the request's headers are larger than the {limit} bytes that the server takes"
                )));
            }
            Err(Unsent::Body(error)) => return Err(status(error, None)),
        };
        Ok(())
    }

    fn resend(&mut self) -> bool {
        self.resends += 1;
        self.resends <= RESENDS
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Poll::Ready(result) = this.advance(cx) {
            return Poll::Ready(result);
        }
        if let Some(deadline) = &mut this.deadline
            && Pin::new(deadline).poll(cx).is_ready()
        {
            // Cancels the call.
            this.stage = Stage::Send;
            return Poll::Ready(Err(deadline_exceeded()));
        }
        Poll::Pending
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::task::Waker;

    use super::*;
    use crate::{Listener, Server};

    fn call(channel: &Channel) -> ResponseFuture {
        let request = Request::post("http://localhost/a.B/C")
            .header("content-type", "application/grpc")
            .body(Body::empty())
            .unwrap();
        channel.clone().call(request)
    }

    /// A channel, and the bare socket at the other end. Nobody accepts another connection.
    async fn connected(directory: &Path) -> (Channel, UnixStream) {
        let path = directory.join("bare.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let channel = Channel::connect(&Address::unix(path).unwrap()).await.unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        (channel, server)
    }

    #[tokio::test]
    async fn the_only_call_is_sent_by_its_caller_and_several_by_one_write() {
        let directory = tempfile::tempdir().unwrap();
        let (channel, mut server) = connected(directory.path()).await;
        let mut octets = [0; 4096];
        // The preface is the driver's.
        while server.read(&mut octets).is_err() {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;

        let mut cx = Context::from_waker(Waker::noop());
        let mut calls = [0; 4].map(|_| call(&channel));
        assert!(Pin::new(&mut calls[0]).poll(&mut cx).is_pending());
        let first = server.read(&mut octets).expect("nothing else has run");
        let headers = 1;
        assert_eq!((octets[3], octets[8]), (headers, 1));
        for call in &mut calls[1..] {
            assert!(Pin::new(call).poll(&mut cx).is_pending());
        }
        assert!(server.read(&mut octets).is_err(), "they are left to the driver");
        let others = loop {
            tokio::task::yield_now().await;
            if let Ok(octets) = server.read(&mut octets) {
                break octets;
            }
        };
        let streams: Vec<u8> = frames(&octets[..others]).map(|frame| frame[8]).collect();
        assert_eq!(streams, [3, 5, 7], "after one of {first} octets");
    }

    fn frames(mut octets: &[u8]) -> impl Iterator<Item = &[u8]> {
        std::iter::from_fn(move || {
            let len = u32::from_be_bytes([0, *octets.first()?, octets[1], octets[2]]);
            let (frame, rest) = octets.split_at(9 + len as usize);
            octets = rest;
            Some(frame)
        })
    }

    #[tokio::test]
    async fn what_a_caller_cannot_send_the_driver_does() {
        let directory = tempfile::tempdir().unwrap();
        let (channel, mut server) = connected(directory.path()).await;
        let mut cx = Context::from_waker(Waker::noop());
        let sender = channel.0.current().unwrap();
        let (mut octets, mut some) = (Vec::new(), [0; 64]);
        let mut last = 0;
        let waiting = loop {
            // The driver sends how the one before ended, so that this one is alone. If there is just
            // no room for that, some is made.
            for turn in 0.. {
                if !sender.has_unsent() {
                    break;
                }
                tokio::task::yield_now().await;
                if turn > 100 {
                    let len = server.read(&mut some).unwrap();
                    octets.extend_from_slice(&some[..len]);
                }
            }
            let mut call = call(&channel);
            assert!(Pin::new(&mut call).poll(&mut cx).is_pending());
            last += 1;
            if sender.has_unsent() {
                break call;
            }
        };
        assert!(last > 10, "the socket was full after {last} calls");
        while sender.has_unsent() {
            tokio::task::yield_now().await;
            let _ = server.read_to_end(&mut octets);
        }
        let _ = server.read_to_end(&mut octets);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
        let last_frame = frames(&octets[preface..]).last().unwrap();
        assert_eq!(last_frame[5..9], u32::to_be_bytes(2 * last - 1), "nothing is lost");

        drop((server, waiting));
        while sender.is_open() {
            let error = call(&channel).await.unwrap_err();
            assert_eq!(error.code(), tonic::Code::Unavailable, "{error:?}");
        }
    }

    /// 2^30 calls take days; what comes after them does not.
    #[tokio::test]
    async fn a_connection_without_identifiers_is_followed_by_another() {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::unix(directory.path().join("ids.sock")).unwrap();
        let listener = Listener::bind(&address).await.unwrap();
        tokio::spawn(Server::new().serve(listener));
        let channel = Channel::connect(&address).await.unwrap();
        let first = channel.0.current().unwrap();
        first.leave_identifiers(3);
        for call in 0..6 {
            let next = self::call(&channel);
            // There is no such service, which it takes a server to say.
            let response = next.await.unwrap();
            assert_eq!(response.headers()["grpc-status"], "12");
            let same = channel.0.current().unwrap().is_same(&first);
            assert_eq!(same, call < 3, "call {call}");
        }
    }
}
