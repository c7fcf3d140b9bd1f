//! [`Layered`]: a call that is an HTTP request, as tower layers, tonic's own server and axum pass it.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use http::{HeaderMap, Request as HttpRequest, Response as HttpResponse, header};
use prost::Message;
use tonic::body::Body;
use tonic::codec::{CompressionEncoding, SingleMessageCompressionOverride};
use tonic::codegen::BoxFuture;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::body::{Encoding, StreamBody, WholeBody};
use super::compression::GRPC_ENCODING;
use super::framing::{Deframer, encode_whole};
use super::metadata::{CONTENT_TYPE, check_codec, headers, merge};
use super::methods::{BoundUnary, Call};
use super::options::ServerOptions;
use super::receive::receive;
use super::streaming::{BodyEnd, streaming};
use crate::grpc::ok_trailers;

/// An HTTP request.
pub(super) struct Layered(pub(super) HttpRequest<Body>);

/// The parts of a request before its messages are read.
struct LayeredHead {
    headers: HeaderMap,
    extensions: http::Extensions,
    messages: Deframer,
    body: Body,
    /// The encoding of the response.
    encoding: Encoding,
}

impl Layered {
    fn head(self, options: &ServerOptions) -> Result<LayeredHead, Status> {
        let (parts, body) = self.0.into_parts();
        check_codec(&parts.headers)?;
        let received = options.accept.received(&parts.headers);
        let received = received.or_unimplemented(&options.accept)?;
        let messages = Deframer::new(received, options.limits.decoding);
        let compression = options.send.accepted_by(&parts.headers);
        let encoding = Encoding { compression, limit: options.limits.encoding };
        let http::request::Parts { headers, extensions, .. } = parts;
        Ok(LayeredHead { headers, extensions, messages, body, encoding })
    }

    /// Returns the request of a method that takes one message.
    async fn one<Q>(self, options: &ServerOptions) -> Result<(Request<Q>, Encoding), Status>
    where
        Q: Message + Default,
    {
        let LayeredHead { headers, extensions, messages, body, encoding } = self.head(options)?;
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
        let LayeredHead { headers, extensions, messages, body, encoding } = self.head(options)?;
        let messages = streaming(body, messages, BodyEnd::Request);
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
    let data = encode_whole(&message, compression, encoding.limit)?;
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
    type Answer = BoxFuture<HttpResponse<Body>, Infallible>;

    fn unary<T, Q, R, H>(
        self,
        options: &ServerOptions,
        service: &Arc<T>,
        handler: H,
    ) -> Self::Answer
    where
        T: Send + Sync + 'static,
        Q: Message + Default + 'static,
        R: Message + 'static,
        H: for<'a> FnOnce(&'a Arc<T>, Request<Q>) -> BoundUnary<'a, T, R> + Send + 'static,
    {
        let (options, service) = (options.clone(), Arc::clone(service));
        answer(async move {
            let (request, encoding) = self.one(&options).await?;
            respond_one(handler(&service, request).await?, encoding)
        })
    }

    fn server_streaming<Q, R, S, H, F>(self, options: &ServerOptions, handler: H) -> Self::Answer
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

    fn client_streaming<Q, R, H, F>(self, options: &ServerOptions, handler: H) -> Self::Answer
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

    fn streaming<Q, R, S, H, F>(self, options: &ServerOptions, handler: H) -> Self::Answer
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

    fn unimplemented(self) -> Self::Answer {
        let status = unimplemented(self.0.uri().path());
        Box::pin(std::future::ready(Ok(status.into_http())))
    }
}

/// Returns the status for a path without a method.
pub(super) fn unimplemented(path: &str) -> Status {
    Status::unimplemented(format!("there is no method {path}"))
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Layered").field(&self.0.uri().path()).finish()
    }
}
