//! [`CallInfo`]: a call as an observer sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::uri::PathAndQuery;
use http_body::Frame;
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::Span;

use super::names::server_address;
use super::{ConnectionInfo, Event, Observers};

/// Which end of a connection or a call is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// The channel's.
    Client,
    /// The server's.
    Server,
}

/// A call that is observed.
#[derive(Clone, Debug)]
pub struct CallInfo {
    side: Side,
    connection: Option<Arc<ConnectionInfo>>,
    path: PathAndQuery,
    known: bool,
}

impl CallInfo {
    pub(super) fn new(
        side: Side,
        connection: Option<Arc<ConnectionInfo>>,
        path: PathAndQuery,
        known: bool,
    ) -> Self {
        Self { side, connection, path, known }
    }

    /// Which end is observed.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The full name of its method, such as `ping.v1.PingService/Ping`. On a server it is what the client
    /// sent, which may be anything.
    pub fn method(&self) -> &str {
        self.path.path().trim_start_matches('/')
    }

    /// Whether the server has the service. A channel takes it for granted.
    pub fn service_is_known(&self) -> bool {
        self.known
    }

    /// The connection that it is made on. A channel's call has one once it was answered: that of the answer.
    pub fn connection(&self) -> Option<&ConnectionInfo> {
        self.connection.as_deref()
    }
}

/// How a call went.
#[derive(Clone, Debug)]
pub struct CallEnd {
    code: Code,
    duration: Duration,
    sent_bytes: u64,
    received_bytes: u64,
    attempts: Attempts,
}

/// How often a channel has made a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempts {
    /// More often than once, by the channel's policy.
    pub(crate) retries: u32,
    /// Without the policy, since no server had processed it.
    pub(crate) resends: u32,
    /// For a connection, a slot, or the next attempt.
    pub(crate) waited: Duration,
}

impl CallEnd {
    /// Its status. CANCELLED where the call was given up before it had one: a channel's caller has dropped
    /// it, or a server's client. INTERNAL where its handler panicked.
    pub fn code(&self) -> Code {
        self.code
    }

    /// How long it took, from its beginning.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Bytes of messages that this end has sent, as they are on the wire: compressed, and each with its
    /// prefix of five bytes.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Bytes of messages that have come and were read.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Channel: how often the call was made again by the channel's [`RetryPolicy`](crate::RetryPolicy).
    pub fn retries(&self) -> u32 {
        self.attempts.retries
    }

    /// Channel: how often it was sent again because no server had processed it (gRFC A6 calls these retries
    /// transparent).
    pub fn resends(&self) -> u32 {
        self.attempts.resends
    }

    /// Channel: how long it waited for a connection, for a slot (the server takes so many calls at a time),
    /// or for the next attempt.
    pub fn waited(&self) -> Duration {
        self.attempts.waited
    }
}

/// Tells of one call: that it began when this is made, and that it ended when it is dropped.
#[derive(Debug)]
pub(crate) struct CallObservation {
    observers: Observers,
    call: CallInfo,
    began: Instant,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    attempts: Attempts,
    code: Option<Code>,
    /// The call's own code runs right now, or has panicked.
    running: bool,
    span: Span,
}

impl CallObservation {
    pub(super) fn began(observers: Observers, call: CallInfo) -> Self {
        observers.tell(&Event::CallBegan { call: &call });
        let span = if observers.0.traces_calls { span(&call) } else { Span::none() };
        Self {
            observers,
            call,
            began: Instant::now(),
            sent: Arc::default(),
            received: Arc::default(),
            attempts: Attempts::default(),
            code: None,
            running: false,
            span,
        }
    }

    /// A channel's.
    pub(crate) fn of_channel(observers: &Observers, path: &PathAndQuery) -> Self {
        let call = CallInfo::new(Side::Client, None, path.clone(), true);
        Self::began(observers.clone(), call)
    }

    /// Runs a channel's code within its span. It is the library's, and does not panic.
    pub(crate) fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        self.span.in_scope(run)
    }

    /// A channel's call was answered on `connection`.
    pub(crate) fn answered(&mut self, connection: Option<Arc<ConnectionInfo>>) {
        if let Some((address, port)) =
            connection.as_ref().and_then(|it| it.address()).map(server_address)
        {
            self.span.record("server.address", address);
            self.span.record("server.port", port);
        }
        self.call.connection = connection;
    }

    /// How often a channel's call was made so far.
    pub(crate) fn attempts(&mut self) -> &mut Attempts {
        &mut self.attempts
    }

    /// Runs the call's own code within its span.
    pub(crate) fn run<T>(&mut self, run: impl FnOnce() -> T) -> T {
        self.running = true;
        let result = self.span.in_scope(run);
        self.running = false;
        result
    }

    /// What counts the bytes of messages that come.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// What counts the bytes of messages that are sent.
    pub(crate) fn sent_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Looks for the status among a response's headers or trailers.
    pub(crate) fn fields(&mut self, fields: &HeaderMap) {
        if let Some(code) = fields.get("grpc-status") {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
    }

    /// A channel's caller has read this of the response. Returns itself unless that was the end.
    pub(crate) fn read(
        mut self: Box<Self>,
        next: &Option<Result<Frame<Bytes>, Status>>,
    ) -> Option<Box<Self>> {
        match next {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.received.fetch_add(data.len() as u64, Ordering::Relaxed);
                    return Some(self);
                }
                frame.trailers_ref().into_iter().for_each(|trailers| self.fields(trailers));
            }
            Some(Err(status)) => self.code = Some(status.code()),
            None => self.ended_with(Code::Unknown),
        }
        None
    }

    pub(crate) fn ended_with(&mut self, code: Code) {
        self.code.get_or_insert(code);
    }
}

impl Drop for CallObservation {
    fn drop(&mut self) {
        let code = match (self.running, self.code) {
            (true, _) => Code::Internal,
            (false, code) => code.unwrap_or(Code::Cancelled),
        };
        self.span.record("rpc.response.status_code", code_name(code));
        if code != Code::Ok {
            self.span.record("error.type", code_name(code));
        }
        let end = CallEnd {
            code,
            duration: self.began.elapsed(),
            sent_bytes: self.sent.load(Ordering::Relaxed),
            received_bytes: self.received.load(Ordering::Relaxed),
            attempts: self.attempts,
        };
        self.observers.tell(&Event::CallEnded { call: &self.call, end: &end });
    }
}

/// With the names of OpenTelemetry's conventions for RPC, v1.45.0.
fn span(call: &CallInfo) -> Span {
    let method = call.method();
    let kind = match call.side() {
        Side::Client => "client",
        Side::Server => "server",
    };
    let connection = call.connection();
    let address = connection.and_then(ConnectionInfo::address).map(server_address);
    let (address, port) = address.map_or((None, None), |(address, port)| (Some(address), port));
    // A server's connection may last for days: it is no parent of its calls.
    let parent = match call.side() {
        Side::Client => Span::current().id(),
        Side::Server => None,
    };
    let span = tracing::info_span!(
        parent: parent,
        "call",
        otel.name = method,
        otel.kind = kind,
        rpc.system.name = "grpc",
        rpc.method = method,
        server.address = address,
        server.port = port,
        rpc.response.status_code = tracing::field::Empty,
        "error.type" = tracing::field::Empty,
    );
    if call.side() == Side::Server {
        span.follows_from(Span::current());
    }
    span
}

/// The name of a status code as gRPC writes it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
