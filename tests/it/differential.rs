//! Our ends with others: hyper's HTTP/2 client on our server, and our channel on tonic's own
//! server.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use samehost::ping::{
    CollectRequest, ConverseRequest, Ping, PingRequest, PingResponse, PingServiceClient,
    PingServiceServer, WatchRequest,
};
use samehost::{Address, Channel};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::metadata::MetadataValue;
use tonic::{Code, Response, Status};

use crate::support::{Running, Scripted, Transport, directory, on_both_transports, socket_in};
use crate::wire::message;

on_both_transports!(hypers_client_on_our_server, our_channel_on_tonics_server);

/// Pseudo-random numbers that are the same in each run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// Returns bytes that are mostly few, and sometimes more than any window that the other end
    /// has.
    fn bytes(&mut self) -> Vec<u8> {
        let bound = [1, 10, 1_000, 20_000, 200_000][self.below(5)];
        let len = self.below(bound);
        (0..len).map(|at| (at as u8).wrapping_mul(31)).collect()
    }
}

// ---- hyper's client ------------------------------------------------------------------------

/// Returns a PingRequest, or a message like it, with field 2, `bytes payload`, in gRPC's framing.
fn with_payload(payload: &[u8]) -> Vec<u8> {
    let mut encoded = vec![0x12];
    let mut len = payload.len();
    while len >= 128 {
        encoded.push(len as u8 & 127 | 128);
        len >>= 7;
    }
    encoded.push(len as u8);
    encoded.extend_from_slice(payload);
    message(&encoded)
}

/// Returns the payloads (field 2, after the "pong" of field 1) of the messages in a body.
fn payloads(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        let len = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let (mut encoded, rest) = rest.split_at(len);
        body = rest;
        encoded = encoded.strip_prefix(b"\x0a\x04pong").unwrap();
        let mut payload = Vec::new();
        if let Some(field) = encoded.strip_prefix(b"\x12") {
            let (mut len, mut at) = (0, 0);
            loop {
                len |= usize::from(field[at] & 127) << (7 * at);
                at += 1;
                if field[at - 1] < 128 {
                    break;
                }
            }
            payload = field[at..at + len].to_vec();
        }
        all.push(payload);
    }
    all
}

async fn hypers_client_on_our_server(transport: Transport) {
    let server = Running::ping(transport).await;
    match server.address.as_path() {
        Some(path) => with_hyper(UnixStream::connect(path).await.unwrap()).await,
        None => {
            let address = server.address.to_string();
            with_hyper(TcpStream::connect(address).await.unwrap()).await;
        }
    }
}

async fn with_hyper<T>(io: T)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
    tokio::spawn(connection);
    let call = async |method: &str, chunks: Vec<Vec<u8>>| -> (Vec<u8>, HeaderMap) {
        let frames = chunks
            .into_iter()
            .map(|chunk| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(chunk))));
        let request = Request::post(format!("http://localhost/ping.v1.PingService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(StreamBody::new(tokio_stream::iter(frames.collect::<Vec<_>>())))
            .unwrap();
        let response = sender.clone().send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let head = response.headers().clone();
        let body = response.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or(head);
        (body.to_bytes().to_vec(), trailers)
    };
    /// Cuts a sequence of messages at random places.
    fn cut(random: &mut Random, whole: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = whole;
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let bound = 1 + random.below(rest.len().min(30_000));
            let (chunk, after) = rest.split_at(bound);
            chunks.push(chunk.to_vec());
            rest = after;
        }
        chunks
    }
    let mut random = Random(0x5eed);
    for _ in 0..25 {
        let payload = random.bytes();
        let chunks = cut(&mut random, &with_payload(&payload));
        let (body, trailers) = call("Ping", chunks).await;
        assert_eq!(
            (payloads(&body), &trailers["grpc-status"]),
            (vec![payload], &"0".parse().unwrap())
        );

        let sent: Vec<_> = (0..random.below(6)).map(|_| random.bytes()).collect();
        let whole: Vec<u8> = sent.iter().flat_map(|payload| with_payload(payload)).collect();
        let chunks = cut(&mut random, &whole);
        let (body, trailers) = call("Converse", chunks.clone()).await;
        assert_eq!(
            (payloads(&body), &trailers["grpc-status"]),
            (sent, &HeaderValue::from_static("0"))
        );

        let (body, trailers) = call("Collect", chunks).await;
        assert!(body.len() >= 5 && trailers["grpc-status"] == "0");

        // This is a WatchRequest with `count` and `payload` (field 3).
        let count = random.below(100) as u8 + 1;
        let (body, trailers) = call("Watch", vec![message(&[8, count, 0x1a, 3, 1, 2, 3])]).await;
        assert_eq!(payloads(&body), vec![vec![1, 2, 3]; usize::from(count)]);
        assert_eq!(trailers["grpc-status"], "0");
    }
    // Errors: an invalid word, an unknown method, and requests that are not gRPC.
    let (_, trailers) = call("Ping", vec![message(b"\x0a\x04pong")]).await;
    assert_eq!(trailers["grpc-status"], "3");
    let (_, trailers) = call("Pong", vec![message(b"")]).await;
    assert_eq!(trailers["grpc-status"], "12");
    for kind in [None, Some("text/html"), Some("application/json"), Some("application/grpcx")] {
        let mut request = Request::post("http://localhost/ping.v1.PingService/Ping");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let empty: Vec<Result<_, Infallible>> = Vec::new();
        let request = request.body(StreamBody::new(tokio_stream::iter(empty))).unwrap();
        let response = sender.clone().send_request(request).await.unwrap();
        assert_eq!(response.status(), 415, "{kind:?}");
    }
}

// ---- tonic's server ------------------------------------------------------------------------

async fn our_channel_on_tonics_server(transport: Transport) {
    let directory = directory();
    let service = Scripted::default().on_ping(|request| async {
        let request_metadata = request.metadata().clone();
        let PingRequest { message, payload, sequence } = request.into_inner();
        if message == "fail" {
            let mut status = Status::with_details(
                Code::DataLoss,
                "verloren: „Äpfel“ & 50 % der 梨",
                Bytes::from_static(&[0, 1, 255]),
            );
            status.metadata_mut().insert("why", "lost".parse().unwrap());
            return Err(status);
        }
        let message = "pong".to_owned();
        let mut response = Response::new(PingResponse { message, payload, sequence });
        if let Some(value) = request_metadata.get_bin("bytes-bin") {
            response.metadata_mut().insert_bin("bytes-bin", value.clone());
        }
        Ok(response)
    });
    let router = tonic::transport::Server::builder().add_service(PingServiceServer::new(service));
    let address: Address = match transport {
        Transport::Unix => {
            let address = socket_in(directory.path());
            let listener = UnixListener::bind(address.as_path().unwrap()).unwrap();
            tokio::spawn(router.serve_with_incoming(UnixListenerStream::new(listener)));
            address
        }
        Transport::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string().parse().unwrap();
            tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
            address
        }
    };
    exercise(Channel::connect(&address).await.unwrap()).await;
}

/// Our own server must behave in the same way.
#[tokio::test]
async fn our_channel_on_our_server() {
    let service = Scripted::default().on_ping(|request| async {
        if request.get_ref().message == "fail" {
            let mut status = Status::with_details(
                Code::DataLoss,
                "verloren: „Äpfel“ & 50 % der 梨",
                Bytes::from_static(&[0, 1, 255]),
            );
            status.metadata_mut().insert("why", "lost".parse().unwrap());
            return Err(status);
        }
        let bytes = request.metadata().get_bin("bytes-bin").cloned();
        let mut response = samehost::ping::PingService::ping(&Ping::default(), request).await?;
        if let Some(value) = bytes {
            response.metadata_mut().insert_bin("bytes-bin", value);
        }
        Ok(response)
    });
    let server = Running::start(Transport::Unix, service.server()).await;
    exercise(server.channel().await).await;
}

async fn exercise(channel: Channel) {
    let mut client = PingServiceClient::new(channel);
    let mut random = Random(0xcafe);
    for sequence in 0..25 {
        let payload = Bytes::from(random.bytes());
        let request = PingRequest { payload: payload.clone(), sequence, ..PingRequest::ping() };
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(60));
        let bytes = MetadataValue::from_bytes(&[0, 255, sequence as u8, b',', b' ']);
        request.metadata_mut().insert_bin("bytes-bin", bytes.clone());
        let reply = client.ping(request).await.unwrap();
        assert_eq!(reply.metadata().get_bin("bytes-bin"), Some(&bytes));
        let reply = reply.into_inner();
        assert_eq!((reply.payload, reply.sequence), (payload, sequence));

        let sent: Vec<_> = (0..random.below(6)).map(|_| Bytes::from(random.bytes())).collect();
        let requests = sent
            .clone()
            .into_iter()
            .map(|payload| ConverseRequest { payload, ..ConverseRequest::default() });
        let mut replies = client.converse(tokio_stream::iter(requests)).await.unwrap().into_inner();
        let mut received = Vec::new();
        while let Some(reply) = replies.message().await.unwrap() {
            received.push(reply.payload);
        }
        assert_eq!(received, sent);

        let bytes: usize = sent.iter().map(Bytes::len).sum();
        let count = sent.len() as u64;
        let requests =
            sent.into_iter().map(|payload| CollectRequest { payload, ..CollectRequest::default() });
        let collected = client.collect(tokio_stream::iter(requests)).await.unwrap().into_inner();
        assert_eq!((collected.count, collected.bytes), (count, bytes as u64));

        let count = random.below(100) as u32 + 1;
        let payload = Bytes::from(random.bytes());
        let request = WatchRequest { count, payload: payload.clone(), interval: None };
        let mut pongs = client.watch(request).await.unwrap().into_inner();
        for _ in 0..count {
            assert_eq!(pongs.message().await.unwrap().unwrap().payload, payload);
        }
        assert_eq!(pongs.message().await.unwrap(), None);
    }
    let fail = PingRequest { message: "fail".to_owned(), ..PingRequest::default() };
    let status = client.ping(fail).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss);
    assert_eq!(status.message(), "verloren: „Äpfel“ & 50 % der 梨");
    assert_eq!(status.details(), [0, 1, 255]);
    assert_eq!(status.metadata().get("why").unwrap(), "lost");
}
