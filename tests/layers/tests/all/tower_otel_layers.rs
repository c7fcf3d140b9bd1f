//! tower-otel's layers: `trace::GrpcLayer`, and `metrics::HttpLayer`, which knows HTTP alone.

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use samehost::Server;
use samehost_layers::{Spans, attribute, on_unix_and_tcp};
use samehost_test_support::{Running, Transport};
use tonic::Code;
use tower::Layer;
use tower_otel::{metrics, trace};
use tracing::Level;

use crate::calls;

on_unix_and_tcp!(the_servers_spans_are_children_of_the_clients, requests_are_counted_on_both_ends);

async fn the_servers_spans_are_children_of_the_clients(transport: Transport) {
    let spans = Spans::start();
    let served = Server::new().layer(trace::GrpcLayer::server(Level::INFO));
    let running = Running::start(transport, calls::services(served)).await;
    let channel = running.channel().await;
    calls::make(|| trace::GrpcLayer::client(Level::INFO).layer(channel.clone())).await;

    let ended = spans.ended();
    let of =
        |kind: SpanKind| ended.iter().filter(|span| span.span_kind == kind).collect::<Vec<_>>();
    let (clients, servers) = (of(SpanKind::Client), of(SpanKind::Server));
    assert_eq!((clients.len(), servers.len()), (calls::MADE.len(), calls::MADE.len()));
    for (number, (service, method, code)) in calls::MADE.into_iter().enumerate() {
        let (client, server) = (clients[number], servers[number]);
        for span in [client, server] {
            assert_eq!(span.name, format!("{service}/{method}"));
            // It looks at a response's head alone.
            let code = if method == "Converse" { Code::Ok } else { code };
            let seen = attribute(span, "rpc.grpc.status_code");
            assert_eq!(seen, Some((code as i32).to_string()), "{span:?}");
        }
        assert_eq!(server.parent_span_id, client.span_context.span_id());
        assert_eq!(server.span_context.trace_id(), client.span_context.trace_id());
    }
}

async fn requests_are_counted_on_both_ends(transport: Transport) {
    let exporter = InMemoryMetricExporter::default();
    let provider = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(exporter.clone()).build())
        .build();
    let meter = provider.meter("tests");
    let served = Server::new().layer(metrics::HttpLayer::server(&meter));
    let running = Running::start(transport, calls::services(served)).await;
    let channel = running.channel().await;
    let layer = metrics::HttpLayer::client(&meter);
    calls::make(|| layer.layer(channel.clone())).await;
    provider.force_flush().unwrap();

    for name in ["http.server.request.duration", "http.client.request.duration"] {
        let all = exporter.get_finished_metrics().unwrap();
        let mut metrics = all.iter().flat_map(|one| one.scope_metrics()).flat_map(|s| s.metrics());
        let metric = metrics.find(|metric| metric.name() == name).expect(name);
        let AggregatedMetrics::F64(MetricData::Histogram(histogram)) = metric.data() else {
            panic!("{name} is no histogram of numbers");
        };
        let counts: Vec<_> = histogram.data_points().map(|point| point.count()).collect();
        // One value for all: HTTP's status is 200 for each, and the methods of gRPC it does not know.
        assert_eq!(counts, [calls::MADE.len() as u64], "{name}");
    }
}
