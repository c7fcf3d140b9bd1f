//! Bodies whose failures are gRPC statuses and which end at a deadline.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use super::message::{MessagePosition, cut_off};
use super::metadata::normal_trailers;
use super::panics::panicked;
use super::plain_http::BodyLength;
use super::status::{status, succeeded, trailers_of};
use super::timeout::Deadline;
use crate::address::Address;
use crate::driver::{Expiry, Incoming, Outbound, StreamError};
use crate::observer::CallObservation;

/// A body that ends at a deadline.
#[derive(Debug)]
struct Timed<B> {
    /// `None` after the deadline or a failure.
    body: Option<B>,
    deadline: Option<Deadline>,
    /// Whether the body has had data.
    began: bool,
    /// The position in the messages of a response that the server's own deadline may end.
    sent: Option<Box<MessagePosition>>,
}

/// The error after the deadline, at which the body was dropped.
struct Expired(Status);

type Polled<E> = Result<Option<Result<Frame<Bytes>, E>>, Expired>;

impl<B: Body<Data = Bytes> + Unpin> Timed<B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Polled<B::Error>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Ok(None));
        };
        match Pin::new(body).poll_frame(cx) {
            Poll::Pending => ready!(self.poll_deadline(cx)),
            // A body that always has more data never polls the timer, so the clock is checked. A single
            // message that is ready at once is sent even if there is no time at all.
            Poll::Ready(frame) => {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                let is_more = data.is_some() && std::mem::replace(&mut self.began, true);
                if !is_more || !self.has_expired() {
                    if let (Some(sent), Some(data)) = (&mut self.sent, data) {
                        sent.take(data);
                    }
                    return Poll::Ready(Ok(frame));
                }
                if let Some(rest) = data.and_then(|data| self.rest_of_message(data)) {
                    return Poll::Ready(Ok(Some(Ok(Frame::data(rest)))));
                }
            }
        }
        self.body = None;
        Poll::Ready(Err(Expired(self.exceeded())))
    }

    /// Returns the status after the deadline.
    fn exceeded(&self) -> Status {
        self.deadline.as_ref().map_or_else(Deadline::passed, Deadline::exceeded)
    }

    /// Returns what is sent of `data` after the deadline, so that a client is not left with half of a message.
    fn rest_of_message(&mut self, data: &Bytes) -> Option<Bytes> {
        let sent = self.sent.as_mut()?;
        let rest = sent.take_rest(data);
        (rest > 0).then(|| data.slice(..rest))
    }

    fn has_expired(&self) -> bool {
        self.deadline.as_ref().is_some_and(Deadline::has_passed)
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
/// before its end cancels the call. The default value is an empty body: generated clients with an
/// interceptor need it.
#[derive(Debug, Default)]
pub struct ResponseBody {
    body: Timed<Incoming>,
    message: MessagePosition,
    server: Option<Arc<Address>>,
    observed: Option<Box<CallObservation>>,
}

impl ResponseBody {
    /// Returns a body that fails with DEADLINE_EXCEEDED if it has not ended at the `deadline`. The
    /// error of a broken connection names the `server`.
    pub(crate) fn new(
        incoming: Incoming,
        deadline: Option<Deadline>,
        server: Option<Arc<Address>>,
    ) -> Self {
        let body = Timed { body: Some(incoming), deadline, ..Timed::default() };
        Self { body, message: MessagePosition::default(), server, observed: None }
    }

    /// Lets the body's end also end the call that `observation` tells of.
    pub(crate) fn observe(&mut self, observation: Box<CallObservation>) {
        // If nothing is left to read, the body may never be read, so its end is noted now.
        self.observed = (!self.is_end_stream()).then_some(observation);
    }

    /// Returns the status of a body that failed. The server may end the stream at the deadline
    /// before our timer does: so any failure after the deadline is DEADLINE_EXCEEDED.
    fn failure(&mut self, error: StreamError) -> Status {
        let expired = self.body.has_expired();
        self.stop();
        if expired { self.body.exceeded() } else { status(error, self.server.as_ref()) }
    }

    /// Ends the body after an error: nothing follows.
    fn stop(&mut self) {
        self.body.body = None;
        self.message = MessagePosition::default();
    }

    /// Handles the end of the response, with trailers or without.
    fn end(&mut self, frame: Option<Frame<Bytes>>) -> Option<Result<Frame<Bytes>, Status>> {
        let frame = frame.map(normal_trailers);
        let trailers = frame.as_ref().and_then(Frame::trailers_ref);
        // A status other than OK is passed on, since it has the cause.
        if self.message.incomplete() > 0 && trailers.is_none_or(succeeded) {
            self.stop();
            return Some(Err(cut_off()));
        }
        // The body may be polled again, and its end was dealt with.
        self.message = MessagePosition::default();
        frame.map(Ok)
    }
}

impl<B> Default for Timed<B> {
    fn default() -> Self {
        Self { body: None, deadline: None, began: false, sent: None }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let next = match ready!(this.body.poll(cx)) {
            Ok(Some(Ok(frame))) => match frame.data_ref() {
                Some(data) => {
                    this.message.take(data);
                    Some(Ok(frame))
                }
                None => this.end(Some(frame)),
            },
            Ok(Some(Err(error))) => Some(Err(this.failure(error))),
            Ok(None) => this.end(None),
            Err(Expired(status)) => {
                this.stop();
                Some(Err(status))
            }
        };
        if let Some(observed) = this.observed.take() {
            this.observed = observed.read(&next);
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a server's response. After its deadline it ends with DEADLINE_EXCEEDED. If it fails
/// or panics, it ends with the status of that, or with an error if the response is not gRPC.
#[derive(Debug)]
pub(crate) struct ServiceBody {
    body: Timed<tonic::body::Body>,
    observed: Option<Box<CallObservation>>,
    /// `Some` if the response is not gRPC.
    http: Option<BodyLength>,
}

impl ServiceBody {
    pub(super) fn new(
        body: tonic::body::Body,
        deadline: Option<Deadline>,
        observed: Option<Box<CallObservation>>,
        http: Option<BodyLength>,
    ) -> Self {
        let of_server = deadline.as_ref().is_some_and(Deadline::is_of_server);
        let sent = (of_server && http.is_none()).then(Box::default);
        let body = Timed { body: Some(body), deadline, sent, ..Timed::default() };
        Self { body, observed, http }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.body.poll(cx)));
        let failure = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(Some(Err(status))))) => status,
            Ok(Poll::Ready(Ok(frame))) => {
                let sent = || frame.as_ref().and_then(|frame| frame.as_ref().ok());
                if self.http.as_mut().is_none_or(|length| length.take(sent())) {
                    return Poll::Ready(frame);
                }
                Status::internal("the body has another length than its head tells")
            }
            Ok(Poll::Ready(Err(Expired(status)))) => status,
            Err(panic) => panicked(&*panic),
        };
        self.body.body = None;
        if self.http.is_some() {
            return Poll::Ready(Some(Err(failure)));
        }
        Poll::Ready(Some(trailers_of(&failure).map(Frame::trailers)))
    }

    /// Does the same as `poll` for a call that is observed.
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
                    observed.ended(Some(trailers));
                }
            }
            Poll::Ready(Some(Err(status))) => observed.ended_with(status.code()),
            // The body has no trailers, such as one of plain HTTP.
            Poll::Ready(None) => observed.ended_with(Code::Unknown),
            Poll::Pending => {}
        }
        self.observed = Some(observed);
        polled
    }
}

impl Body for ServiceBody {
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
        let lacks_data = self.http.as_ref().is_some_and(BodyLength::lacks_data);
        // It has to be polled for its failure.
        self.body.is_end_stream() && !lacks_data
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Outbound for ServiceBody {
    fn poll_expired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Expiry> {
        ready!(self.body.poll_deadline(cx));
        if self.body.deadline.as_ref().is_some_and(Deadline::is_of_server) {
            return Poll::Ready(Expiry::LastFrames);
        }
        // A client whose own deadline has passed waits for no trailers.
        if let Some(observed) = &mut self.observed {
            observed.ended_with(Code::DeadlineExceeded);
        }
        Poll::Ready(Expiry::Reset)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::uri::PathAndQuery;
    use http_body_util::{BodyExt, StreamBody};

    use super::super::timeout::LimitOf;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_the_deadline_only_the_rest_of_a_message_is_sent() {
        // The frames begin and end within messages.
        let messages = [0, 0, 0, 0, 3, 7, 7, 7].repeat(1_000);
        let frame = |bytes: &[u8]| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(bytes)));
        let frames: Vec<_> = messages.chunks(7).map(frame).collect();
        let body = tonic::body::Body::new(StreamBody::new(tokio_stream::iter(frames)));
        let path = PathAndQuery::from_static("/s/M");
        let deadline = Deadline::of_call(&path, Duration::from_secs(1), LimitOf::Server);
        let mut body = ServiceBody::new(body, deadline, None, None);
        let mut sent = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
        tokio::time::advance(Duration::from_secs(2)).await;
        let trailers = loop {
            match body.frame().await.unwrap().unwrap().into_data() {
                Ok(data) => sent.extend_from_slice(&data),
                Err(frame) => break frame.into_trailers().unwrap(),
            }
        };
        assert_eq!(sent, messages[..8]);
        assert_eq!(trailers[Status::GRPC_STATUS], "4");
    }
}
