//! [`Handler`]: what answers a server's requests.

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
use crate::descriptors::{Arrived, Descriptors};
use crate::http2::RequestHead;

/// What answers requests.
pub(crate) trait Handler: Send + 'static {
    type Body: Outbound<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;

    /// A handler at work.
    type Reply: PollAnswer<Body = Self::Body> + Send + Unpin + 'static;

    /// Starts to answer. The reply is polled once at once; one that is not ready then moves to a
    /// task of its own.
    fn call(
        &mut self,
        head: Arc<RequestHead>,
        body: Incoming,
        descriptors: Option<Box<Arrived>>,
    ) -> Self::Reply;

    /// Returns the head of the answer to a request whose headers are larger than `limit` bytes.
    /// `foreign`: its content type is known and none of gRPC's.
    fn too_large(_limit: u32, _foreign: bool) -> (StatusCode, HeaderMap) {
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, HeaderMap::new())
    }
}

/// A handler at work: a future that is lent room for its answer.
pub(crate) trait PollAnswer {
    type Body;

    /// Polls as a future is polled. `message` is empty, and room for one message.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Vec<u8>,
    ) -> Poll<Answer<Self::Body>>;
}

/// What a handler answers.
pub(crate) enum Answer<B> {
    Response(Response<B>),
    /// A response with the message that was put into the room for it, and trailers.
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
