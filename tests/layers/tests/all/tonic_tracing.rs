//! tonic-tracing-opentelemetry's `OtelGrpcLayer`s.

use opentelemetry::trace::{SpanKind, TraceContextExt};
use samehost::Server;
use samehost_layers::{Spans, attribute, on_unix_and_tcp};
use samehost_test_support::{Running, Transport};
use tonic::Code;
use tonic_tracing_opentelemetry::middleware::{client, server};
use tower::Layer;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::calls;

on_unix_and_tcp!(the_servers_spans_are_children_of_the_clients);

async fn the_servers_spans_are_children_of_the_clients(transport: Transport) {
    let spans = Spans::start();
    let served = Server::new().layer(server::OtelGrpcLayer::default());
    let running = Running::start(transport, calls::services(served)).await;
    let channel = running.channel().await;
    let work = tracing::info_span!("work");
    let trace = work.context().span().span_context().trace_id();
    calls::make(|| client::OtelGrpcLayer.layer(channel.clone())).instrument(work).await;

    let ended = spans.ended();
    let of = |kind: SpanKind| {
        let spans = ended.iter().filter(|span| span.span_kind == kind);
        spans.filter(|span| span.name != "work").collect::<Vec<_>>()
    };
    let (clients, servers) = (of(SpanKind::Client), of(SpanKind::Server));
    assert_eq!((clients.len(), servers.len()), (calls::MADE.len(), calls::MADE.len()));
    for (number, (service, method, code)) in calls::MADE.into_iter().enumerate() {
        let (client, server) = (clients[number], servers[number]);
        for span in [client, server] {
            assert_eq!(span.name, format!("{service}/{method}"));
            assert_eq!(span.span_context.trace_id(), trace);
            // It looks at a response's head alone.
            let code = if method == "Converse" { Code::Ok } else { code };
            let seen = attribute(span, "rpc.grpc.status_code");
            assert_eq!(seen, Some((code as i32).to_string()), "{span:?}");
        }
        assert_eq!(server.parent_span_id, client.span_context.span_id());
    }
}
