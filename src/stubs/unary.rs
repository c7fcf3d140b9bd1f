//! [`Unary`]: a client's unary call. On a channel of ours its message is encoded straight into the
//! connection, and the response is decoded from the received bytes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderValue, header};
use prost::Message;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::client::{Channel, DirectBody, DirectCall, DirectResponse};
use crate::driver::{EncodeMessage, Fields};
use crate::grpc::{PREFIX, normalise};
use crate::http2::Content;

use super::cancellation::Cancelled;
use super::compression::{GRPC_ACCEPT_ENCODING, ReceivedEncoding};
use super::framing::{Deframer, encode_sized, sent_len, take_single};
use super::metadata::{CONTENT_TYPE, early_status, headers, with_head};
use super::options::ClientOptions;
use super::receive::{Whole, conclude, receive};

/// The head of a request without metadata, from a client that accepts no compression.
static PLAIN_HEAD: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut head = HeaderMap::with_capacity(2);
    add_own(&mut head);
    head
});

/// Adds the fields that every request has.
fn add_own(head: &mut HeaderMap) {
    head.insert(header::TE, HeaderValue::from_static("trailers"));
    head.insert(header::CONTENT_TYPE, CONTENT_TYPE);
}

/// Returns the head of a request whose message is not compressed.
fn plain_head(metadata: MetadataMap, options: &ClientOptions) -> Fields {
    let accepted = options.accept.header();
    if metadata.is_empty() && accepted.is_none() {
        return Fields::Static(&PLAIN_HEAD);
    }
    let mut head = headers(metadata);
    // It was copied from another message, so it is probably not the length of this one.
    head.remove(header::CONTENT_LENGTH);
    add_own(&mut head);
    if let Some(accepted) = accepted {
        head.insert(GRPC_ACCEPT_ENCODING, accepted);
    }
    Fields::Own(Box::new(head))
}

impl ClientOptions {
    /// Returns the headers of a request, which mostly are the same for all.
    pub(crate) fn fields(&self, metadata: MetadataMap) -> Fields {
        match self.send {
            None => plain_head(metadata, self),
            Some(_) => Fields::Own(Box::new(self.head(metadata))),
        }
    }
}

/// A message to be sent, not compressed.
struct Plain<Q> {
    message: Q,
    /// The size without its prefix.
    size: u32,
}

impl<Q: Message> EncodeMessage for Plain<Q> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_sized(&self.message, self.size, out);
    }

    fn encoded_len(&self) -> usize {
        PREFIX + self.size as usize
    }
}

/// A unary call. `L` is the type of a call with an HTTP request.
#[allow(clippy::large_enum_variant, reason = "the large variant is the usual one")]
pub(super) enum Unary<'a, Q, R, L> {
    Direct(DirectUnary<'a, Q, R>),
    /// In a box, so that it takes no room if it is not needed.
    Layered(Pin<Box<L>>),
    Failed(Option<Status>),
}

// Nothing is pinned in place: the parts that are not `Unpin` are in boxes.
impl<Q, R, L> Unpin for Unary<'_, Q, R, L> {}

impl<Q, R, L> Future for Unary<'_, Q, R, L>
where
    Q: Message + 'static,
    R: Message + Default + 'static,
    L: Future<Output = Result<Response<R>, Status>>,
{
    type Output = Result<Response<R>, Status>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Direct(call) => call.poll(cx),
            Self::Layered(call) => call.as_mut().poll(cx),
            Self::Failed(status) => {
                let again = || Status::internal("the call has ended already");
                Poll::Ready(Err(status.take().unwrap_or_else(again)))
            }
        }
    }
}

/// A unary call on a channel of ours.
pub(super) struct DirectUnary<'a, Q, R> {
    call: DirectCall<'a, Plain<Q>>,
    options: &'a ClientOptions,
    cancelled: Option<Box<Cancelled>>,
    /// Reads a response that did not arrive at once.
    rest: Option<RestFuture<R>>,
}

type RestFuture<R> = Pin<Box<dyn Future<Output = Result<Response<R>, Status>> + Send>>;

impl<'a, Q, R> DirectUnary<'a, Q, R>
where
    Q: Message + 'static,
    R: Message + Default + 'static,
{
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED if the message is larger than the options allow.
    pub(super) fn start(
        channel: &'a Channel,
        options: &'a ClientOptions,
        path: &'static str,
        request: Request<Q>,
    ) -> Result<Self, Status> {
        let (metadata, mut extensions, message) = request.into_parts();
        let size = sent_len(&message, options.limits.encoding)?;
        let cancelled = Cancelled::of(&extensions).map(Box::new);
        let head = plain_head(metadata, options);
        let message = Plain { message, size };
        let call = channel.call_directly(path, head, &mut extensions, message);
        Ok(Self { call, options, cancelled, rest: None })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<R>, Status>> {
        if let Some(cancelled) = &mut self.cancelled
            && Pin::new(&mut **cancelled).poll_cancelled(cx).is_ready()
        {
            return Poll::Ready(Err(Cancelled::status()));
        }
        if let Some(rest) = &mut self.rest {
            return rest.as_mut().poll(cx);
        }
        let (mut response, body) = ready!(self.call.poll_response(cx))?;
        match body {
            DirectBody::Whole(content) => Poll::Ready(whole(response, content, self.options)),
            DirectBody::Open(body) => {
                let head = unshared(&mut response);
                let received = self.options.accept.received(&head);
                let messages = Deframer::new(received, self.options.limits.decoding);
                let rest = rest(response, head, Body::new(*body), messages);
                self.rest.insert(Box::pin(rest)).as_mut().poll(cx)
            }
        }
    }
}

/// Returns the outcome of a call whose response has arrived in full.
pub(crate) fn whole<R: Message + Default>(
    mut response: DirectResponse,
    mut content: Content,
    options: &ClientOptions,
) -> Result<Response<R>, Status> {
    let limit = options.limits.decoding;
    if let Some(usual) = response.usual.take() {
        content.pieces = match take_single(content.pieces, limit) {
            Ok(Ok(message)) => {
                let metadata = MetadataMap::from_headers(usual);
                return Ok(Response::from_parts(metadata, message, response.extensions));
            }
            Ok(Err(status)) => return Err(with_head(status, unshared(&mut response))),
            Err(pieces) => pieces,
        };
    }
    let cached = response.cached_fields(&content);
    let mut head = unshared(&mut response);
    let received = options.accept.received(&head);
    let is_plain = received == ReceivedEncoding::Identity;
    let early = early_status(&mut head);
    let mut whole = match Whole::of(content, received, limit) {
        Ok(whole) => whole,
        Err(status) => return Err(with_head(status, head)),
    };
    whole.trailers.iter_mut().for_each(normalise);
    let had_early = early.is_some();
    let concluded = conclude(whole, early, response.head.status, head, response.extensions)?;
    if is_plain
        && !had_early
        && let Some((head, trailers)) = cached
    {
        head.remember(trailers, concluded.metadata().as_ref().clone());
    }
    Ok(concluded)
}

/// Returns the outcome of a call whose response is still arriving.
async fn rest<R: Message + Default>(
    response: DirectResponse,
    mut head: HeaderMap,
    body: Body,
    messages: Deframer,
) -> Result<Response<R>, Status> {
    let early = early_status(&mut head);
    match receive(body, messages).await {
        Ok(whole) => conclude(whole, early, response.head.status, head, response.extensions),
        Err(status) => Err(with_head(status, head)),
    }
}

/// Returns the headers of a response, which the call may change.
fn unshared(response: &mut DirectResponse) -> HeaderMap {
    let mut headers = match Arc::get_mut(&mut response.head) {
        Some(head) => std::mem::take(&mut head.headers),
        None => response.head.headers.clone(),
    };
    normalise(&mut headers);
    headers
}

impl<Q, R> fmt::Debug for DirectUnary<'_, Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectUnary").field("call", &self.call).finish_non_exhaustive()
    }
}
