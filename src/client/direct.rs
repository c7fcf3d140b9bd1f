//! [`DirectCall`]: a call whose request is one message, without an HTTP request.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Extensions, HeaderMap};
use tonic::Status;

use super::call::{Calling, LinkResponse};
use super::channel::{Channel, ChannelCore};
use super::response::of_call;
use crate::driver::{EncodeMessage, Fields, MessageRequest, Responded};
use crate::grpc::{ResponseBody, not_grpc};
use crate::http2::{Content, ResponseHead};

impl Channel {
    /// Starts a call of one message to the method of this path.
    pub(crate) fn call_directly<M: EncodeMessage>(
        &self,
        path: &'static str,
        headers: Fields,
        extensions: &mut Extensions,
        message: M,
    ) -> DirectCall<'_, M> {
        let (descriptors, wait) = match extensions.is_empty() {
            true => (None, None),
            false => (extensions.remove(), extensions.remove()),
        };
        let request = MessageRequest::new(path, headers, of_call(descriptors), message);
        DirectCall(Calling::new(&self.0, request, wait))
    }
}

/// A call whose request is one message. Dropping it cancels the call.
pub(crate) struct DirectCall<'a, M>(Calling<MessageRequest<M>, &'a Arc<ChannelCore>>);

/// What answers a direct call.
pub(crate) struct DirectResponse {
    pub(crate) head: Arc<ResponseHead>,
    pub(crate) extensions: Extensions,
    /// The metadata of an earlier success with the same head and the same trailers, if there was
    /// one.
    pub(crate) usual: Option<HeaderMap>,
}

/// What follows a response's head.
pub(crate) enum DirectBody {
    Whole(Content),
    /// The rest is still arriving.
    Open(Box<ResponseBody>),
}

impl<M: EncodeMessage> DirectCall<'_, M> {
    /// Polls as a future is polled.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(DirectResponse, DirectBody), Status>> {
        let Self(call) = self;
        let LinkResponse { responded, link } = ready!(call.poll_answer(cx))?;
        let Responded { head, body, descriptors } = responded;
        let deadline = call.take_deadline();
        let whole = body.into_whole();
        let deadline = match deadline {
            Some(deadline) if whole.is_err() => Some(call.named(deadline)),
            Some(deadline) if deadline.has_passed() => {
                return Poll::Ready(Err(call.named(deadline).exceeded()));
            }
            in_time => in_time,
        };
        let mut response = DirectResponse::new(head, whole.as_ref().ok())?;
        response.extensions = link.extensions(descriptors)?;
        let body = match whole {
            Ok(content) => DirectBody::Whole(content),
            Err(body) => {
                DirectBody::Open(Box::new(ResponseBody::new(body, deadline, link.address.clone())))
            }
        };
        Poll::Ready(Ok((response, body)))
    }
}

impl DirectResponse {
    /// Makes a response without extensions of its head and, if that is here, the whole of its body.
    ///
    /// # Errors
    ///
    /// If the response is not one of gRPC.
    pub(crate) fn new(head: Arc<ResponseHead>, whole: Option<&Content>) -> Result<Self, Status> {
        let trailers = whole.and_then(|content| content.trailers.as_ref());
        let usual = trailers.and_then(|trailers| head.usual(trailers)).cloned();
        if usual.is_none()
            && let Some(status) = not_grpc(head.status, &head.headers)
        {
            return Err(status);
        }
        Ok(Self { head, extensions: Extensions::new(), usual })
    }

    /// Returns its head and trailers as they arrived if other responses are likely to have the same
    /// ones, which is so if the header cache holds them.
    pub(crate) fn cached_fields(
        &self,
        content: &Content,
    ) -> Option<(Arc<ResponseHead>, Arc<HeaderMap>)> {
        let (head, trailers) = (&self.head, content.trailers.as_ref()?);
        let cached = Arc::strong_count(head) > 1 && Arc::strong_count(trailers) > 1;
        cached.then(|| (Arc::clone(head), Arc::clone(trailers)))
    }
}

impl<M> fmt::Debug for DirectCall<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectCall").finish_non_exhaustive()
    }
}
