//! [`Handler`]: answers a server's requests.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::response::Response;
use http::{HeaderMap, StatusCode};

use super::body::Incoming;
use super::fields::Fields;
use super::options::BoxError;
use super::send::Outbound;
use crate::descriptors::{Descriptors, ReceivedSet};
use crate::http2::RequestHead;

/// Answers requests.
pub(crate) trait Handler: Send + 'static {
    type Body: Outbound<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;

    /// A running handler.
    type Running: PollAnswer<Body = Self::Body> + Send + Unpin + 'static;

    /// Starts to answer. The running handler is polled at once. If it is not ready then, it moves
    /// to a task of its own.
    fn call(
        &mut self,
        head: Arc<RequestHead>,
        body: Incoming,
        descriptors: Option<Box<ReceivedSet>>,
    ) -> Self::Running;

    /// Returns the head of the answer to a request whose headers are larger than `limit` bytes.
    /// `foreign` means that its content type is known and is not gRPC's.
    fn too_large(_limit: u32, _foreign: bool) -> (StatusCode, HeaderMap) {
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, HeaderMap::new())
    }
}

/// A running handler: a future that gets a buffer for its answer.
pub(crate) trait PollAnswer {
    type Body;

    /// Polls as a future is polled. `message` is an empty buffer for one message.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Vec<u8>,
    ) -> Poll<Answer<Self::Body>>;
}

/// The answer of a handler.
pub(crate) enum Answer<B> {
    Response(Response<B>),
    /// A response whose message was put into the buffer, and its trailers.
    Message {
        head: Fields,
        descriptors: Option<Descriptors>,
        trailers: &'static HeaderMap,
    },
}

impl<F, B> PollAnswer for F
where
    F: Future<Output = Response<B>> + Unpin,
{
    type Body = B;

    fn poll_answer(&mut self, cx: &mut Context<'_>, _: &mut Vec<u8>) -> Poll<Answer<B>> {
        Pin::new(self).poll(cx).map(Answer::Response)
    }
}
