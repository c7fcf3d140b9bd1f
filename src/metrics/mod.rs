//! [`Metrics`]: an observer that feeds the `metrics` facade.

mod client;
mod server;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use ::metrics::Label;
use tonic::Code;

use crate::observer::{CallEnd, CallInfo, Event, Observer, Side, code_name};
use crate::socket::Peer;

/// How many methods have their own value. All later ones share one.
const METHODS: usize = 1_000;

/// The value for methods that the server may not have, and for those beyond the first 1,000.
const OTHER: &str = "_OTHER";

/// An [`Observer`] of a server or a channel that feeds the [`metrics`] facade. The metrics have the
/// names and units of OpenTelemetry's conventions for RPC. Where these have none, they have gRPC's
/// own. `docs/observability.md` has a table of all. The program has to install a recorder before it
/// makes this value.
///
/// A client cannot make an unlimited number of values. The method is `_OTHER` for calls of a
/// service or a method that the server does not have, for calls that end with UNIMPLEMENTED, and for
/// methods beyond the first 1,000. A server knows the methods of the services of `samehost-build` that
/// were added as they are. A method of another service, such as one with an interceptor, is `_OTHER`
/// until the first call of it has succeeded.
///
/// ```
/// use samehost::{Channel, Metrics, Server};
///
/// let server = Server::new().observer(Metrics::new());
/// let channel = Channel::builder("unix:/run/app.sock").observer(Metrics::new());
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
    /// Bounds of the buckets for durations, in seconds: 10 µs to 10 s. They resolve the
    /// microseconds that a call takes on one host. A recorder whose histograms have buckets needs
    /// to be given them.
    pub const DURATION_BUCKETS: [f64; 19] = [
        0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02,
        0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
    ];

    /// Bounds of the buckets for the bytes of a call's messages: 64 B to 64 MiB.
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

    /// Describes the metrics to the installed recorder.
    pub fn new() -> Self {
        server::describe();
        client::describe();
        Self { methods: Mutex::default() }
    }

    /// Returns a method's name if the server has the method and there is room for another one.
    fn method(&self, call: &CallInfo, code: Code) -> Label {
        let method = call.method();
        if !call.service_is_known() || code == Code::Unimplemented {
            return Label::from_static_parts("rpc.method", OTHER);
        }
        let mut methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        if !methods.contains(method) {
            let exists = call.method_is_known() || code == Code::Ok;
            if !exists || methods.len() >= METHODS {
                return Label::from_static_parts("rpc.method", OTHER);
            }
            methods.insert(method.to_owned());
        }
        Label::new("rpc.method", method.to_owned())
    }

    /// Returns the attributes of a call that has ended.
    fn of_call(&self, call: &CallInfo, end: &CallEnd) -> Vec<Label> {
        let code = code_name(end.code());
        let mut labels = vec![
            Label::from_static_parts("rpc.system.name", "grpc"),
            self.method(call, end.code()),
            Label::from_static_parts("rpc.response.status_code", code),
        ];
        if end.code() != Code::Ok {
            labels.push(Label::from_static_parts("error.type", code));
        }
        labels
    }
}

impl Observer for Metrics {
    fn observe(&self, event: &Event<'_>) {
        let side = match event {
            Event::CallBegan { call } | Event::CallEnded { call, .. } => call.side(),
            Event::ConnectionOpened { connection } | Event::ConnectionClosed { connection, .. } => {
                connection.side()
            }
            Event::ConnectFailed { .. } => Side::Client,
            _ => Side::Server,
        };
        match side {
            Side::Client => client::observe(self, event),
            Side::Server => server::observe(self, event),
        }
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
