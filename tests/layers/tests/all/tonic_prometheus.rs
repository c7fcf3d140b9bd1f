//! tonic_prometheus_layer's `MetricsLayer` and `MetricsChannel`. Its registry is the process's, and so there
//! is one test.

use std::collections::BTreeMap;

use samehost::Server;
use samehost_test_support::{Running, Transport};
use tonic::Code;
use tonic_prometheus_layer::{MetricsChannel, MetricsLayer};

use crate::calls;

#[tokio::test]
async fn calls_are_counted_on_the_server_and_without_their_names_on_the_client() {
    let transports = [Transport::Unix, Transport::Tcp];
    for transport in transports {
        let server = calls::services(Server::new().layer(MetricsLayer::new()));
        let running = Running::start(transport, server).await;
        let channel = running.channel().await;
        calls::make(|| MetricsChannel::new(channel.clone())).await;
    }

    let mut expected = BTreeMap::<String, usize>::new();
    let mut count = |metric: String| *expected.entry(metric).or_default() += transports.len();
    for (service, method, code) in calls::MADE {
        // It looks at a response's head alone.
        let code = match code {
            Code::InvalidArgument if method != "Converse" => "INVALID_ARGUMENT",
            Code::NotFound => "NOT_FOUND",
            _ => "OK",
        };
        count(format!(
            "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_service=\"{service}\"}}"
        ));
        // The release is built on tonic 0.13 and looks for a method's name as that one leaves it: with any
        // client of tonic 0.14's, names are empty.
        count(format!(
            "grpc_client_handled_total{{grpc_code=\"{code}\",grpc_method=\"\",grpc_service=\"\"}}"
        ));
    }
    let metrics = tonic_prometheus_layer::metrics::encode_to_string().unwrap();
    let handled = metrics.lines().filter(|line| line.contains("_handled_total{"));
    let seen: BTreeMap<_, usize> = handled
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(metric, count)| (metric.to_owned(), count.parse().unwrap()))
        .collect();
    assert_eq!(seen, expected);
}
