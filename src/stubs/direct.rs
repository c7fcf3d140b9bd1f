//! [`DirectRequest`]: a call on a connection of samehost's own server, without an HTTP request.
//!
//! A unary request that has arrived whole is decoded from the received bytes, and its response is
//! encoded into a buffer that the connection keeps. All other calls go through [`Layered`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use http::{Extensions, HeaderMap, header};
use prost::Message;
use tonic::body::Body;
use tonic::codec::SingleMessageCompressionOverride;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::descriptors::Descriptors;
use crate::driver::{Fields, Incoming, in_place};
use crate::grpc::{
    Answering, Arriving, BoxFuture, DirectAnswer, MessageCall, MessageHead, normalise,
};
use crate::http2::{Content, Pieces, RequestHead};

use super::body::Encoding;
use super::compression::{GRPC_ENCODING, ReceivedEncoding};
use super::framing::{encode, take_single};
use super::layered::Layered;
use super::metadata::{CONTENT_TYPE, check_codec, headers, merge};
use super::methods::{BoundUnary, Call, Methods};
use super::options::ServerOptions;
use super::receive::Whole;

/// The head of a response without metadata.
static PLAIN_HEAD: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut head = HeaderMap::with_capacity(1);
    head.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    head
});

/// Answers a call by the method that its path names. With an empty buffer for its message, a unary
/// method is polled once.
pub(super) fn answer<D: Methods>(
    server: &D,
    call: Arriving,
    message: Option<&mut Vec<u8>>,
) -> DirectAnswer {
    let Arriving { head, body, extensions, is_plain } = call;
    // The server has found this service by its name in the path.
    let method = head.path.path().get(D::NAME.len() + 2..).unwrap_or_default();
    server.answer(method, DirectRequest { head: &head, body, extensions, is_plain, message })
}

/// Returns the method's name in a path, "/package.Service/Method" (gRPC over HTTP/2, Requests).
pub(super) fn method<D: Methods>(path: &str) -> &str {
    let path = path.strip_prefix('/').and_then(|path| path.strip_prefix(D::NAME));
    path.and_then(|path| path.strip_prefix('/')).unwrap_or_default()
}

/// The parts of an [`Arriving`] call.
struct DirectRequest<'a> {
    head: &'a Arc<RequestHead>,
    body: Incoming,
    extensions: Extensions,
    is_plain: bool,
    message: Option<&'a mut Vec<u8>>,
}

impl DirectRequest<'_> {
    /// Answers as if the call had come as an HTTP request.
    fn layered(self, answer: impl FnOnce(Layered) -> BoxFuture) -> DirectAnswer {
        let Self { head, body, extensions, is_plain, .. } = self;
        let call = Arriving { head: Arc::clone(head), body, extensions, is_plain };
        let layered = Layered(call.into_http().map(Body::new));
        DirectAnswer::Unpolled(Answering::Http(answer(layered)))
    }
}

impl Call for DirectRequest<'_> {
    type Answer = DirectAnswer;

    fn unary<T, Q, R, H>(
        mut self,
        options: &ServerOptions,
        service: &Arc<T>,
        handler: H,
    ) -> DirectAnswer
    where
        T: Send + Sync + 'static,
        Q: Message + Default + 'static,
        R: Message + 'static,
        H: for<'a> FnOnce(&'a Arc<T>, Request<Q>) -> BoundUnary<'a, T, R> + Send + 'static,
    {
        let Content { pieces, trailers } = match self.body.into_whole() {
            Ok(content) => content,
            Err(body) => {
                self.body = body;
                return self.layered(|call| call.unary(options, service, handler));
            }
        };
        let Self { head, extensions, .. } = self;
        let message = match decode(&head.headers, self.is_plain, pieces, options) {
            Ok(message) => message,
            Err(status) => return DirectAnswer::Answered(Err(status)),
        };
        let compression = options.send.accepted_by(&head.headers);
        let encoding = Encoding { compression, limit: options.limits.encoding };
        let mut metadata = MetadataMap::from_headers(head.headers.clone());
        if let Some(trailers) = trailers {
            let mut trailers = Arc::unwrap_or_clone(trailers);
            normalise(&mut trailers);
            merge(&mut metadata, trailers);
        }
        let mut call = handler(service, Request::from_parts(metadata, extensions, message));
        let Some(buffer) = self.message else {
            let call = RunningUnary { call: call.into_owned(), encoding };
            return DirectAnswer::Unpolled(Answering::Message(Box::pin(call)));
        };
        // A method that is ready at once needs no memory of its own.
        match in_place(poll_fn(|cx| Pin::new(&mut call).poll(cx))) {
            Poll::Ready(response) => {
                DirectAnswer::Answered(encode_response(response, encoding, buffer))
            }
            Poll::Pending => {
                let call = RunningUnary { call: call.into_owned(), encoding };
                DirectAnswer::Pending(Box::pin(call))
            }
        }
    }

    fn server_streaming<Q, R, S, H, F>(self, options: &ServerOptions, handler: H) -> DirectAnswer
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        H: FnOnce(Request<Q>) -> F + Send + 'static,
        F: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    {
        self.layered(|call| call.server_streaming(options, handler))
    }

    fn client_streaming<Q, R, H, F>(self, options: &ServerOptions, handler: H) -> DirectAnswer
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        H: FnOnce(Request<Streaming<Q>>) -> F + Send + 'static,
        F: Future<Output = Result<Response<R>, Status>> + Send + 'static,
    {
        self.layered(|call| call.client_streaming(options, handler))
    }

    fn streaming<Q, R, S, H, F>(self, options: &ServerOptions, handler: H) -> DirectAnswer
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        H: FnOnce(Request<Streaming<Q>>) -> F + Send + 'static,
        F: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    {
        self.layered(|call| call.streaming(options, handler))
    }

    fn unimplemented(self) -> DirectAnswer {
        self.layered(Call::unimplemented)
    }
}

/// Takes the one message of a request that has arrived whole.
fn decode<Q: Message + Default>(
    headers: &HeaderMap,
    is_plain: bool,
    pieces: Pieces,
    options: &ServerOptions,
) -> Result<Q, Status> {
    let received = match is_plain {
        true => ReceivedEncoding::Identity,
        false => {
            check_codec(headers)?;
            options.accept.received(headers).or_unimplemented(&options.accept)?
        }
    };
    let limit = options.limits.decoding;
    let pieces = match take_single(pieces, limit) {
        Ok(message) => return message,
        Err(pieces) => pieces,
    };
    let body = Content { pieces, trailers: None };
    let (message, _) = Whole::of(body, received, limit)?.into_message()?;
    Ok(message)
}

/// A unary method that is running.
struct RunningUnary<F> {
    call: F,
    encoding: Encoding,
}

impl<F, R> MessageCall for RunningUnary<F>
where
    F: Future<Output = Result<Response<R>, Status>> + Send + Unpin,
    R: Message,
{
    fn poll_message(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: &mut Vec<u8>,
    ) -> Poll<Result<MessageHead, Status>> {
        let response = ready!(Pin::new(&mut self.call).poll(cx));
        Poll::Ready(encode_response(response, self.encoding, message))
    }
}

/// Encodes the message of a method's response, and returns its head.
fn encode_response<R: Message>(
    response: Result<Response<R>, Status>,
    encoding: Encoding,
    out: &mut Vec<u8>,
) -> Result<MessageHead, Status> {
    let (metadata, message, mut extensions) = response?.into_parts();
    let descriptors = extensions.remove::<Descriptors>();
    let head = |fields| MessageHead { fields, descriptors };
    let Some(agreed) = encoding.compression else {
        encode(&message, None, encoding.limit, out)?;
        if metadata.is_empty() {
            return Ok(head(Fields::Static(&PLAIN_HEAD)));
        }
        let mut fields = headers(metadata);
        fields.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        return Ok(head(Fields::Own(Box::new(fields))));
    };
    let plain = extensions.get() == Some(&SingleMessageCompressionOverride::Disable);
    encode(&message, (!plain).then_some(agreed), encoding.limit, out)?;
    let mut fields = headers(metadata);
    fields.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    if let Ok(name) = agreed.to_string().try_into() {
        fields.insert(GRPC_ENCODING, name);
    }
    Ok(head(Fields::Own(Box::new(fields))))
}
