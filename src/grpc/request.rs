//! Turns a connection's request into the http [`request`] that a service reads.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Extensions, Request, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::message::{MessagePosition, cut_off};
use super::metadata::normal_trailers;
use super::status::status;
use crate::driver::{CallMemory, Incoming};
use crate::http2::RequestHead;

/// It is parsed once, not for each request.
static LOCALHOST: LazyLock<Authority> = LazyLock::new(|| Authority::from_static("localhost"));

/// Returns the request for a service, with `extensions`. Its authority is "localhost" if the peer
/// sent none that `http` can parse.
pub(super) fn request(
    head: Arc<RequestHead>,
    body: Incoming,
    extensions: Extensions,
) -> Request<RequestBody> {
    with_body(head, BodyKind::Arriving(ArrivingBody::new(body)), extensions)
}

/// Does the same for a request that is not gRPC. Its body may be any bytes.
pub(super) fn http_request(
    head: Arc<RequestHead>,
    body: Incoming,
    extensions: Extensions,
) -> Request<RequestBody> {
    with_body(head, BodyKind::Plain(body), extensions)
}

#[inline]
fn with_body(
    head: Arc<RequestHead>,
    body: BodyKind,
    extensions: Extensions,
) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody(body));
    let RequestHead { method, scheme, headers, authority, path, .. } = Arc::unwrap_or_clone(head);
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    *request.version_mut() = Version::HTTP_2;
    *request.extensions_mut() = extensions;
    let authority = match authority {
        None => LOCALHOST.clone(),
        Some(raw) if raw == "localhost" => LOCALHOST.clone(),
        // A Unix socket's path, for example, is no authority.
        Some(raw) => Authority::from_maybe_shared(raw).unwrap_or_else(|_| LOCALHOST.clone()),
    };
    *request.uri_mut() = uri(scheme, authority, path);
    request
}

fn uri(scheme: Scheme, authority: Authority, path: PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).unwrap_or_default()
}

/// The body of a request, as a [`Server`](crate::Server)'s services read it. Its errors are
/// [`Status`]es. The servers that tonic generates take any body, so also this one. A service that
/// is written by hand names this type, or is generic over the body.
#[derive(Debug)]
pub struct RequestBody(BodyKind);

#[derive(Debug)]
enum BodyKind {
    Arriving(ArrivingBody),
    /// The body of a request that is not gRPC. It has no messages, so nobody keeps parts of them.
    Plain(Incoming),
    /// A body that a layer has made.
    Layered(tonic::body::Body),
}

impl RequestBody {
    /// Returns a body that adds the number of bytes to `received` as they are read.
    pub(super) fn counted(mut self, received: Arc<AtomicU64>) -> Self {
        if let BodyKind::Arriving(body) = &mut self.0 {
            body.received = Some(received);
        }
        self
    }
}

impl From<tonic::body::Body> for RequestBody {
    fn from(body: tonic::body::Body) -> Self {
        Self(BodyKind::Layered(body))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.0 {
            BodyKind::Arriving(body) => Pin::new(body).poll_frame(cx),
            BodyKind::Plain(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|error| status(error, None))))
            }
            BodyKind::Layered(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodyKind::Arriving(body) => body.is_end_stream(),
            BodyKind::Plain(body) => body.is_end_stream(),
            BodyKind::Layered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodyKind::Arriving(body) => body.size_hint(),
            BodyKind::Plain(body) => body.size_hint(),
            BodyKind::Layered(body) => body.size_hint(),
        }
    }
}

/// The body of a call. The call's decoder buffers the beginning of a message until its end has come.
/// These bytes count towards the memory that the connection holds.
#[derive(Debug)]
struct ArrivingBody {
    incoming: Incoming,
    message: MessagePosition,
    /// `None` if the whole body has arrived.
    memory: Option<CallMemory>,
    /// `Some` if the call is observed.
    received: Option<Arc<AtomicU64>>,
}

impl ArrivingBody {
    fn new(incoming: Incoming) -> Self {
        Self {
            memory: incoming.call_memory(),
            incoming,
            message: MessagePosition::default(),
            received: None,
        }
    }
}

impl Body for ArrivingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { incoming, message, memory, received } = &mut *self;
        let frame = match ready!(Pin::new(incoming).poll_frame(cx)) {
            Some(Ok(frame)) if frame.is_data() => {
                if let Some(data) = frame.data_ref() {
                    message.take(data);
                    if let Some(received) = received {
                        received.fetch_add(data.len() as u64, Ordering::Relaxed);
                    }
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                *message = MessagePosition::default();
                Some(Err(status(error, None)))
            }
            // The request has ended. tonic accepts trailers as a regular end even inside a message.
            _ if message.incomplete() > 0 => {
                *message = MessagePosition::default();
                Some(Err(cut_off()))
            }
            Some(Ok(frame)) => Some(Ok(normal_trailers(frame))),
            None => None,
        };
        if let Some(memory) = memory {
            memory.set(message.incomplete());
            if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
                // The handler of a unary call holds the message until the call has ended.
                memory.hold(message.only());
                *message = MessagePosition::default();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
