//! [`Client`]: the client's stubs, on top of any service that takes HTTP requests.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, Method as HttpMethod, Uri, Version};
use http_body::Body as HttpBody;
use prost::Message;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Code, GrpcMethod, Request, Response, Status, Streaming};

use crate::address::{Address, AddressParseError};
use crate::client::Channel;
use crate::socket::ConnectError;

use super::body::{Encoding, StreamBody, WholeBody};
use super::cancellation::{Cancelled, unless_cancelled};
use super::framing::{Deframer, encode_whole};
use super::metadata::{early_status, with_head};
use super::options::ClientOptions;
use super::receive::{conclude, receive};
use super::streaming::{BodyEnd, streaming};
use super::unary::{DirectUnary, Unary};

type StdError = Box<dyn std::error::Error + Send + Sync>;

/// Returns a channel that is connected to `address`.
pub async fn connect<A>(address: A) -> Result<Channel, ConnectError>
where
    A: TryInto<Address, Error: Into<AddressParseError>>,
{
    let address = address.try_into().map_err(Into::into)?;
    Channel::connect(&address).await
}

/// A method of a service, as a client calls it.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    path: &'static str,
    service: &'static str,
    name: &'static str,
}

impl Method {
    pub(crate) fn path(self) -> &'static str {
        self.path
    }

    /// Returns the method's name for layers and interceptors.
    pub(crate) fn of_grpc(self) -> GrpcMethod<'static> {
        GrpcMethod::new(self.service, self.name)
    }

    /// Returns a method. `path` is "/package.Service/Method".
    pub const fn new(path: &'static str, service: &'static str, name: &'static str) -> Self {
        Self { path, service, name }
    }
}

/// Returns the channel that `inner` is, if it is one of ours. If its calls are observed it returns
/// `None`: such calls are HTTP requests, whose bodies can be counted.
#[inline]
fn as_channel<T: 'static>(inner: &T) -> Option<&Channel> {
    (inner as &dyn Any).downcast_ref().filter(|channel: &&Channel| !channel.is_observed())
}

/// The part that all generated clients share.
#[derive(Clone)]
pub struct Client<T> {
    inner: T,
    origin: Uri,
    options: ClientOptions,
}

impl<T> Client<T> {
    /// Returns a client whose calls go through `inner`.
    pub fn new(inner: T) -> Self {
        Self::with_origin(inner, Uri::default())
    }

    /// Returns a client whose requests have the scheme, the authority and the path of `origin`
    /// before the method's path.
    pub fn with_origin(inner: T, origin: Uri) -> Self {
        Self { inner, origin, options: ClientOptions::default() }
    }

    /// Returns the options of the client.
    pub fn options(&mut self) -> &mut ClientOptions {
        &mut self.options
    }

    fn encoding(&self) -> Encoding {
        Encoding { compression: self.options.send, limit: self.options.limits.encoding }
    }

    /// Returns the head of a request.
    fn head(&self, method: Method, metadata: MetadataMap, extensions: Extensions) -> CallHead {
        let headers = self.options.head(metadata);
        CallHead { uri: self.uri(method), headers, extensions }
    }

    fn uri(&self, method: Method) -> Uri {
        let path = PathAndQuery::from_static(method.path);
        let mut parts = self.origin.clone().into_parts();
        parts.path_and_query = match parts.path_and_query.take() {
            Some(before) if before.path() != "/" => {
                let before = before.path().trim_end_matches('/');
                PathAndQuery::try_from(format!("{before}{path}")).ok()
            }
            _ => Some(path),
        };
        Uri::from_parts(parts).unwrap_or_default()
    }
}

struct CallHead {
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
}

impl CallHead {
    fn with(self, body: Body) -> http::Request<Body> {
        let mut request = http::Request::new(body);
        *request.method_mut() = HttpMethod::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        *request.extensions_mut() = self.extensions;
        request
    }
}

/// A response whose messages have not been read.
struct UnreadResponse {
    head: http::response::Parts,
    body: Body,
    messages: Deframer,
    /// The status in the head, if it has one. It counts only if nothing follows (gRPC over HTTP/2,
    /// Trailers-Only).
    status: Option<Status>,
}

impl<T> Client<T>
where
    T: GrpcService<Body> + 'static,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError>,
{
    /// Makes a call with one request and one response.
    pub fn unary<Q, R>(
        &mut self,
        method: Method,
        request: Request<Q>,
    ) -> impl Future<Output = Result<Response<R>, Status>>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let is_plain = self.options.send.is_none() && self.origin.path() == "/";
        if !is_plain || as_channel(&self.inner).is_none() {
            return Unary::Layered(Box::pin(self.layered_unary(method, request)));
        }
        // The call borrows the channel, so it is asked for again where nothing else borrows it.
        let call = as_channel(&self.inner)
            .map(|channel| DirectUnary::start(channel, &self.options, method.path, request));
        match call {
            Some(Ok(call)) => Unary::Direct(call),
            Some(Err(status)) => Unary::Failed(Some(status)),
            None => Unary::Failed(None),
        }
    }

    async fn layered_unary<Q, R>(
        &mut self,
        method: Method,
        request: Request<Q>,
    ) -> Result<Response<R>, Status>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let (metadata, extensions, message) = request.into_parts();
        let body = self.one(&message)?;
        let mut cancelled = Cancelled::of(&extensions);
        let call = self.whole(method, metadata, extensions, body);
        unless_cancelled(&mut cancelled, call).await
    }

    /// Makes a call with one request and a stream of responses.
    pub async fn server_streaming<Q, R>(
        &mut self,
        method: Method,
        request: Request<Q>,
    ) -> Result<Response<Streaming<R>>, Status>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let (metadata, extensions, message) = request.into_parts();
        let body = self.one(&message)?;
        self.many(method, metadata, extensions, body).await
    }

    /// Makes a call with a stream of requests and one response.
    pub async fn client_streaming<Q, R, S>(
        &mut self,
        method: Method,
        request: Request<S>,
    ) -> Result<Response<R>, Status>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
        S: Stream<Item = Q> + Send + 'static,
    {
        let (metadata, extensions, messages) = request.into_parts();
        let mut cancelled = Cancelled::of(&extensions);
        let body = StreamBody::<S>::client(messages, self.encoding(), Cancelled::of(&extensions));
        let call = self.whole(method, metadata, extensions, Body::new(body));
        unless_cancelled(&mut cancelled, call).await
    }

    /// Makes a call with streams in both directions.
    pub async fn streaming<Q, R, S>(
        &mut self,
        method: Method,
        request: Request<S>,
    ) -> Result<Response<Streaming<R>>, Status>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
        S: Stream<Item = Q> + Send + 'static,
    {
        let (metadata, extensions, messages) = request.into_parts();
        let body = StreamBody::<S>::client(messages, self.encoding(), Cancelled::of(&extensions));
        self.many(method, metadata, extensions, Body::new(body)).await
    }

    /// Returns the body of one message.
    fn one<Q: Message>(&self, message: &Q) -> Result<Body, Status> {
        let Encoding { compression, limit } = self.encoding();
        let data = encode_whole(message, compression, limit)?;
        Ok(Body::new(WholeBody::new(data, None)))
    }

    /// Sends a request, and waits for the head of its response.
    async fn send(
        &mut self,
        method: Method,
        metadata: MetadataMap,
        mut extensions: Extensions,
        body: Body,
    ) -> Result<UnreadResponse, Status> {
        let ready = poll_fn(|cx| self.inner.poll_ready(cx)).await;
        ready.map_err(|error| Status::from_error(error.into()))?;
        extensions.insert(method.of_grpc());
        let request = self.head(method, metadata, extensions).with(body);
        let response = self.inner.call(request).await;
        let response = response.map_err(|error| Status::from_error(error.into()))?;
        let (mut head, body) = response.into_parts();
        let received = self.options.accept.received(&head.headers);
        let messages = Deframer::new(received, self.options.limits.decoding);
        let status = early_status(&mut head.headers);
        Ok(UnreadResponse { head, body: Body::new(body), messages, status })
    }

    /// Makes a call whose response is one message.
    async fn whole<R>(
        &mut self,
        method: Method,
        metadata: MetadataMap,
        extensions: Extensions,
        body: Body,
    ) -> Result<Response<R>, Status>
    where
        R: Message + Default,
    {
        let UnreadResponse { head, body, messages, status } =
            self.send(method, metadata, extensions, body).await?;
        match receive(body, messages).await {
            Ok(whole) => conclude(whole, status, head.status, head.headers, head.extensions),
            Err(status) => Err(with_head(status, head.headers)),
        }
    }

    /// Makes a call whose response is a stream.
    async fn many<R>(
        &mut self,
        method: Method,
        metadata: MetadataMap,
        extensions: Extensions,
        body: Body,
    ) -> Result<Response<Streaming<R>>, Status>
    where
        R: Message + Default + 'static,
    {
        let mut cancelled = Cancelled::of(&extensions);
        let call = self.send(method, metadata, extensions, body);
        let UnreadResponse { head, body, messages, status } =
            unless_cancelled(&mut cancelled, call).await?;
        let status = match status {
            Some(status) if body.is_end_stream() && status.code() != Code::Ok => {
                return Err(status);
            }
            status => status,
        };
        let end = BodyEnd::Response { http: head.status, status, cancelled };
        let messages = streaming(body, messages, end);
        let metadata = MetadataMap::from_headers(head.headers);
        Ok(Response::from_parts(metadata, messages, head.extensions))
    }
}

impl<T: fmt::Debug> fmt::Debug for Client<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inner, origin, options } = self;
        let mut debug = f.debug_struct("Client");
        debug.field("inner", inner).field("origin", origin).field("options", options).finish()
    }
}
