//! Message bodies as gRPC sees them: their failures are statuses, and a deadline ends them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::status::status;
use super::timeout::Deadline;
use crate::driver::{Incoming, Outbound};

/// The body of a [`Channel`](crate::Channel)'s response. Its errors are [`Status`]es. Dropping it
/// before its end cancels the call.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Option<Incoming>,
    deadline: Option<Deadline>,
}

impl ResponseBody {
    /// With a deadline, the body fails with DEADLINE_EXCEEDED when it has not ended by then.
    pub(crate) fn new(incoming: Incoming, deadline: Option<Deadline>) -> Self {
        Self { incoming: Some(incoming), deadline }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.deadline.as_ref().is_some_and(Deadline::has_passed) && self.incoming.is_some() {
            self.incoming = None;
            return Poll::Ready(Some(Err(deadline_exceeded())));
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(status)));
        }
        if let Some(deadline) = &mut self.deadline
            && Pin::new(deadline).poll(cx).is_ready()
        {
            self.incoming = None;
            return Poll::Ready(Some(Err(deadline_exceeded())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of a server's response: past its deadline it ends with DEADLINE_EXCEEDED.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    body: Option<tonic::body::Body>,
    deadline: Option<Deadline>,
}

impl ReplyBody {
    pub(super) fn new(body: tonic::body::Body, deadline: Option<Deadline>) -> Self {
        Self { body: Some(body), deadline }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let passed = self.deadline.as_ref().is_some_and(Deadline::has_passed);
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        if !passed && let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if let Some(deadline) = &mut self.deadline
            && Pin::new(deadline).poll(cx).is_ready()
        {
            self.body = None;
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(match deadline_exceeded().add_header(&mut trailers) {
                Ok(()) => Ok(Frame::trailers(trailers)),
                Err(status) => Err(status),
            }));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Outbound for ReplyBody {
    fn poll_expired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some(deadline) => Pin::new(deadline).poll(cx),
            None => Poll::Pending,
        }
    }
}

pub(crate) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the deadline has passed")
}
