//! Message bodies as gRPC sees them: their failures are statuses, and a deadline ends them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::status::status;
use super::timeout::Deadline;
use crate::address::Address;
use crate::driver::{Incoming, Outbound};
use crate::observer::CallObservation;

/// A body that is cut off at a deadline.
#[derive(Debug)]
struct Timed<B> {
    /// None once it was cut off.
    body: Option<B>,
    deadline: Option<Deadline>,
}

/// The deadline has passed; the body was dropped.
struct Expired;

type Polled<E> = Result<Option<Result<Frame<Bytes>, E>>, Expired>;

impl<B: Body<Data = Bytes> + Unpin> Timed<B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Polled<B::Error>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Ok(None));
        };
        // One that always has more never waits for its deadline.
        let passed = self.deadline.as_ref().is_some_and(Deadline::has_passed);
        if !passed && let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(Ok(frame));
        }
        ready!(self.poll_deadline(cx));
        self.body = None;
        Poll::Ready(Err(Expired))
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some(deadline) => Pin::new(deadline).poll(cx),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of a [`Channel`](crate::Channel)'s response. Its errors are [`Status`]es. Dropping it
/// before its end cancels the call.
#[derive(Debug)]
pub struct ResponseBody {
    body: Timed<Incoming>,
    server: Option<Arc<Address>>,
}

impl ResponseBody {
    /// With a deadline, the body fails with DEADLINE_EXCEEDED when it has not ended by then. If it
    /// is lost, it names the `server`.
    pub(crate) fn new(
        incoming: Incoming,
        deadline: Option<Deadline>,
        server: Option<Arc<Address>>,
    ) -> Self {
        Self { body: Timed { body: Some(incoming), deadline }, server }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, server } = &mut *self;
        body.poll(cx).map(|polled| match polled {
            Ok(frame) => frame.map(|frame| frame.map_err(|error| status(error, server.as_ref()))),
            Err(Expired) => Some(Err(deadline_exceeded())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a server's response: past its deadline it ends with DEADLINE_EXCEEDED.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    body: Timed<tonic::body::Body>,
    observed: Option<Box<CallObservation>>,
}

impl ReplyBody {
    pub(super) fn new(
        body: tonic::body::Body,
        deadline: Option<Deadline>,
        observed: Option<Box<CallObservation>>,
    ) -> Self {
        Self { body: Timed { body: Some(body), deadline }, observed }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.body.poll(cx).map(|polled| match polled {
            Ok(frame) => frame,
            Err(Expired) => {
                let mut trailers = HeaderMap::new();
                let status = self.body.deadline.as_ref().map(Deadline::exceeded);
                let added = status.unwrap_or_else(deadline_exceeded).add_header(&mut trailers);
                Some(added.map(|()| Frame::trailers(trailers)))
            }
        })
    }

    /// The same of a call that is observed.
    #[cold]
    fn poll_observed(
        &mut self,
        mut observed: Box<CallObservation>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = observed.run(|| self.poll(cx));
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    observed.sent(data.len());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    observed.fields(trailers);
                }
            }
            Poll::Ready(Some(Err(status))) => observed.ended_with(status.code()),
            // A body without trailers, such as of plain HTTP.
            Poll::Ready(None) => observed.ended_with(tonic::Code::Unknown),
            Poll::Pending => {}
        }
        self.observed = Some(observed);
        polled
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.observed.take() {
            None => self.poll(cx),
            Some(observed) => self.poll_observed(observed, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Outbound for ReplyBody {
    fn poll_expired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.body.poll_deadline(cx)
    }
}

pub(crate) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the deadline has passed")
}
