//! Headers that are too long, or that HTTP/2 forbids: each fails at most its own call.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use samehost::Channel;
use samehost::ping::{
    Ping, PingRequest, PingResponse, PingServiceClient, PingServiceServer, WatchRequest,
};
use tokio::net::UnixStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use crate::support::{Log, Running, Scripted, Transport, on_both_transports};
use crate::wire::{Peer, block, data, frame, headers, kind, message, request_with};

on_both_transports!(
    a_long_status_message_is_cut_and_costs_no_other_call,
    a_limit_that_both_ends_raise_lets_long_metadata_through,
    forbidden_metadata_is_left_out_by_both_ends,
);

async fn a_long_status_message_is_cut_and_costs_no_other_call(transport: Transport) {
    let service = Scripted::default().on_ping(|_| async {
        let details = vec![7; 5_000].into();
        Err(Status::with_details(Code::InvalidArgument, "a".repeat(105_000), details))
    });
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut watched = client.watch(endless_watch()).await.unwrap().into_inner();
    for _ in 0..600 {
        let status = client.ping(PingRequest::ping()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("aaa") && status.message().ends_with("..."));
        assert!((16_000..16_384).contains(&status.message().len()), "{}", status.message().len());
        assert!(status.details().is_empty());
    }
    watched.message().await.unwrap().expect("the innocent stream goes on");

    // A client with a higher limit gets larger headers.
    let channel = Channel::builder(&server.address).max_header_list_size(200_000);
    let mut client = PingServiceClient::new(channel.connect().await.unwrap());
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!((status.message().len(), status.details().len()), (105_000, 5_000));
}

/// Observers are not told of such a call.
#[tokio::test]
async fn a_request_whose_headers_are_too_large_is_logged() {
    let (log, _guard) = Log::start();
    let server = Running::ping(Transport::Unix).await;
    let stream = UnixStream::connect(server.address.as_path().unwrap()).await.unwrap();
    let mut peer = Peer::client(stream, &[]).await;
    let long = "l".repeat(10_000);
    let block = request_with("/ping.v1.PingService/Ping", &[("x-1", &long), ("x-2", &long)]);
    for (kind, flags, part) in [(1, 1, &block[..16_000]), (9, 4, &block[16_000..])] {
        peer.send(&frame(kind, flags, 1, part)).await;
    }
    peer.until(|frame| frame.stream == 1 && frame.ends_stream()).await;
    assert_eq!(log.lines("its headers are larger than this server takes").len(), 1);
}

/// The server reads it in the same way with layers, and without.
#[tokio::test]
async fn binary_metadata_in_the_trailers_of_a_request_may_be_joined() {
    for has_layer in [false, true] {
        let service = Scripted::default().on_ping(|request| async move {
            let values = request.metadata().get_all_bin("late-bin").iter();
            let values: Vec<_> = values.map(|value| value.to_bytes().unwrap()).collect();
            Ok(Response::new(PingResponse {
                payload: values.concat().into(),
                ..Default::default()
            }))
        });
        let mut server = service.server();
        if has_layer {
            server = server.layer(tower::layer::util::Identity::new());
        }
        let server = Running::start(Transport::Unix, server).await;
        let stream = UnixStream::connect(server.address.as_path().unwrap()).await.unwrap();
        let mut peer = Peer::client(stream, &[]).await;
        let request = [
            headers(1, &request_with("/ping.v1.PingService/Ping", &[]), false),
            data(1, &message(b""), false),
            headers(1, &block(&[("late-bin", "AQI,AwQ=")]), true),
        ];
        peer.send(&request.concat()).await;
        let answer = peer.until(|frame| frame.kind == kind::DATA || frame.ends_stream()).await;
        // Field 2 is `bytes payload`.
        assert!(answer.payload.ends_with(&[0x12, 4, 1, 2, 3, 4]), "{has_layer}: {answer:?}");
    }
}

fn endless_watch() -> WatchRequest {
    WatchRequest { count: 0, ..WatchRequest::default() }
}

async fn a_limit_that_both_ends_raise_lets_long_metadata_through(transport: Transport) {
    let service = Scripted::default().on_ping(|request| async move {
        let mut response = Response::new(PingResponse::default());
        let sent = request.metadata().get("x-long").unwrap();
        response.metadata_mut().insert("x-long", sent.clone());
        Ok(response)
    });
    let ping = |client: &mut PingServiceClient<Channel>| {
        let mut request = tonic::Request::new(PingRequest::ping());
        request.metadata_mut().insert("x-long", "l".repeat(100_000).parse().unwrap());
        let mut client = client.clone();
        async move { client.ping(request).await }
    };
    let server = service.server().max_header_list_size(200_000);
    let server = Running::start(transport, server).await;
    let channel = Channel::builder(&server.address).max_header_list_size(200_000);
    let mut client = PingServiceClient::new(channel.connect().await.unwrap());
    let response = ping(&mut client).await.unwrap();
    assert_eq!(response.metadata().get("x-long").unwrap().len(), 100_000);

    // A client with a lower limit gets an error in place of the headers.
    let mut client = PingServiceClient::new(server.channel().await);
    let status = ping(&mut client).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("16384 bytes"), "{status:?}");
}

fn forbidden() -> MetadataMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "x-private"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("content-length", "5"),
        ("host", "elsewhere"),
        ("x-spaces", " both ends "),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    MetadataMap::from_headers(headers)
}

async fn forbidden_metadata_is_left_out_by_both_ends(transport: Transport) {
    let service = Scripted::default().on_ping(|request| async move {
        let received = request.metadata().clone().into_headers();
        for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "content-length"] {
            assert!(!received.contains_key(name), "{name}");
        }
        assert_eq!(received["x-spaces"], "both ends");
        if request.get_ref().sequence == 1 {
            return Err(Status::with_metadata(Code::Aborted, "as asked", forbidden()));
        }
        let mut response = Response::new(PingResponse::default());
        *response.metadata_mut() = forbidden();
        Ok(response)
    });
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut ping = async |sequence| {
        let mut request = tonic::Request::new(PingRequest { sequence, ..PingRequest::ping() });
        *request.metadata_mut() = forbidden();
        client.ping(request).await
    };
    let received = ping(0).await.unwrap().metadata().clone().into_headers();
    assert_eq!(received["x-spaces"], "both ends");
    assert!(!received.contains_key("upgrade") && !received.contains_key("content-length"));
    let status = ping(1).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Aborted, "as asked"));
    assert!(!status.metadata().contains_key("upgrade"));
}

type Hyper = SendRequest<Empty<Bytes>>;

/// hyper's client sends headers of any size, whatever the server's limit is.
async fn hyper(server: &Running) -> Hyper {
    let stream = UnixStream::connect(server.address.as_path().unwrap()).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

async fn answer(
    client: &mut Hyper,
    kind: Option<&str>,
    metadata: usize,
) -> http::Response<hyper::body::Incoming> {
    let mut request = Request::post("http://localhost/ping.v1.PingService/Watch");
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    let long = "m".repeat(metadata);
    let request = request.header("x-long", long).body(Empty::<Bytes>::new()).unwrap();
    client.send_request(request).await.unwrap()
}

#[tokio::test]
async fn long_metadata_is_refused_for_its_call_alone() {
    let server = Running::ping(Transport::Unix).await;
    let mut client = hyper(&server).await;
    // This is another stream of the same connection.
    let innocent = answer(&mut client, Some("application/grpc"), 0);
    let innocent = innocent.await.into_body().collect();
    for _ in 0..20 {
        for kind in [Some("application/grpc+proto"), None] {
            let response = answer(&mut client, kind, 110_000).await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "application/grpc");
            assert_eq!(response.headers()["grpc-status"], "8");
            let message = response.headers()["grpc-message"].to_str().unwrap();
            assert!(message.contains("16384"), "{message}");
        }
    }
    let response = answer(&mut client, Some("text/html"), 110_000).await;
    assert_eq!(response.status(), 431);
    innocent.await.unwrap();
}

/// A service that copies a request's fields into its response, as echo services do.
#[derive(Clone)]
struct Copied<S>(S);

impl<S> tower::Service<Request<tonic::body::Body>> for Copied<S>
where
    S: tower::Service<
            Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Future: Send + 'static,
        >,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send + 'static>>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let length = request.headers().get("content-length").cloned();
        let answer = self.0.call(request);
        Box::pin(async {
            let mut response = answer.await?;
            response.headers_mut().insert("content-length", length.expect("hyper sends one"));
            Ok(response)
        })
    }
}

/// The request's length in a response would make it malformed (RFC 9113 §8.1.1).
#[tokio::test]
async fn a_copied_content_length_is_not_sent() {
    let server = samehost::Server::new()
        .add_service(PingServiceServer::new(Ping::default()))
        .layer(tower::layer::layer_fn(Copied));
    let server = Running::start(Transport::Unix, server).await;
    let stream = UnixStream::connect(server.address.as_path().unwrap()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://localhost/ping.v1.PingService/Ping")
        .header("content-type", "application/grpc")
        .header("content-length", "5")
        .body(http_body_util::Full::new(Bytes::from_static(&[0; 5])))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert!(!response.headers().contains_key("content-length"));
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
}
