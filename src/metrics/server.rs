//! The metrics of a server.

use ::metrics::{Label, Unit, counter, gauge, histogram};
use ::metrics::{describe_counter, describe_gauge, describe_histogram};

use super::{Metrics, transport};
use crate::observer::Event;

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

pub(super) fn describe() {
    describe_histogram!(DURATION, Unit::Seconds, "How long calls took");
    describe_counter!(STARTED, Unit::Count, "Calls that have begun");
    describe_histogram!(SENT, Unit::Bytes, "Messages of a call that were handed to the connection");
    describe_histogram!(RECEIVED, Unit::Bytes, "Messages of a call that were read");
    describe_gauge!(ACTIVE, Unit::Count, "Calls that have begun and not ended");
    describe_gauge!(CONNECTIONS, Unit::Count, "Connections that are open");
    describe_counter!(OPENED, Unit::Count, "Connections that were opened");
    describe_counter!(CLOSED, Unit::Count, "Connections that were closed");
    describe_counter!(REFUSED, Unit::Count, "Connections that may not come in");
    describe_counter!(GO_AWAYS, Unit::Count, "Connections that clients were told to leave");
}

pub(super) fn observe(metrics: &Metrics, event: &Event<'_>) {
    match event {
        Event::CallBegan { .. } => {
            counter!(STARTED).increment(1);
            gauge!(ACTIVE).increment(1);
        }
        Event::CallEnded { call, end } => {
            let labels = metrics.of_call(call, end);
            gauge!(ACTIVE).decrement(1);
            histogram!(DURATION, labels.clone()).record(end.duration().as_secs_f64());
            histogram!(SENT, labels.clone()).record(end.sent_bytes() as f64);
            histogram!(RECEIVED, labels).record(end.received_bytes() as f64);
        }
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
