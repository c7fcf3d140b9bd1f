//! [`CallInfo`]: a call as an observer sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::uri::PathAndQuery;
use tokio::time::Instant;
use tonic::Code;
use tracing::Span;

use super::names::server_address;
use super::{ConnectionInfo, Event, Observers};

/// A call that is observed.
#[derive(Clone, Debug)]
pub struct CallInfo {
    connection: Option<Arc<ConnectionInfo>>,
    path: PathAndQuery,
    known: bool,
}

impl CallInfo {
    pub(super) fn new(
        connection: Option<Arc<ConnectionInfo>>,
        path: PathAndQuery,
        known: bool,
    ) -> Self {
        Self { connection, path, known }
    }

    /// The full name of its method, such as `ping.v1.PingService/Ping`. It is what the client sent,
    /// which may be anything.
    pub fn method(&self) -> &str {
        self.path.path().trim_start_matches('/')
    }

    /// Whether the server has the service.
    pub fn service_is_known(&self) -> bool {
        self.known
    }

    /// The connection that it is made on.
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
}

impl CallEnd {
    /// Its status. CANCELLED where the call was given up before it had one, INTERNAL where its handler
    /// panicked.
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
}

/// Tells of one call: that it began when this is made, and that it ended when it is dropped.
#[derive(Debug)]
pub(crate) struct CallObservation {
    observers: Observers,
    call: CallInfo,
    began: Instant,
    sent: u64,
    received: Arc<AtomicU64>,
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
            sent: 0,
            received: Arc::new(AtomicU64::new(0)),
            code: None,
            running: false,
            span,
        }
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

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Looks for the status among a response's headers or trailers.
    pub(crate) fn fields(&mut self, fields: &HeaderMap) {
        if let Some(code) = fields.get("grpc-status") {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
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
            sent_bytes: self.sent,
            received_bytes: self.received.load(Ordering::Relaxed),
        };
        self.observers.tell(&Event::CallEnded { call: &self.call, end: &end });
    }
}

/// With the names of OpenTelemetry's conventions for RPC, v1.45.0.
fn span(call: &CallInfo) -> Span {
    let method = call.method();
    let connection = call.connection();
    let address = connection.and_then(ConnectionInfo::address).map(server_address);
    let (address, port) = address.map_or((None, None), |(address, port)| (Some(address), port));
    tracing::info_span!(
        "call",
        otel.name = method,
        otel.kind = "server",
        rpc.system.name = "grpc",
        rpc.method = method,
        server.address = address,
        server.port = port,
        rpc.response.status_code = tracing::field::Empty,
        "error.type" = tracing::field::Empty,
    )
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
