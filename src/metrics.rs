//! [`Metrics`]: an observer that feeds the `metrics` facade.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use ::metrics::{Label, Unit, counter, gauge, histogram};
use ::metrics::{describe_counter, describe_gauge, describe_histogram};
use tonic::Code;

use crate::observer::{CallEnd, CallInfo, Event, Observer, code_name};
use crate::socket::Peer;

/// Methods that have a value of their own; those that come later are one.
const METHODS: usize = 1_000;

/// What stands for methods that the server does not have, and for those beyond 1,000.
const OTHER: &str = "_OTHER";

/// An [`Observer`] of a server that feeds the [`metrics`] facade, under the names and units of
/// OpenTelemetry's conventions for RPC and, where they have none, of gRPC's own. `docs/observability.md`
/// has all of them in a table. Which recorder takes them in is the program's to install, before this is
/// made.
///
/// A client cannot make values without end: calls of a service that the server does not have, or that end
/// with UNIMPLEMENTED, are all of the method `_OTHER`, as are those of methods beyond the first 1,000.
///
/// ```
/// use samehost::{Metrics, Server};
///
/// let server = Server::new().observer(Metrics::new());
/// ```
#[derive(Debug)]
pub struct Metrics {
    methods: Mutex<HashSet<String>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Bounds of the buckets for durations, in seconds, which resolve the microseconds that a call takes
    /// on one host: 10 µs to 10 s. A recorder whose histograms have buckets has to be told.
    pub const DURATION_BUCKETS: [f64; 19] = [
        0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02,
        0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
    ];

    /// The same for the bytes of a call's messages: 64 B to 64 MiB.
    pub const SIZE_BUCKETS: [f64; 11] = [
        64.0,
        256.0,
        1024.0,
        4096.0,
        16_384.0,
        65_536.0,
        262_144.0,
        1_048_576.0,
        4_194_304.0,
        16_777_216.0,
        67_108_864.0,
    ];

    /// Describes the metrics to the recorder that is installed.
    pub fn new() -> Self {
        describe_histogram!(DURATION, Unit::Seconds, "How long calls took");
        describe_counter!(STARTED, Unit::Count, "Calls that have begun");
        describe_histogram!(SENT, Unit::Bytes, "Messages of a call that were sent");
        describe_histogram!(RECEIVED, Unit::Bytes, "Messages of a call that were read");
        describe_gauge!(ACTIVE, Unit::Count, "Calls that have begun and not ended");
        describe_gauge!(CONNECTIONS, Unit::Count, "Connections that are open");
        describe_counter!(OPENED, Unit::Count, "Connections that were opened");
        describe_counter!(CLOSED, Unit::Count, "Connections that were closed");
        describe_counter!(REFUSED, Unit::Count, "Connections that may not come in");
        describe_counter!(GO_AWAYS, Unit::Count, "Connections that clients were told to leave");
        Self { methods: Mutex::default() }
    }

    /// A method's name, if there is room for another one.
    fn method(&self, call: &CallInfo, code: Code) -> Label {
        let method = call.method();
        if !call.service_is_known() || code == Code::Unimplemented {
            return Label::from_static_parts("rpc.method", OTHER);
        }
        let mut methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        if !methods.contains(method) {
            if methods.len() >= METHODS {
                return Label::from_static_parts("rpc.method", OTHER);
            }
            methods.insert(method.to_owned());
        }
        Label::new("rpc.method", method.to_owned())
    }

    fn ended(&self, call: &CallInfo, end: &CallEnd) {
        let code = code_name(end.code());
        let mut labels = vec![
            Label::from_static_parts("rpc.system.name", "grpc"),
            self.method(call, end.code()),
            Label::from_static_parts("rpc.response.status_code", code),
        ];
        if end.code() != Code::Ok {
            labels.push(Label::from_static_parts("error.type", code));
        }
        gauge!(ACTIVE).decrement(1);
        histogram!(DURATION, labels.clone()).record(end.duration().as_secs_f64());
        histogram!(SENT, labels.clone()).record(end.sent_bytes() as f64);
        histogram!(RECEIVED, labels).record(end.received_bytes() as f64);
    }
}

impl Observer for Metrics {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::CallBegan { .. } => {
                counter!(STARTED).increment(1);
                gauge!(ACTIVE).increment(1);
            }
            Event::CallEnded { call, end } => self.ended(call, end),
            Event::ConnectionOpened { connection } => {
                let transport = transport(connection.peer());
                counter!(OPENED, vec![transport.clone()]).increment(1);
                gauge!(CONNECTIONS, vec![transport]).increment(1);
            }
            Event::ConnectionClosed { connection, error, .. } => {
                let mut labels = vec![transport(connection.peer())];
                gauge!(CONNECTIONS, labels.clone()).decrement(1);
                if error.is_some() {
                    labels.push(Label::from_static_parts("error.type", "connection_error"));
                }
                counter!(CLOSED, labels).increment(1);
            }
            Event::ConnectionRefused { peer, reason, .. } => {
                let reason = Label::new("reason", format!("{reason:?}"));
                counter!(REFUSED, vec![transport(peer), reason]).increment(1);
            }
            Event::GoAwaySent { reason, .. } => {
                counter!(GO_AWAYS, vec![Label::new("reason", format!("{reason:?}"))]).increment(1);
            }
            _ => {}
        }
    }
}

const DURATION: &str = "rpc.server.call.duration";

const STARTED: &str = "grpc.server.call.started";

const SENT: &str = "grpc.server.call.sent_total_compressed_message_size";

const RECEIVED: &str = "grpc.server.call.rcvd_total_compressed_message_size";

const ACTIVE: &str = "samehost.server.calls";

const CONNECTIONS: &str = "samehost.server.connections";

const OPENED: &str = "samehost.server.connections.opened";

const CLOSED: &str = "samehost.server.connections.closed";

const REFUSED: &str = "samehost.server.connections.refused";

const GO_AWAYS: &str = "samehost.server.go_aways";

fn transport(peer: &Peer) -> Label {
    let transport = match peer {
        Peer::Unix(_) => "unix",
        Peer::Tcp(_) => "tcp",
        Peer::Unknown => "other",
    };
    Label::from_static_parts("network.transport", transport)
}
