//! Bodies of any bytes, a service by hand, and servers that answer a client.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request as HttpRequest, Response as HttpResponse};
use http_body::Frame;
use tonic::body::Body;
use tonic::codegen::tokio_stream::Stream;
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};

use crate::client::Channel;
use crate::grpc::RequestBody;
use crate::server::{Mount, Mounted, Server};
use crate::stubs::{AnyBody, Bound, Call, Client, Method, Methods, ServerOptions};

/// A part of a body.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// A body of these parts.
#[derive(Clone, Debug)]
pub(super) struct Frames(pub(super) VecDeque<Result<Piece, Status>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let piece = self.0.pop_front();
        Poll::Ready(piece.map(|piece| {
            piece.map(|piece| match piece {
                Piece::Data(data) => Frame::data(data),
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns data in pieces of this size.
pub(super) fn pieces(data: &[u8], size: usize) -> Frames {
    let pieces = data.chunks(size).map(|piece| Ok(Piece::Data(Bytes::copy_from_slice(piece))));
    Frames(pieces.collect())
}

/// Returns a message with its prefix.
pub(super) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], message].concat()
}

/// Returns an encoded `StringValue`.
pub(super) fn string(text: &str) -> Vec<u8> {
    framed(0, &prost::Message::encode_to_vec(&text.to_owned()))
}

impl Mount for Echo {
    fn mount(self) -> Mounted {
        crate::stubs::mount(self)
    }
}

/// Its methods take and answer strings.
#[derive(Clone, Default)]
pub(super) struct Echo(pub(super) ServerOptions);

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

/// Some messages, then no more.
pub(super) struct Messages<M>(pub(super) VecDeque<M>);

impl<M: Unpin> Stream for Messages<M> {
    type Item = M;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<M>> {
        Poll::Ready(self.0.pop_front())
    }
}

impl Methods for Echo {
    const NAMES: &'static [&'static str] = &[];

    fn answer<C: Call>(&self, method: &str, call: C) -> C::Answer {
        match method {
            "Unary" => call.unary(&self.0, &Arc::new(()), |service, request: Request<String>| {
                Bound::owned(service, Box::pin(ready(Ok(Response::new(request.into_inner())))))
            }),
            "Down" => call.server_streaming(&self.0, |request: Request<String>| async move {
                let words = request.into_inner();
                let words = words.split(' ').map(|word| match word {
                    "fail" => Err(Status::data_loss("failed")),
                    word => Ok(word.to_owned()),
                });
                Ok(Response::new(Messages(words.collect())))
            }),
            "Up" => call.client_streaming(&self.0, |request: Request<Streaming<String>>| async {
                let mut messages = request.into_inner();
                let mut all = String::new();
                while let Some(message) = messages.message().await? {
                    all.push_str(&message);
                }
                Ok(Response::new(all))
            }),
            "Both" => call.streaming(&self.0, |request: Request<Streaming<String>>| async {
                Ok(Response::new(request.into_inner()))
            }),
            _ => call.unimplemented(),
        }
    }
}

/// The contents of a response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: HeaderMap,
    pub(super) data: Vec<u8>,
    pub(super) status: Status,
}

/// Sends a body to a method of [`Echo`], as a tower service and over a connection. Both must answer
/// the same.
pub(super) async fn ask(
    server: &Echo,
    method: &str,
    headers: &[(&'static str, &'static str)],
    body: Frames,
) -> Answer {
    let layered = ask_layered(server, method, headers, body.clone()).await;
    let (client, server_end) = tokio::io::duplex(1 << 16);
    let serving = Server::new().add_service(server.clone()).serve_connection(server_end);
    let serving = tokio::spawn(serving);
    let channel = Channel::from_stream(client);
    let direct = ask_one(channel, method, headers, Body::new(body)).await;
    serving.abort();
    assert_eq!(direct.status.code(), layered.status.code(), "{direct:?} {layered:?}");
    assert_eq!(direct.status.message(), layered.status.message());
    assert_eq!(direct.data, layered.data);
    for name in ["content-type", "grpc-encoding", "grpc-accept-encoding"] {
        assert_eq!(direct.head.get(name), layered.head.get(name));
    }
    direct
}

/// Sends a body to a method of [`Echo`] as a tower service only.
pub(super) async fn ask_layered(
    server: &Echo,
    method: &str,
    headers: &[(&'static str, &'static str)],
    body: Frames,
) -> Answer {
    ask_one(AnyBody::new(server.clone()), method, headers, body).await
}

/// Returns the answer of one service.
async fn ask_one<S, B, R>(
    mut service: S,
    method: &str,
    headers: &[(&'static str, &'static str)],
    body: B,
) -> Answer
where
    S: tower::Service<HttpRequest<B>, Response = HttpResponse<R>, Error: std::fmt::Debug>,
    R: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
{
    let mut request = HttpRequest::post(format!("/test.Echo/{method}")).body(body).unwrap();
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    let response = service.call(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let (parts, mut body) = response.into_parts();
    let mut answer = Answer { head: parts.headers, data: Vec::new(), status: Status::ok("") };
    let mut trailers = None;
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.unwrap().into_data() {
            Ok(data) => answer.data.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let status = trailers.as_ref().unwrap_or(&answer.head);
    answer.status = Status::from_header_map(status).expect("a status");
    answer
}

pub(super) const UNARY: Method = Method::new("/test.Echo/Unary", "test.Echo", "Unary");

/// Returns a client that gets this response to everything it sends.
pub(super) fn client_of(
    headers: &[(&'static str, &'static str)],
    body: Frames,
) -> Client<
    impl tonic::client::GrpcService<
        Body,
        Error = Status,
        ResponseBody = Body,
        Future = std::future::Ready<Result<HttpResponse<Body>, Status>>,
    > + use<>,
> {
    let mut response = HttpResponse::new(Body::new(body));
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    let mut response = Some(response);
    Client::new(tower::service_fn(move |_: HttpRequest<Body>| {
        std::future::ready(response.take().ok_or_else(|| Status::internal("called twice")))
    }))
}

/// A server that answers every call in the same way, over a connection.
#[derive(Clone)]
struct Always {
    headers: HeaderMap,
    body: Frames,
    /// Whether each part of the body is sent by itself.
    slowly: bool,
}

impl NamedService for Always {
    const NAME: &'static str = "test.Echo";
}

impl tower::Service<HttpRequest<RequestBody>> for Always {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<HttpResponse<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: HttpRequest<RequestBody>) -> Self::Future {
        let body = self.body.clone();
        let body = if self.slowly { Body::new(Slow { body, waits: 0 }) } else { Body::new(body) };
        let mut response = HttpResponse::new(body);
        *response.headers_mut() = self.headers.clone();
        std::future::ready(Ok(response))
    }
}

/// A body whose beginning the peer sees before there is more.
struct Slow {
    body: Frames,
    waits: u8,
}

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.waits < 20 {
            self.waits += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waits = 0;
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

/// Returns the outcomes of unary calls one after the other, over a connection to a server that
/// gives each the same response.
pub(super) async fn over_a_connection(
    headers: &[(&'static str, &'static str)],
    body: Frames,
    slowly: bool,
) -> Vec<Result<Response<String>, Status>> {
    let mut map = HeaderMap::new();
    map.insert("content-type", HeaderValue::from_static("application/grpc"));
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_static(value));
    }
    let (client, server_end) = tokio::io::duplex(1 << 16);
    let service = Always { headers: map, body, slowly };
    let serving = Server::new().add_service(service).serve_connection(server_end);
    let serving = tokio::spawn(serving);
    let mut client = Client::new(Channel::from_stream(client));
    let mut outcomes = Vec::new();
    // From the third call on, the fields of a response are known.
    for _ in 0..4 {
        outcomes.push(client.unary(UNARY, Request::new("request".to_owned())).await);
    }
    serving.abort();
    outcomes
}

/// Returns the body with trailers of these fields after its data.
pub(super) fn with_trailers(mut body: Frames, fields: &[(&'static str, &'static str)]) -> Frames {
    let mut trailers = HeaderMap::new();
    for (name, value) in fields {
        trailers.insert(*name, HeaderValue::from_static(value));
    }
    body.0.push_back(Ok(Piece::Trailers(trailers)));
    body
}
