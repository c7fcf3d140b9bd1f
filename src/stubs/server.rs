//! The server's stubs: they turn a request, by the method that it names, into a response.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request as HttpRequest, Response as HttpResponse, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::Message;
use tonic::body::Body;
use tonic::codec::{CompressionEncoding, SingleMessageCompressionOverride};
use tonic::codegen::BoxFuture;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use crate::server::Mounted;

use super::body::{Encoding, StreamBody, WholeBody};
use super::compression::GRPC_ENCODING;
use super::direct;
use super::framing::{Deframer, encode};
use super::metadata::{CONTENT_TYPE, check_codec, headers, merge, ok_trailers};
use super::options::ServerOptions;
use super::receive::receive;
use super::streaming::{End, streaming};

/// A generated server, which knows its methods.
pub trait Methods: NamedService + Clone + Send + Sync + 'static {
    /// Answers a call by the method of this name.
    fn answer<C: Call>(&self, method: &str, call: C) -> C::Reply;
}

/// A call that has arrived, in any form. Each function answers it by a method of its kind.
pub trait Call: Sized {
    /// The type of the answer.
    type Reply;

    /// Answers by a method with one request and one response.
    fn unary<Q, R, H, F>(self, options: &ServerOptions, handler: H) -> Self::Reply
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        H: FnOnce(Request<Q>) -> F + Send + 'static,
        F: Future<Output = Result<Response<R>, Status>> + Send + 'static;

    /// Answers by a method with one request and a stream of responses.
    fn server_streaming<Q, R, S, H, F>(self, options: &ServerOptions, handler: H) -> Self::Reply
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        H: FnOnce(Request<Q>) -> F + Send + 'static,
        F: Future<Output = Result<Response<S>, Status>> + Send + 'static;

    /// Answers by a method with a stream of requests and one response.
    fn client_streaming<Q, R, H, F>(self, options: &ServerOptions, handler: H) -> Self::Reply
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        H: FnOnce(Request<Streaming<Q>>) -> F + Send + 'static,
        F: Future<Output = Result<Response<R>, Status>> + Send + 'static;

    /// Answers by a method with streams in both directions.
    fn streaming<Q, R, S, H, F>(self, options: &ServerOptions, handler: H) -> Self::Reply
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        H: FnOnce(Request<Streaming<Q>>) -> F + Send + 'static,
        F: Future<Output = Result<Response<S>, Status>> + Send + 'static;

    /// Answers that there is no method of this name.
    fn unimplemented(self) -> Self::Reply;
}

/// Answers an HTTP request: under tower layers, in tonic's own server or in axum.
pub fn call<D: Methods>(
    server: &D,
    request: HttpRequest<Body>,
) -> BoxFuture<HttpResponse<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    server.answer(direct::method::<D>(&path), Layered(request))
}

/// Returns the service for samehost's own server.
pub fn mount<D: Methods>(server: D) -> Mounted {
    let directly = server.clone();
    Mounted::new(
        D::NAME,
        move |request| call(&server, request.map(Body::new)),
        move |request| direct::answer(&directly, request),
    )
}

/// An HTTP request.
pub(super) struct Layered(pub(super) HttpRequest<Body>);

/// The parts of a request before its messages are read.
struct Head {
    headers: HeaderMap,
    extensions: http::Extensions,
    messages: Deframer,
    body: Body,
    /// The encoding of the response.
    encoding: Encoding,
}

impl Layered {
    fn head(self, options: &ServerOptions) -> Result<Head, Status> {
        let (parts, body) = self.0.into_parts();
        check_codec(&parts.headers)?;
        let received = options.accept.received(&parts.headers);
        let received = received.or_unimplemented(&options.accept)?;
        let messages = Deframer::new(received, options.limits.decoding);
        let compression = options.send.accepted_by(&parts.headers);
        let encoding = Encoding { compression, limit: options.limits.encoding };
        let http::request::Parts { headers, extensions, .. } = parts;
        Ok(Head { headers, extensions, messages, body, encoding })
    }

    /// Returns the request of a method that takes one message.
    async fn one<Q>(self, options: &ServerOptions) -> Result<(Request<Q>, Encoding), Status>
    where
        Q: Message + Default,
    {
        let Head { headers, extensions, messages, body, encoding } = self.head(options)?;
        let (message, trailers) = receive(body, messages).await?.into_message()?;
        let mut metadata = MetadataMap::from_headers(headers);
        if let Some(trailers) = trailers {
            merge(&mut metadata, trailers);
        }
        Ok((Request::from_parts(metadata, extensions, message), encoding))
    }

    /// Returns the request of a method that takes a stream.
    fn many<Q>(self, options: &ServerOptions) -> Result<(Request<Streaming<Q>>, Encoding), Status>
    where
        Q: Message + Default + 'static,
    {
        let Head { headers, extensions, messages, body, encoding } = self.head(options)?;
        let messages = streaming(body, messages, End::Request);
        let metadata = MetadataMap::from_headers(headers);
        Ok((Request::from_parts(metadata, extensions, messages), encoding))
    }
}

/// Returns the head of a response, with its body.
fn respond(
    metadata: MetadataMap,
    extensions: http::Extensions,
    compression: Option<CompressionEncoding>,
    body: Body,
) -> HttpResponse<Body> {
    let mut response = HttpResponse::new(body);
    *response.version_mut() = http::Version::HTTP_2;
    *response.extensions_mut() = extensions;
    let headers_of_response = response.headers_mut();
    *headers_of_response = headers(metadata);
    headers_of_response.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    if let Some(name) = compression.and_then(|it| it.to_string().try_into().ok()) {
        headers_of_response.insert(GRPC_ENCODING, name);
    }
    response
}

/// Returns the response of one message.
fn respond_one<R: Message>(
    response: Response<R>,
    encoding: Encoding,
) -> Result<HttpResponse<Body>, Status> {
    let (metadata, message, extensions) = response.into_parts();
    let plain = extensions.get() == Some(&SingleMessageCompressionOverride::Disable);
    let compression = encoding.compression.filter(|_| !plain);
    let mut data = Vec::new();
    encode(&message, compression, encoding.limit, &mut data)?;
    let body = Body::new(WholeBody::new(data, Some(ok_trailers())));
    Ok(respond(metadata, extensions, encoding.compression, body))
}

/// Returns the response of a stream.
fn respond_many<R, S>(response: Response<S>, encoding: Encoding) -> HttpResponse<Body>
where
    R: Message + 'static,
    S: Stream<Item = Result<R, Status>> + Send + 'static,
{
    let (metadata, messages, extensions) = response.into_parts();
    let body = Body::new(StreamBody::server(messages, encoding));
    respond(metadata, extensions, encoding.compression, body)
}

fn answer(
    response: impl Future<Output = Result<HttpResponse<Body>, Status>> + Send + 'static,
) -> BoxFuture<HttpResponse<Body>, Infallible> {
    Box::pin(async move { Ok(response.await.unwrap_or_else(Status::into_http)) })
}

impl Call for Layered {
    type Reply = BoxFuture<HttpResponse<Body>, Infallible>;

    fn unary<Q, R, H, F>(self, options: &ServerOptions, handler: H) -> Self::Reply
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        H: FnOnce(Request<Q>) -> F + Send + 'static,
        F: Future<Output = Result<Response<R>, Status>> + Send + 'static,
    {
        let options = options.clone();
        answer(async move {
            let (request, encoding) = self.one(&options).await?;
            respond_one(handler(request).await?, encoding)
        })
    }

    fn server_streaming<Q, R, S, H, F>(self, options: &ServerOptions, handler: H) -> Self::Reply
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        H: FnOnce(Request<Q>) -> F + Send + 'static,
        F: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    {
        let options = options.clone();
        answer(async move {
            let (request, encoding) = self.one(&options).await?;
            Ok(respond_many(handler(request).await?, encoding))
        })
    }

    fn client_streaming<Q, R, H, F>(self, options: &ServerOptions, handler: H) -> Self::Reply
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        H: FnOnce(Request<Streaming<Q>>) -> F + Send + 'static,
        F: Future<Output = Result<Response<R>, Status>> + Send + 'static,
    {
        let request = self.many(options);
        answer(async move {
            let (request, encoding) = request?;
            respond_one(handler(request).await?, encoding)
        })
    }

    fn streaming<Q, R, S, H, F>(self, options: &ServerOptions, handler: H) -> Self::Reply
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        H: FnOnce(Request<Streaming<Q>>) -> F + Send + 'static,
        F: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    {
        let request = self.many(options);
        answer(async move {
            let (request, encoding) = request?;
            Ok(respond_many(handler(request).await?, encoding))
        })
    }

    fn unimplemented(self) -> Self::Reply {
        let status = unimplemented(self.0.uri().path());
        Box::pin(std::future::ready(Ok(status.into_http())))
    }
}

/// Returns the status for a path without a method.
pub(super) fn unimplemented(path: &str) -> Status {
    Status::unimplemented(format!("there is no method {path}"))
}

/// A generated server as a tower service for requests with any body. `into_service` returns it.
#[derive(Clone, Debug)]
pub struct AnyBody<D>(D);

impl<D> AnyBody<D> {
    /// Returns a service that serves what `server` serves.
    pub fn new(server: D) -> Self {
        Self(server)
    }
}

impl<D: NamedService> NamedService for AnyBody<D> {
    const NAME: &'static str = D::NAME;
}

impl<D, B> Service<HttpRequest<B>> for AnyBody<D>
where
    D: Methods,
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<HttpResponse<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<B>) -> Self::Future {
        call(&self.0, request.map(erase))
    }
}

/// Returns the body as tonic's type.
fn erase<B>(body: B) -> Body
where
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = Some(body);
    if let Some(body) = (&mut body as &mut dyn std::any::Any).downcast_mut::<Option<Body>>() {
        return body.take().unwrap_or_default();
    }
    body.map_or_else(Body::empty, |body| Body::new(InBytes { body }))
}

pin_project! {
    /// A body whose data is turned into `Bytes`.
    struct InBytes<B> {
        #[pin]
        body: B,
    }
}

impl<B: HttpBody> HttpBody for InBytes<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let in_bytes =
            |frame: Frame<B::Data>| frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
        self.project().body.poll_frame(cx).map_ok(in_bytes)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Layered").field(&self.0.uri().path()).finish()
    }
}
