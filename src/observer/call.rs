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

/// The observed end of a connection or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// The channel's end.
    Client,
    /// The server's end.
    Server,
}

/// How far a server knows what a client calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It does not have the service, or knows that the service does not have the method.
    Nothing,
    /// It has the service, and does not know its methods.
    Service,
    Method,
}

/// A call that is observed.
#[derive(Clone, Debug)]
pub struct CallInfo {
    side: Side,
    connection: Option<Arc<ConnectionInfo>>,
    path: PathAndQuery,
    known: Known,
}

impl CallInfo {
    pub(super) fn new(
        side: Side,
        connection: Option<Arc<ConnectionInfo>>,
        path: PathAndQuery,
        known: Known,
    ) -> Self {
        Self { side, connection, path, known }
    }

    /// Returns which end is observed.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Returns the full name of its method, such as `ping.v1.PingService/Ping`. On a server the
    /// client sent this name, so it may be anything.
    pub fn method(&self) -> &str {
        self.path.path().trim_start_matches('/')
    }

    /// Returns whether the server has the service and the method. It knows the methods of the services of
    /// `samehost-build` that were added as they are; of any other service it may have all. A channel
    /// assumes that the server has both.
    pub fn service_is_known(&self) -> bool {
        self.known != Known::Nothing
    }

    /// Returns whether the method is one that the server knows. A channel's methods are all known.
    #[cfg(feature = "metrics")]
    pub(crate) fn method_is_known(&self) -> bool {
        self.known == Known::Method
    }

    /// Returns the connection that carries it. A channel's call has one once it was answered: the
    /// connection of the answer.
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
    /// How often the channel's policy had the call made again.
    pub(crate) retries: u32,
    /// How often it was sent again without the policy, because no server had processed it.
    pub(crate) resends: u32,
    /// How long it waited for a connection, a slot, or the next attempt.
    pub(crate) waited: Duration,
}

impl CallEnd {
    /// Returns its status. CANCELLED means that the call was given up before it had a status: the
    /// channel's caller dropped it, or the server's client cancelled it. INTERNAL means that the
    /// handler panicked.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Returns how long it took from its beginning.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Returns how many bytes of messages this end has sent: handed to the connection. A peer that cancels
    /// the call may not have got all of them. They are counted as on the wire: compressed, and each
    /// message with its prefix of five bytes. A request that was sent several times counts once.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Returns how many bytes of messages have arrived and were read.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Channel: returns how often the call was made again by the channel's
    /// [`RetryPolicy`](crate::RetryPolicy).
    pub fn retries(&self) -> u32 {
        self.attempts.retries
    }

    /// Channel: returns how often it was sent again because no server had processed it (gRFC A6
    /// calls these retries transparent).
    pub fn resends(&self) -> u32 {
        self.attempts.resends
    }

    /// Channel: returns how long it waited for a connection, for a slot (the server takes a limited
    /// number of calls at a time), or for the next attempt.
    pub fn waited(&self) -> Duration {
        self.attempts.waited
    }
}

/// Tells the observers of one call: that it began when this value is made, and that it ended when
/// this value is dropped.
#[derive(Debug)]
pub(crate) struct CallObservation {
    observers: Observers,
    call: CallInfo,
    began: Instant,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    attempts: Attempts,
    code: Option<Code>,
    /// Whether the call's own code runs right now, or has panicked.
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

    /// Returns the observation of a channel's call.
    pub(crate) fn of_channel(observers: &Observers, path: &PathAndQuery) -> Self {
        let call = CallInfo::new(Side::Client, None, path.clone(), Known::Method);
        Self::began(observers.clone(), call)
    }

    /// Runs a channel's code within its span. That code is the library's, and does not panic.
    pub(crate) fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        self.span.in_scope(run)
    }

    /// Notes that a channel's call was answered on `connection`.
    pub(crate) fn answered(&mut self, connection: Option<Arc<ConnectionInfo>>) {
        if let Some((address, port)) =
            connection.as_ref().and_then(|it| it.address()).map(server_address)
        {
            self.span.record("server.address", address);
            self.span.record("server.port", port);
        }
        self.call.connection = connection;
    }

    /// Returns how often a channel's call was made so far.
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

    /// Returns the counter for bytes of messages that arrive.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// Returns the counter for bytes of messages that are sent.
    pub(crate) fn sent_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes that what was counted as sent has not left this end.
    pub(crate) fn sent_nothing(&mut self) {
        self.sent.store(0, Ordering::Relaxed);
    }

    /// Counts bytes of messages that have come.
    pub(crate) fn received_more(&mut self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes that a response's body has ended with these trailers.
    pub(crate) fn ended(&mut self, trailers: Option<&HeaderMap>) {
        trailers.into_iter().for_each(|trailers| self.fields(trailers));
        self.ended_with(Code::Unknown);
    }

    /// Looks for the status in a response's headers or trailers.
    pub(crate) fn fields(&mut self, fields: &HeaderMap) {
        if let Some(code) = fields.get("grpc-status") {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
    }

    /// Notes what a channel's caller has read of the response. Returns itself unless that was the
    /// end.
    pub(crate) fn read(
        mut self: Box<Self>,
        next: &Option<Result<Frame<Bytes>, Status>>,
    ) -> Option<Box<Self>> {
        match next {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.received_more(data.len());
                    return Some(self);
                }
                self.ended(frame.trailers_ref());
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

/// Returns a span whose fields have the names of OpenTelemetry's conventions for RPC, v1.45.0.
fn span(call: &CallInfo) -> Span {
    let method = call.method();
    let kind = match call.side() {
        Side::Client => "client",
        Side::Server => "server",
    };
    let connection = call.connection();
    let address = connection.and_then(ConnectionInfo::address).map(server_address);
    let (address, port) = address.map_or((None, None), |(address, port)| (Some(address), port));
    // A server's connection may last for days, so its span is not the parent of its calls' spans.
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

/// Returns the name of a status code as gRPC writes it.
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
