//! [`DirectCall`]: a call whose request is one message, without an HTTP request.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use http::{Extensions, HeaderMap};
use tonic::Status;

use super::call::{Calling, LinkResponse};
use super::channel::{Channel, lock};
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
    ) -> DirectCall<M> {
        let (descriptors, wait) = match extensions.is_empty() {
            true => (None, None),
            false => (extensions.remove(), extensions.remove()),
        };
        let request = MessageRequest::new(path, headers, of_call(descriptors), message);
        DirectCall(Calling::new(self, request, wait))
    }
}

/// A call whose request is one message. Dropping it cancels the call.
pub(crate) struct DirectCall<M>(Calling<MessageRequest<M>>);

/// What answers a direct call.
pub(crate) struct DirectResponse {
    pub(crate) head: Arc<ResponseHead>,
    pub(crate) extensions: Extensions,
    /// An earlier response with the same head and the same trailers, if there was one.
    pub(crate) usual: Option<Arc<KnownResponse>>,
    known: Arc<Usual>,
}

/// What follows a response's head.
pub(crate) enum DirectBody {
    Whole(Content),
    /// The rest is still arriving.
    Open(Box<ResponseBody>),
}

impl<M: EncodeMessage> DirectCall<M> {
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
        let mut response = DirectResponse::new(head, whole.as_ref().ok(), &link.usual)?;
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

/// What most responses of a connection have in common: whatever method they answer, their heads are
/// the same and their trailers are the same.
#[derive(Debug, Default)]
pub(crate) struct Usual(Mutex<Option<Arc<KnownResponse>>>);

/// A response that was a success and whose message was not compressed.
#[derive(Debug)]
pub(crate) struct KnownResponse {
    // Both are kept here, so their addresses are not reused for other values.
    head: Arc<ResponseHead>,
    trailers: Arc<HeaderMap>,
    /// What a caller gets of both.
    pub(crate) metadata: HeaderMap,
}

impl Usual {
    #[inline]
    fn find(
        &self,
        head: &Arc<ResponseHead>,
        trailers: &Arc<HeaderMap>,
    ) -> Option<Arc<KnownResponse>> {
        let known = lock(&self.0);
        let known = known.as_ref()?;
        let same = Arc::ptr_eq(&known.head, head) && Arc::ptr_eq(&known.trailers, trailers);
        same.then(|| Arc::clone(known))
    }
}

/// A response's fields as they arrived, for [`UsualFields::remember`].
pub(crate) struct UsualFields {
    known: Arc<Usual>,
    head: Arc<ResponseHead>,
    trailers: Arc<HeaderMap>,
}

impl DirectResponse {
    /// Makes a response without extensions of its head and, if that is here, the whole of its body.
    ///
    /// # Errors
    ///
    /// If the response is not one of gRPC.
    pub(crate) fn new(
        head: Arc<ResponseHead>,
        whole: Option<&Content>,
        known: &Arc<Usual>,
    ) -> Result<Self, Status> {
        let usual = match whole {
            Some(Content { trailers: Some(trailers), .. }) => known.find(&head, trailers),
            _ => None,
        };
        if usual.is_none()
            && let Some(status) = not_grpc(head.status, &head.headers)
        {
            return Err(status);
        }
        Ok(Self { head, extensions: Extensions::new(), usual, known: Arc::clone(known) })
    }

    /// Returns its fields if other responses are likely to have the same ones, which is so if the
    /// header cache holds them.
    pub(crate) fn usual_fields(&self, content: &Content) -> Option<UsualFields> {
        let trailers = content.trailers.as_ref()?;
        let cached = Arc::strong_count(&self.head) > 1 && Arc::strong_count(trailers) > 1;
        cached.then(|| UsualFields {
            known: Arc::clone(&self.known),
            head: Arc::clone(&self.head),
            trailers: Arc::clone(trailers),
        })
    }
}

impl UsualFields {
    /// Notes that a response with these fields was a success with this metadata, and that its
    /// message was not compressed.
    pub(crate) fn remember(self, metadata: &HeaderMap) {
        let Self { known, head, trailers } = self;
        let metadata = metadata.clone();
        *lock(&known.0) = Some(Arc::new(KnownResponse { head, trailers, metadata }));
    }
}

impl<M> fmt::Debug for DirectCall<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectCall").finish_non_exhaustive()
    }
}
