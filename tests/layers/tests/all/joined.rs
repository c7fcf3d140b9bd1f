//! The programs of `examples/tracing`, and a collector's stand-in that tells what they export.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use samehost::{Address, Server};
use samehost_test_support::nix_signal::{Signal, kill};
use samehost_test_support::{Running, Transport, binary, directory, socket_in};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tonic::{Request, Response, Status};

/// Keeps the spans that come, each with the name of the service that sent it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.lock().unwrap();
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.unwrap_or_default().attributes;
            let name = attributes.into_iter().find(|one| one.key == "service.name");
            let name = name.and_then(|name| name.value).and_then(|value| value.value);
            let Some(Value::StringValue(name)) = name else { panic!("{name:?} is no name") };
            let of_scopes = of_resource.scope_spans.into_iter();
            spans.extend(of_scopes.flat_map(|it| it.spans).map(|span| (name.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn span(&self, service: &str, name: &str) -> Span {
        let spans = self.0.lock().unwrap();
        let mut found = spans.iter().filter(|(of, span)| of == service && span.name == name);
        let (Some((_, span)), None) = (found.next(), found.next()) else {
            panic!("not one {name} of {service}: {spans:?}");
        };
        span.clone()
    }
}

/// A program of the example, which exports to `collector`.
fn program(name: &str, collector: &Address) -> Command {
    let endpoint = match collector.as_path() {
        Some(path) => format!("unix://{}", path.display()),
        None => format!("http://{collector}"),
    };
    let mut command = Command::new(binary().with_file_name(name));
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

async fn client_and_server_are_one_trace(transport: Transport) {
    let collector = Collector::default();
    let collecting = Server::new().add_service(TraceServiceServer::new(collector.clone()));
    let collecting = Running::start(transport, collecting).await;
    let folder = directory();
    let address = match transport {
        Transport::Unix => socket_in(folder.path()),
        Transport::Tcp => "127.0.0.1:0".parse().unwrap(),
    };

    let mut server =
        program("tracing-server", &collecting.address).arg(address.to_string()).spawn().unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = said.next_line().await.unwrap().unwrap();
    let address = line.strip_prefix("listening on ").unwrap();
    let client =
        program("tracing-client", &collecting.address).arg(address).output().await.unwrap();
    assert_eq!(client.stdout, b"pong\n", "{client:?}");
    kill(server.id().unwrap(), Signal::INT);
    assert!(server.wait().await.unwrap().success());

    let work = collector.span("ping-client", "work");
    let call = collector.span("ping-client", "ping.v1.PingService/Ping");
    let answer = collector.span("ping-server", "ping.v1.PingService/Ping");
    assert_eq!((call.kind(), answer.kind()), (SpanKind::Client, SpanKind::Server));
    assert!(work.parent_span_id.is_empty());
    assert_eq!(call.parent_span_id, work.span_id);
    assert_eq!(answer.parent_span_id, call.span_id);
    assert_eq!([&call.trace_id, &answer.trace_id], [&work.trace_id; 2]);
}

#[tokio::test]
async fn client_and_server_are_one_trace_over_unix_sockets() {
    client_and_server_are_one_trace(Transport::Unix).await;
}

#[tokio::test]
async fn client_and_server_are_one_trace_over_tcp() {
    client_and_server_are_one_trace(Transport::Tcp).await;
}
