//! [`Handler`]: answers a server's requests.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

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
    ///
    /// `message` is an empty buffer for one message. With it, the handler may poll its future here,
    /// with a waker that does nothing. Without it, the handler runs in a task of its own.
    fn call(
        &mut self,
        head: Arc<RequestHead>,
        body: Incoming,
        descriptors: Option<Box<ReceivedSet>>,
        message: Option<&mut Vec<u8>>,
    ) -> Called<Self::Running>;

    /// Returns the head of the answer to a request whose headers are larger than `limit` bytes.
    /// `foreign` means that its method or its content type is known and is not gRPC's.
    fn too_large(_limit: u32, _foreign: bool) -> (StatusCode, HeaderMap) {
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, HeaderMap::new())
    }
}

/// What a handler has done by the end of its call.
pub(crate) enum Called<R> {
    /// It was polled, and has answered.
    Answered(MessageAnswer),
    /// It was polled, and is not ready.
    Pending(R),
    /// It was not polled.
    Unpolled(R),
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

/// Polls a future once. This poll needs no waker: a task that takes the future over polls it again
/// at once. It takes nothing from the cooperative budget of the calling task.
pub(crate) fn in_place<F: Future + Unpin>(future: F) -> Poll<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    pin!(tokio::task::unconstrained(future)).poll(&mut cx)
}

/// The answer of a handler.
pub(crate) enum Answer<B> {
    Response(Response<B>),
    Message(MessageAnswer),
}

/// A response of one message, which was put into the buffer.
pub(crate) struct MessageAnswer {
    pub(crate) head: Fields,
    /// The descriptors that are sent with the response.
    pub(crate) descriptors: Option<Descriptors>,
    pub(crate) trailers: &'static HeaderMap,
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
