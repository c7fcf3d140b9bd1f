//! The spans of both ends: one for each connection, and for each call if that is asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use samehost::ping::{ConverseRequest, PingRequest, PingResponse, PingServiceClient};
use samehost::{Address, Channel, Server};
use tonic::{Response, Status};
use tracing::Instrument;

use crate::support::spans::{Span, Spans};
use crate::support::{Running, Scripted, Transport, eventually_async};

/// Each test runs in one thread, which has the test's subscriber.
macro_rules! on_each_transport {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn unix() {
                super::$name(Transport::Unix).await;
            }

            #[tokio::test]
            async fn tcp() {
                super::$name(Transport::Tcp).await;
            }
        }
    )+};
}

on_each_transport!(
    a_connection_has_a_span_that_names_both_ends,
    a_channels_connection_has_a_span_of_its_own,
    a_call_has_a_span_of_its_own,
    a_channels_call_has_a_span_within_its_callers,
    calls_have_no_spans_unless_asked_for,
);

/// The server's address, by the names of OpenTelemetry's conventions.
fn server(address: &Address) -> Vec<(&'static str, String)> {
    match address.as_path() {
        Some(path) => vec![("server.address", path.display().to_string())],
        None => {
            let text = address.to_string();
            let (ip, port) = text.rsplit_once(':').unwrap();
            vec![("server.address", ip.to_owned()), ("server.port", port.to_owned())]
        }
    }
}

fn assert_fields(span: &Span, expected: Vec<(&'static str, String)>) {
    assert_eq!(span.fields, BTreeMap::from_iter(expected), "{}", span.name);
}

async fn a_connection_has_a_span_that_names_both_ends(transport: Transport) {
    let (spans, _guard) = Spans::start();
    let running = Running::ping(transport).await;
    let client = running.channel().await;
    PingServiceClient::new(client.clone()).ping(PingRequest::ping()).await.unwrap();
    drop(client);
    let ended = |name| spans.named(name).iter().any(|one| one.ended);
    eventually_async("the span's end", || ended("connection")).await;
    let [span] = &spans.named("connection")[..] else { panic!("one connection") };
    assert_fields(span, of_connection(transport, &running.address, span));
}

async fn a_channels_connection_has_a_span_of_its_own(transport: Transport) {
    const NAME: &str = "channel connection";
    let (spans, _guard) = Spans::start();
    let running = Running::ping(transport).await;
    // It outlives the call that opens it.
    let client = Channel::builder(&running.address).connect_lazy();
    async {
        PingServiceClient::new(client.clone()).ping(PingRequest::ping()).await.unwrap();
    }
    .instrument(tracing::info_span!("caller"))
    .await;
    let [span] = &spans.named(NAME)[..] else { panic!("one connection") };
    assert!(!span.ended);
    assert_eq!(span.parent, None);
    assert_fields(span, of_connection(transport, &running.address, span));
    drop(client);
    eventually_async("the span's end", || spans.named(NAME)[0].ended).await;
    // An attempt that fails is no connection.
    let address = running.address.clone();
    let _folder = running.stop().await;
    Channel::connect(&address).await.unwrap_err();
    assert_eq!(spans.named(NAME).len(), 1);
}

/// The fields of a connection of this process with itself.
fn of_connection(
    transport: Transport,
    address: &Address,
    span: &Span,
) -> Vec<(&'static str, String)> {
    let mut expected = server(address);
    match transport {
        Transport::Unix => {
            let command = std::fs::read_to_string("/proc/self/comm").unwrap();
            expected.extend([
                ("network.transport", "unix".to_owned()),
                ("uid", rustix::process::geteuid().as_raw().to_string()),
                ("gid", rustix::process::getegid().as_raw().to_string()),
                ("pid", std::process::id().to_string()),
                ("command", command.trim_end().to_owned()),
            ]);
        }
        Transport::Tcp => {
            let port = span.fields["network.peer.port"].clone();
            assert!(port.parse::<u16>().is_ok(), "{port}");
            expected.extend([
                ("network.transport", "tcp".to_owned()),
                ("network.peer.address", "127.0.0.1".to_owned()),
                ("network.peer.port", port),
            ]);
        }
    }
    expected
}

/// Returns a server that answers within a span of its own, and fails or delays if asked to.
fn nested() -> Server {
    let service = Scripted::default().on_ping(|request| async move {
        tracing::info_span!("handler").in_scope(|| ());
        match &*request.into_inner().message {
            "fail" => Err(Status::not_found("as asked for")),
            "late" => std::future::pending().await,
            _ => Ok(Response::new(PingResponse::default())),
        }
    });
    service.server()
}

async fn a_call_has_a_span_of_its_own(transport: Transport) {
    let (spans, _guard) = Spans::start();
    let running = Running::start(transport, nested().trace_calls(true)).await;
    let mut client = PingServiceClient::new(running.channel().await);
    let request = |message: &str| PingRequest { message: message.into(), ..Default::default() };
    client.ping(PingRequest::ping()).await.unwrap();
    client.ping(request("fail")).await.unwrap_err();
    let mut late = tonic::Request::new(request("late"));
    late.set_timeout(Duration::from_millis(300));
    client.ping(late).await.unwrap_err();
    // The status comes in trailers.
    let wrong = ConverseRequest { message: "no".into(), ..Default::default() };
    let mut pongs = client.converse(tokio_stream::iter([wrong])).await.unwrap().into_inner();
    pongs.message().await.unwrap_err();

    let ended = || spans.named("call").iter().filter(|one| one.ended).count();
    eventually_async("the spans' ends", || ended() == 4).await;
    let calls = spans.named("call");
    let late = calls[2].fields["rpc.response.status_code"].clone();
    // Either end's timer may be first.
    assert!(["DEADLINE_EXCEEDED", "CANCELLED"].contains(&&*late), "{late}");
    let (ping, converse) = ("ping.v1.PingService/Ping", "ping.v1.PingService/Converse");
    let made = [(ping, "OK"), (ping, "NOT_FOUND"), (ping, &late), (converse, "INVALID_ARGUMENT")];
    for (span, (method, code)) in calls.iter().zip(made) {
        assert_eq!(span.parent, None, "a connection may last for days");
        let mut expected = server(&running.address);
        expected.extend([
            ("otel.name", method.to_owned()),
            ("otel.kind", "server".to_owned()),
            ("rpc.system.name", "grpc".to_owned()),
            ("rpc.method", method.to_owned()),
            ("rpc.response.status_code", code.to_owned()),
        ]);
        expected.extend((code != "OK").then(|| ("error.type", code.to_owned())));
        assert_fields(span, expected);
    }
    let handlers = spans.named("handler");
    assert_eq!(handlers.len(), 3);
    assert!(handlers.iter().all(|one| one.parent == Some("call")), "{handlers:?}");
}

async fn a_channels_call_has_a_span_within_its_callers(transport: Transport) {
    let (spans, _guard) = Spans::start();
    let running = Running::start(transport, nested()).await;
    let channel = Channel::builder(&running.address).trace_calls(true).connect().await.unwrap();
    let mut client = PingServiceClient::new(channel);
    let fail = PingRequest { message: "fail".into(), ..Default::default() };
    async {
        client.ping(PingRequest::ping()).await.unwrap();
        client.ping(fail).await.unwrap_err();
    }
    .instrument(tracing::info_span!("caller"))
    .await;
    let calls = spans.named("call");
    for (span, code) in calls.iter().zip(["OK", "NOT_FOUND"]) {
        assert_eq!(span.parent, Some("caller"));
        assert!(span.ended);
        let mut expected = server(&running.address);
        expected.extend([
            ("otel.name", "ping.v1.PingService/Ping".to_owned()),
            ("otel.kind", "client".to_owned()),
            ("rpc.system.name", "grpc".to_owned()),
            ("rpc.method", "ping.v1.PingService/Ping".to_owned()),
            ("rpc.response.status_code", code.to_owned()),
        ]);
        expected.extend((code != "OK").then(|| ("error.type", code.to_owned())));
        assert_fields(span, expected);
    }
    assert_eq!(calls.len(), 2);
}

async fn calls_have_no_spans_unless_asked_for(transport: Transport) {
    let (spans, _guard) = Spans::start();
    let running = Running::start(transport, nested()).await;
    let mut client = PingServiceClient::new(running.channel().await);
    client.ping(PingRequest::ping()).await.unwrap();
    assert!(spans.named("call").is_empty());
    assert_eq!(spans.named("handler")[0].parent, Some("connection"));
}
