//! Requests that are not gRPC, and what the server's fallback answers to them. The client is hyper's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use samehost::ping::{Ping, PingServiceServer};
use samehost::{Address, Server};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;

use crate::support::{Running, Transport, eventually_async, on_both_transports};

on_both_transports!(a_request_may_have_any_body, a_large_upload_is_held_by_nobody_once_it_is_read,);

fn ping_server() -> Server {
    Server::new().add_service(PingServiceServer::new(Ping::default()))
}

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

/// Returns the response with its whole body, or an error if it is not complete or malformed.
async fn ask(
    sender: &mut SendRequest<Body>,
    request: Request<Body>,
) -> hyper::Result<Response<Bytes>> {
    sender.ready().await?;
    let (parts, body) = sender.send_request(request).await?.into_parts();
    Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
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
