//! Requests that are not gRPC, and what the server's fallback answers to them. The client is hyper's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use samehost::{Address, PeerPolicy, RequestBody};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;

use crate::support::{Running, Transport, eventually_async, on_both_transports, ping_server};

on_both_transports!(
    a_request_may_have_any_body,
    a_large_upload_is_held_by_nobody_once_it_is_read,
    an_answer_to_head_has_a_length_and_no_body,
    some_statuses_have_no_body,
    a_streamed_body_has_the_length_that_its_head_tells,
    headers_that_are_too_large_are_refused_in_http,
    a_connection_beyond_the_limit_is_told_so_in_http,
    an_informational_status_is_a_failure_of_the_service,
);

/// Opens a connection of hyper's.
async fn open(address: &Address) -> SendRequest<Body> {
    match address.as_path() {
        Some(path) => over(UnixStream::connect(path).await.unwrap()).await,
        None => over(TcpStream::connect(address.to_string()).await.unwrap()).await,
    }
}

async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> SendRequest<Body> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let uri = format!("http://localhost{path}");
    Request::builder().method(method).uri(uri).body(body).unwrap()
}

fn get(path: &str) -> Request<Body> {
    request(Method::GET, path, Body::empty())
}

/// Returns the response with its whole body, or an error if it is not complete or malformed.
async fn ask(
    sender: &mut SendRequest<Body>,
    request: Request<Body>,
) -> hyper::Result<Response<Bytes>> {
    sender.ready().await?;
    let (parts, body) = sender.send_request(request).await?.into_parts();
    Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
}

/// Returns the number behind a name in a path's query, such as 3 for "n" in "/a?n=3".
fn number(request: &Request<RequestBody>, name: &str) -> Option<u16> {
    let mut pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(other, _)| *other == name)?.1.parse().ok()
}

fn length(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_LENGTH).map(|length| length.to_str().unwrap())
}

/// Returns a request body that is sent in the pieces that the sender gets.
fn pieces() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = ReceiverStream::new(receiver).map(|piece| Ok::<_, Status>(Frame::data(piece)));
    (sender, Body::new(StreamBody::new(pieces)))
}

async fn a_request_may_have_any_body(transport: Transport) {
    let echo = axum::routing::post(async |text: String| text);
    let echo = echo.put(async |text: String| text);
    let router = axum::Router::new().route("/echo", echo);
    let server = ping_server().fallback(router).fallback_takes_http(true);
    let server = Running::start(transport, server).await;
    let mut sender = open(&server.address).await;
    let text = r#"{"hello":"world"}"#;
    for method in [Method::POST, Method::PUT] {
        for cut in [None, Some(3), Some(6)] {
            let body = match cut {
                None => Body::new(Full::from(text)),
                Some(at) => {
                    let (sender, body) = pieces();
                    tokio::spawn(async move {
                        for piece in [&text[..at], &text[at..]] {
                            sender.send(piece.into()).await.unwrap();
                            tokio::task::yield_now().await;
                        }
                    });
                    body
                }
            };
            let response = ask(&mut sender, request(method.clone(), "/echo", body)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{method} {cut:?}: {response:?}");
            assert_eq!(response.body(), text, "{method} {cut:?}");
        }
    }
}

async fn a_large_upload_is_held_by_nobody_once_it_is_read(transport: Transport) {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 256;
    let read = Arc::new(AtomicUsize::new(0));
    let reads = Arc::clone(&read);
    let count = async move |request: axum::extract::Request| {
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return "the body has failed".to_owned() };
            reads.fetch_add(frame.data_ref().map_or(0, Bytes::len), Ordering::SeqCst);
        }
        reads.load(Ordering::SeqCst).to_string()
    };
    let router = axum::Router::new().route("/upload", axum::routing::post(count));
    let server = ping_server().max_buffered_bytes(4 << 20);
    let mut server = server.fallback(router).fallback_takes_http(true);
    let stats = server.stats();
    let server = Running::start(transport, server).await;
    let mut sender = open(&server.address).await;
    let (upload, body) = pieces();
    let request = request(Method::POST, "/upload", body);
    let response = tokio::spawn(async move { ask(&mut sender, request).await });
    for _ in 0..PIECES {
        // As the length of a message, its second to fifth byte would be 577 MB.
        let piece = br#"{"hello":"w"}   "#.repeat(PIECE / 16);
        let sent = timeout(Duration::from_secs(20), upload.send(piece.into())).await;
        sent.expect("the upload goes on").unwrap();
    }
    eventually_async("all was read", || read.load(Ordering::SeqCst) == PIECES * PIECE).await;
    eventually_async("what was read is not held", || {
        stats.snapshot().buffered_bytes < PIECES * PIECE / 8
    })
    .await;
    drop(upload);
    let response = response.await.unwrap().unwrap();
    assert_eq!(*response.body(), (PIECES * PIECE).to_string());
    eventually_async("nothing is held", || stats.snapshot().buffered_bytes == 0).await;
}

async fn an_answer_to_head_has_a_length_and_no_body(transport: Transport) {
    // axum answers HEAD by itself. The other service sends the same as for GET.
    let router = axum::Router::new().route("/hello", axum::routing::get(async || "hello world"));
    let same_as_get = tower::service_fn(async |request: Request<RequestBody>| {
        let response = Response::builder().header(CONTENT_LENGTH, "11");
        let pieces = tokio_stream::iter([Ok::<_, Status>(Frame::data("hello world".into()))]);
        Ok::<_, tower::BoxError>(match request.uri().path() {
            "/endless" => {
                let pieces = pieces.chain(tokio_stream::pending());
                response.body(Body::new(StreamBody::new(pieces))).unwrap()
            }
            "/no-length" => Response::new(Body::new(StreamBody::new(pieces))),
            _ => response.body(Body::new(Full::from("hello world"))).unwrap(),
        })
    });
    let of_axum = ping_server().fallback(router).fallback_takes_http(true);
    let of_axum = Running::start(transport, of_axum).await;
    let other = ping_server().fallback(same_as_get).fallback_takes_http(true);
    let other = Running::start(transport, other).await;
    for (server, path, expected) in [
        (&of_axum, "/hello", Some("11")),
        (&other, "/hello", Some("11")),
        (&other, "/endless", Some("11")),
        (&other, "/no-length", None),
    ] {
        let mut sender = open(&server.address).await;
        let head = request(Method::HEAD, path, Body::empty());
        let response = ask(&mut sender, head).await.expect(path);
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(length(response.headers()), expected, "{path}");
        assert!(response.body().is_empty(), "{path}");
        // The connection goes on.
        let response = ask(&mut sender, get("/hello")).await.unwrap();
        assert_eq!(response.body(), "hello world");
    }
}

async fn some_statuses_have_no_body(transport: Transport) {
    let fallback = tower::service_fn(async |request: Request<RequestBody>| {
        let mut response = Response::builder().status(number(&request, "status").unwrap());
        if let Some(length) = number(&request, "length") {
            response = response.header(CONTENT_LENGTH, length);
        }
        let body = vec![b'x'; number(&request, "size").unwrap().into()];
        Ok::<_, tower::BoxError>(response.body(Full::new(Bytes::from(body))).unwrap())
    });
    let server = ping_server().fallback(fallback).fallback_takes_http(true);
    let server = Running::start(transport, server).await;
    let mut sender = open(&server.address).await;
    for (query, expected) in [
        ("status=204&size=3", None),
        ("status=204&size=3&length=3", None),
        ("status=204&size=0&length=0", None),
        ("status=205&size=3&length=3", None),
        ("status=205&size=0&length=0", Some("0")),
        ("status=304&size=3", None),
        ("status=304&size=3&length=3", Some("3")),
        ("status=304&size=0&length=5", Some("5")),
    ] {
        let response = ask(&mut sender, get(&format!("/?{query}"))).await.expect(query);
        assert!(query.contains(response.status().as_str()), "{query}: {response:?}");
        assert_eq!(length(response.headers()), expected, "{query}");
        assert!(response.body().is_empty(), "{query}");
    }
}

async fn a_streamed_body_has_the_length_that_its_head_tells(transport: Transport) {
    let fallback = tower::service_fn(async |request: Request<RequestBody>| {
        let size: usize = number(&request, "size").unwrap().into();
        let is_late = request.uri().path() == "/late";
        let pieces = vec![Bytes::from_static(b"12345"); size / 5];
        let pieces = tokio_stream::iter(pieces).then(move |piece| async move {
            if is_late {
                tokio::task::yield_now().await;
            }
            Ok::<_, Status>(Frame::data(piece))
        });
        let response = Response::builder().header(CONTENT_LENGTH, "10");
        Ok::<_, tower::BoxError>(response.body(StreamBody::new(Box::pin(pieces))).unwrap())
    });
    let server = ping_server().fallback(fallback).fallback_takes_http(true);
    let server = Running::start(transport, server).await;
    let mut sender = open(&server.address).await;
    for path in ["/at-once", "/late"] {
        for size in [0, 5, 10, 15] {
            let response = ask(&mut sender, get(&format!("{path}?size={size}"))).await;
            if size == 10 {
                let response = response.expect(path);
                assert_eq!(length(response.headers()), Some("10"), "{path}");
                assert_eq!(response.body(), "1234512345", "{path}");
            } else {
                // The server has reset the stream, before the client finds the length wrong.
                let error = format!("{:?}", response.expect_err(path));
                assert!(error.contains("INTERNAL_ERROR, Remote"), "{size} bytes: {error}");
            }
        }
    }
}

async fn headers_that_are_too_large_are_refused_in_http(transport: Transport) {
    let server = Running::start(transport, ping_server()).await;
    let mut sender = open(&server.address).await;
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
        for kind in [None, Some("text/plain"), Some("application/grpc")] {
            let mut request = request(method.clone(), "/", Body::empty());
            request.headers_mut().insert(COOKIE, "a".repeat(20_000).parse().unwrap());
            if let Some(kind) = kind {
                request.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
            }
            let response = ask(&mut sender, request).await.unwrap();
            let expected = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            assert_eq!(response.status(), expected, "{method} {kind:?}");
            assert!(!response.headers().contains_key("grpc-status"), "{method} {kind:?}");
        }
    }
    let mut request = request(Method::POST, "/ping.v1.PingService/Ping", Body::empty());
    request.headers_mut().insert(COOKIE, "a".repeat(20_000).parse().unwrap());
    request.headers_mut().insert(CONTENT_TYPE, "application/grpc".parse().unwrap());
    assert_eq!(ask(&mut sender, request).await.unwrap().headers()["grpc-status"], "8");
}

async fn a_connection_beyond_the_limit_is_told_so_in_http(transport: Transport) {
    let server = Running::start(transport, ping_server().max_connections(1)).await;
    let mut inside = open(&server.address).await;
    let response = ask(&mut inside, get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let mut outside = open(&server.address).await;
    let response = ask(&mut outside, get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

/// Only a Unix socket knows the peer that a policy decides on.
#[tokio::test]
async fn a_connection_that_the_policy_refuses_is_forbidden_in_http() {
    let server = ping_server().peer_policy(PeerPolicy::predicate(|_| false));
    let server = Running::start(Transport::Unix, server).await;
    let mut sender = open(&server.address).await;
    // The content type alone does not make a call of it.
    let mut request = get("/");
    request.headers_mut().insert(CONTENT_TYPE, "application/grpc".parse().unwrap());
    for request in [get("/"), request] {
        assert_eq!(ask(&mut sender, request).await.unwrap().status(), StatusCode::FORBIDDEN);
    }
}

async fn an_informational_status_is_a_failure_of_the_service(transport: Transport) {
    let fallback = tower::service_fn(async |request: Request<RequestBody>| {
        if request.uri().path() == "/late" {
            tokio::task::yield_now().await;
        }
        let size: usize = number(&request, "size").unwrap().into();
        let response = Response::builder().status(number(&request, "status").unwrap());
        let response = response.header("x-of-the-service", "1");
        Ok::<_, tower::BoxError>(response.body(Full::from(vec![b'x'; size])).unwrap())
    });
    let server = ping_server().fallback(fallback).fallback_takes_http(true);
    let server = Running::start(transport, server).await;
    // All on one connection, which goes on.
    let mut sender = open(&server.address).await;
    for path in ["/at-once", "/late"] {
        for query in
            ["status=100&size=0", "status=101&size=5", "status=103&size=0", "status=103&size=5"]
        {
            let path = format!("{path}?{query}");
            let response = ask(&mut sender, get(&path)).await.expect(&path);
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
            assert!(response.body().is_empty(), "{path}");
            assert!(!response.headers().contains_key("x-of-the-service"), "{path}");

            let mut call = request(Method::POST, &path, Body::empty());
            call.headers_mut().insert(CONTENT_TYPE, "application/grpc".parse().unwrap());
            let response = ask(&mut sender, call).await.expect(&path);
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.headers()["grpc-status"], "13", "{path}");
        }
    }
    let response = ask(&mut sender, get("/?status=200&size=3")).await.unwrap();
    assert_eq!(response.body(), "xxx");
}
