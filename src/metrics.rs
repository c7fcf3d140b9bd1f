//! [`Metrics`]: an observer that feeds the `metrics` facade.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use ::metrics::{Label, Unit, counter, gauge, histogram};
use ::metrics::{describe_counter, describe_gauge, describe_histogram};
use tonic::Code;

use crate::observer::{CallEnd, CallInfo, ConnectionInfo, Event, Observer, Side, code_name};
use crate::socket::Peer;

/// Methods that have a value of their own; those that come later are one.
const METHODS: usize = 1_000;

/// What stands for methods that the server does not have, and for those beyond 1,000.
const OTHER: &str = "_OTHER";

/// An [`Observer`] that feeds the [`metrics`](::metrics) facade, under the names and units of
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
        for (side, names) in [("server", &SERVER), ("client", &CLIENT)] {
            describe_histogram!(
                names.duration,
                Unit::Seconds,
                format!("Calls of a {side}: how long")
            );
            describe_counter!(names.started, Unit::Count, format!("Calls that a {side} has begun"));
            describe_histogram!(names.sent, Unit::Bytes, "Messages of a call that were sent");
            describe_histogram!(names.received, Unit::Bytes, "Messages of a call that were read");
            describe_gauge!(names.active, Unit::Count, "Calls that have begun and not ended");
            describe_gauge!(names.connections, Unit::Count, "Connections that are open");
            describe_counter!(names.opened, Unit::Count, "Connections that were opened");
            describe_counter!(names.closed, Unit::Count, "Connections that were closed");
        }
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
        let names = names(call.connection());
        let code = code_name(end.code());
        let mut labels = vec![
            Label::from_static_parts("rpc.system.name", "grpc"),
            self.method(call, end.code()),
            Label::from_static_parts("rpc.response.status_code", code),
        ];
        if end.code() != Code::Ok {
            labels.push(Label::from_static_parts("error.type", code));
        }
        gauge!(names.active).decrement(1);
        histogram!(names.duration, labels.clone()).record(end.duration().as_secs_f64());
        histogram!(names.sent, labels.clone()).record(end.sent_bytes() as f64);
        histogram!(names.received, labels).record(end.received_bytes() as f64);
    }
}

impl Observer for Metrics {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::CallBegan { call } => {
                let names = names(call.connection());
                counter!(names.started).increment(1);
                gauge!(names.active).increment(1);
            }
            Event::CallEnded { call, end } => self.ended(call, end),
            Event::ConnectionOpened { connection } => {
                let names = names(Some(connection));
                let transport = transport(connection.peer());
                counter!(names.opened, vec![transport.clone()]).increment(1);
                gauge!(names.connections, vec![transport]).increment(1);
            }
            Event::ConnectionClosed { connection, error, .. } => {
                let names = names(Some(connection));
                let mut labels = vec![transport(connection.peer())];
                gauge!(names.connections, labels.clone()).decrement(1);
                if error.is_some() {
                    labels.push(Label::from_static_parts("error.type", "connection_error"));
                }
                counter!(names.closed, labels).increment(1);
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

/// What an end's metrics are called.
struct Names {
    duration: &'static str,
    started: &'static str,
    sent: &'static str,
    received: &'static str,
    active: &'static str,
    connections: &'static str,
    opened: &'static str,
    closed: &'static str,
}

const SERVER: Names = Names {
    duration: "rpc.server.call.duration",
    started: "grpc.server.call.started",
    sent: "grpc.server.call.sent_total_compressed_message_size",
    received: "grpc.server.call.rcvd_total_compressed_message_size",
    active: "samehost.server.calls",
    connections: "samehost.server.connections",
    opened: "samehost.server.connections.opened",
    closed: "samehost.server.connections.closed",
};

const CLIENT: Names = Names {
    duration: "rpc.client.call.duration",
    started: "grpc.client.attempt.started",
    sent: "grpc.client.attempt.sent_total_compressed_message_size",
    received: "grpc.client.attempt.rcvd_total_compressed_message_size",
    active: "samehost.client.calls",
    connections: "grpc.subchannel.open_connections",
    opened: "grpc.subchannel.connection_attempts_succeeded",
    closed: "grpc.subchannel.disconnections",
};

const REFUSED: &str = "samehost.server.connections.refused";

const GO_AWAYS: &str = "samehost.server.go_aways";

fn names(connection: Option<&ConnectionInfo>) -> &'static Names {
    match connection.map(ConnectionInfo::side) {
        Some(Side::Server) => &SERVER,
        Some(Side::Client) | None => &CLIENT,
    }
}

fn transport(peer: &Peer) -> Label {
    let transport = match peer {
        Peer::Unix(_) => "unix",
        Peer::Tcp(_) => "tcp",
        Peer::Unknown => "other",
    };
    Label::from_static_parts("network.transport", transport)
}
