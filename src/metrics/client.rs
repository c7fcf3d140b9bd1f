//! The metrics of a channel.

use ::metrics::{Label, Unit, counter, gauge, histogram};
use ::metrics::{describe_counter, describe_gauge, describe_histogram};

use super::{Metrics, transport};
use crate::address::Address;
use crate::observer::{ConnectionInfo, Event, server_address};

const DURATION: &str = "rpc.client.call.duration";

/// This metric and the others with its prefix are those of gRFC A66.
const ATTEMPTS: &str = "grpc.client.attempt.started";

const SENT: &str = "grpc.client.attempt.sent_total_compressed_message_size";

const RECEIVED: &str = "grpc.client.attempt.rcvd_total_compressed_message_size";

/// This metric and the next one are those of gRFC A96.
const RETRIES: &str = "grpc.client.call.retries";

const RESENDS: &str = "grpc.client.call.transparent_retries";

const ACTIVE: &str = "samehost.client.calls";

const WAITED: &str = "samehost.client.call.waited";

/// The metrics of connections are those of gRFC A94.
const CONNECTIONS: &str = "grpc.subchannel.open_connections";

const OPENED: &str = "grpc.subchannel.connection_attempts_succeeded";

const FAILED: &str = "grpc.subchannel.connection_attempts_failed";

const CLOSED: &str = "grpc.subchannel.disconnections";

pub(super) fn describe() {
    describe_histogram!(DURATION, Unit::Seconds, "How long calls took");
    describe_counter!(ATTEMPTS, Unit::Count, "Attempts to make a call");
    describe_histogram!(SENT, Unit::Bytes, "Messages of a call that were handed to the connection");
    describe_histogram!(RECEIVED, Unit::Bytes, "Messages of a call that were read");
    describe_histogram!(RETRIES, Unit::Count, "How often a call was made again by policy");
    describe_histogram!(RESENDS, Unit::Count, "How often a call was sent again, not processed");
    describe_gauge!(ACTIVE, Unit::Count, "Calls that were made and have not ended");
    describe_histogram!(WAITED, Unit::Seconds, "How long calls waited to be sent");
    describe_gauge!(CONNECTIONS, Unit::Count, "Connections that are open");
    describe_counter!(OPENED, Unit::Count, "Connections that were opened");
    describe_counter!(FAILED, Unit::Count, "Attempts to connect that failed");
    describe_counter!(CLOSED, Unit::Count, "Connections that were closed");
}

pub(super) fn observe(metrics: &Metrics, event: &Event<'_>) {
    match event {
        Event::CallBegan { .. } => gauge!(ACTIVE).increment(1),
        Event::CallEnded { call, end } => {
            let mut labels = metrics.of_call(call, end);
            gauge!(ACTIVE).decrement(1);
            let method = vec![labels[1].clone()];
            let again = end.retries() + end.resends();
            counter!(ATTEMPTS, method.clone()).increment(1 + u64::from(again));
            histogram!(WAITED, method.clone()).record(end.waited().as_secs_f64());
            if end.retries() > 0 {
                histogram!(RETRIES, method.clone()).record(f64::from(end.retries()));
            }
            if end.resends() > 0 {
                histogram!(RESENDS, method).record(f64::from(end.resends()));
            }
            labels.extend(of_server(call.connection().and_then(ConnectionInfo::address)));
            histogram!(DURATION, labels.clone()).record(end.duration().as_secs_f64());
            histogram!(SENT, labels.clone()).record(end.sent_bytes() as f64);
            histogram!(RECEIVED, labels).record(end.received_bytes() as f64);
        }
        Event::ConnectionOpened { connection } => {
            let labels = of_connection(connection);
            counter!(OPENED, labels.clone()).increment(1);
            gauge!(CONNECTIONS, labels).increment(1);
        }
        Event::ConnectionClosed { connection, error, .. } => {
            let mut labels = of_connection(connection);
            gauge!(CONNECTIONS, labels.clone()).decrement(1);
            if error.is_some() {
                labels.push(Label::from_static_parts("error.type", "connection_error"));
            }
            counter!(CLOSED, labels).increment(1);
        }
        Event::ConnectFailed { address, error, .. } => {
            let mut labels = of_server(*address);
            labels.push(Label::new("error.type", format!("{:?}", error.kind())));
            counter!(FAILED, labels).increment(1);
        }
        _ => {}
    }
}

fn of_connection(connection: &ConnectionInfo) -> Vec<Label> {
    let mut labels = of_server(connection.address());
    labels.push(transport(connection.peer()));
    labels
}

/// Returns `server.address` and `server.port`. A channel has only a few of them.
fn of_server(address: Option<&Address>) -> Vec<Label> {
    let Some((address, port)) = address.map(server_address) else { return Vec::new() };
    let port = port.map(|port| Label::new("server.port", port.to_string()));
    [Label::new("server.address", address)].into_iter().chain(port).collect()
}
