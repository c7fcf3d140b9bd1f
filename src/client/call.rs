//! [`Calling`]: one call, from the channel to the response. It decides what may be sent again, and
//! which status an error becomes.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use tokio::time::Sleep;
use tonic::Status;

use super::builder::WaitForReady;
use super::channel::ChannelCore;
use super::connecting::{Unconnected, unconnected_in_time};
use super::failed_attempt::{FailedAttempt, Waited};
use super::link::Link;
use super::plan::CallPlan;
use super::retry::{PREVIOUS_ATTEMPTS, PolicyAttempts};
use crate::driver::{
    self, CloseReason, OutgoingRequest, Phase, Responded, SlotTicket, StreamError, Unsent,
};
use crate::grpc::{Deadline, GRPC_TIMEOUT, failure_in, status, timeout_value};
use crate::http2::{ResponseHead, StreamKey};
use crate::socket::ConnectError;

/// How often a call that no server has processed is sent again.
pub(crate) const RESENDS: u8 = 5;

/// One call, from the channel to the response: all attempts to connect and to send it. Dropping it
/// cancels the call.
///
/// Every call begins with [`new`](Self::new), whether its request is made by [`ResponseFuture`] or
/// by [`Channel::call_directly`](super::direct).
///
/// [`ResponseFuture`]: super::ResponseFuture
pub(crate) struct Calling<R, C = Arc<ChannelCore>> {
    /// The channel, or a reference to it.
    channel: C,
    request: R,
    /// In a box, so that a call without one is small.
    deadline: Option<Box<Deadline>>,
    plan: CallPlan,
    stage: CallStage,
    /// How often it was sent again because no server had processed it.
    resends: u8,
    /// The attempts that a [`RetryPolicy`](super::RetryPolicy) has had made.
    attempts: PolicyAttempts,
    failed: FailedAttempt,
    /// How often it was put into a connection.
    sent: u32,
    /// Whether it has waited for a connection or a slot.
    waited: bool,
    /// Its place in the line for a slot, once there is one for it.
    place: Option<u64>,
}

enum CallStage {
    /// The call is next put into the connection.
    Send,
    /// It waits for a connection.
    Connect(Pin<Box<dyn Future<Output = Result<Arc<Link>, Unconnected>> + Send>>),
    /// It waits for a slot: the server takes a limited number of calls at a time.
    Wait(SlotTicket, Arc<Link>),
    Call(driver::PendingCall<Arc<Link>>),
    /// It waits until the next attempt.
    Backoff(Pin<Box<Sleep>>),
}

/// A response, and the connection that it came on.
pub(super) struct LinkResponse {
    pub(super) responded: Responded,
    pub(super) link: Arc<Link>,
}

impl<R: OutgoingRequest, C: Borrow<Arc<ChannelCore>>> Calling<R, C> {
    /// Begins a call. `wait_for_ready` is the call's own choice, if it has one.
    pub(super) fn new(channel: C, request: R, wait_for_ready: Option<WaitForReady>) -> Self {
        let head = request.head();
        let headers = head.id.is_none().then_some(head.headers);
        let plan = CallPlan::new(headers, wait_for_ready, &channel.borrow().config.defaults);
        Self {
            deadline: plan.timeout.and_then(Deadline::after).map(Box::new),
            plan,
            stage: CallStage::Send,
            resends: 0,
            attempts: PolicyAttempts::FIRST,
            failed: FailedAttempt::default(),
            sent: 0,
            waited: false,
            place: None,
            request,
            channel,
        }
    }

    fn channel(&self) -> &Arc<ChannelCore> {
        self.channel.borrow()
    }

    /// Polls as a future is polled. It fails when the deadline passes.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LinkResponse, Status>> {
        if let Poll::Ready(result) = self.advance(cx) {
            return Poll::Ready(result);
        }
        if let Some(deadline) = &mut self.deadline
            && Pin::new(&mut **deadline).poll(cx).is_ready()
        {
            let status = self.deadline_exceeded();
            // Cancels the call.
            self.stage = CallStage::Send;
            return Poll::Ready(Err(status));
        }
        Poll::Pending
    }

    /// Returns how often the policy had it made again, and how often it was sent again otherwise.
    pub(super) fn made_again(&self) -> (u32, u32) {
        let retries = self.attempts.made() - 1;
        (retries, self.sent.saturating_sub(1 + retries))
    }

    /// Returns whether it was ever put into a connection.
    pub(super) fn was_sent(&self) -> bool {
        self.sent > 0
    }

    /// Returns whether it waits for anything but the answer.
    pub(super) fn waits(&self) -> bool {
        !matches!(self.stage, CallStage::Call(..))
    }

    /// Takes the deadline, which also holds for the rest of the response.
    pub(super) fn take_deadline(&mut self) -> Option<Deadline> {
        self.deadline.take().map(|deadline| *deadline)
    }

    /// Returns the deadline with what a status after it names.
    pub(super) fn named(&self, deadline: Deadline) -> Deadline {
        deadline.of_response(self.request.head().path, self.plan.timeout.unwrap_or_default())
    }

    /// Polls all attempts.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<LinkResponse, Status>> {
        loop {
            match ready!(self.attempt(cx)) {
                Err(status) if self.retry(&status, None) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Returns whether the policy wants another attempt, and prepares that attempt.
    fn retry(&mut self, status: &Status, headers: Option<&HeaderMap>) -> bool {
        let Some(policy) = &self.channel().config.retry else { return false };
        if !self.request.can_be_sent() {
            return false;
        }
        let (tokens, code, buffered) =
            (&self.channel().tokens, status.code(), self.request.buffered());
        let (before, mut attempts) = (self.attempts.made(), self.attempts);
        let wait = policy.next(tokens, &mut attempts, code, headers, buffered);
        let Some(wait) = wait else { return false };
        self.attempts = attempts;
        self.request.set_field(PREVIOUS_ATTEMPTS, before.into());
        self.failed.note(before, status);
        self.stage = CallStage::Backoff(Box::pin(tokio::time::sleep(wait)));
        true
    }

    /// Does the same after a response's head has come. A head without a body may have the status of
    /// a failure.
    fn retry_response(&mut self, head: &ResponseHead) -> bool {
        let Some(policy) = &self.channel().config.retry else { return false };
        match failure_in(&head.headers) {
            Some(status) => self.retry(&status, Some(&head.headers)),
            None => {
                self.channel().tokens.refill(policy);
                false
            }
        }
    }

    /// Polls one attempt, which sends the call again while no server has processed it.
    fn attempt(&mut self, cx: &mut Context<'_>) -> Poll<Result<LinkResponse, Status>> {
        loop {
            match &mut self.stage {
                CallStage::Send => match self.channel().link() {
                    Some(link) => ready!(self.send(link, cx)?),
                    None => self.connect(false),
                },
                CallStage::Connect(connect) => {
                    let connected = ready!(connect.as_mut().poll(cx));
                    self.waited = true;
                    // The call uses the connection that it waited for, even if the connection has
                    // ended by now. Then the error is that of the connection.
                    ready!(self.send(connected?, cx)?);
                }
                CallStage::Wait(waiter, link) => {
                    self.place = Some(ready!(waiter.poll(cx)));
                    self.waited = true;
                    // The slot is one of this connection, even if the channel prefers another by now.
                    let link = Arc::clone(link);
                    self.stage = CallStage::Send;
                    ready!(self.send(link, cx)?);
                }
                CallStage::Backoff(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.stage = CallStage::Send;
                }
                CallStage::Call(call) => {
                    let (link, answer) = ready!(Pin::new(call).poll(cx));
                    match answer {
                        Ok(responded) if self.retry_response(&responded.head) => {}
                        Ok(responded) => return Poll::Ready(Ok(LinkResponse { responded, link })),
                        Err(error) => self.failed(&link, error)?,
                    }
                }
            }
        }
    }

    fn connect(&mut self, later: bool) {
        let (channel, wait) = (Arc::clone(self.channel()), self.plan.waits_for_ready);
        let connect = async move { channel.connect(wait, later).await };
        self.stage = CallStage::Connect(Box::pin(connect));
    }

    /// Sends the request, or sets what the call waits for. It is pending once the request is sent.
    fn send(&mut self, link: Arc<Link>, cx: &Context<'_>) -> Result<Poll<()>, Status> {
        match self.put_into(&link, cx) {
            Ok(key) => {
                self.sent = self.sent.saturating_add(1);
                self.stage = CallStage::Call(driver::PendingCall::new(link, key));
                return Ok(Poll::Pending);
            }
            Err(Unsent::Wait(waiter)) => self.stage = CallStage::Wait(waiter, link),
            // The connection ended before this call.
            Err(Unsent::Elsewhere(_) | Unsent::NotHttp2(_))
                if matches!(self.stage, CallStage::Send) =>
            {
                self.connect(false);
            }
            Err(Unsent::Elsewhere(close_reason)) => {
                self.channel().discard(&link);
                let error = StreamError::ConnectionEnded { close_reason, unprocessed: true };
                self.elsewhere(&link, error)?;
            }
            Err(Unsent::NotHttp2(close_reason)) => return Err(self.not_http2(&link, close_reason)),
            Err(Unsent::TooLarge { limit }) => {
                return Err(headers_too_large(limit));
            }
            Err(Unsent::TooManyDescriptors { limit }) => {
                let text = format!(
                    "the request has more file descriptors than the connection takes with a call, \
                     {limit}: over a Unix socket Server::descriptors and ChannelBuilder::descriptors \
                     set how many"
                );
                return Err(Status::failed_precondition(text));
            }
            Err(Unsent::Body(error)) => return Err(status(error, None)),
        }
        Ok(Poll::Ready(()))
    }

    /// Puts the request into the connection, with the fields that the channel adds.
    fn put_into(&mut self, link: &Link, cx: &Context<'_>) -> Result<StreamKey, Unsent> {
        if self.waited || self.sent > 0 || self.attempts.made() > 1 {
            self.set_time_left();
        }
        let more = self.plan.more_fields(&self.channel.borrow().config.defaults);
        link.sender.send(&mut self.request, &link.authority, more, self.place.take(), cx)
    }

    /// Has the server told how much time is left, instead of the time that the call had at its start.
    fn set_time_left(&mut self) {
        if let Some(deadline) = &self.deadline {
            self.request.set_field(GRPC_TIMEOUT, timeout_value(deadline.left()));
            self.plan.note_own_timeout();
        }
    }

    /// Sends a call to another connection, because its own takes no more calls and no server has
    /// processed the call.
    fn elsewhere(&mut self, link: &Link, error: StreamError) -> Result<(), Status> {
        if self.channel().is_of_stream() {
            return Err(status(error, None));
        }
        if self.plan.waits_for_ready && self.resends > 0 {
            // The connection before it was of no use, either.
            self.connect(true);
        } else if self.resend() {
            self.stage = CallStage::Send;
        } else {
            return Err(status(error, link.address.as_ref()));
        }
        Ok(())
    }

    /// Deals with the failure of a call that was sent.
    fn failed(&mut self, link: &Link, error: StreamError) -> Result<(), Status> {
        let again = error.may_be_sent_again() && self.request.can_be_sent();
        match error {
            StreamError::ConnectionEnded {
                close_reason: close_reason @ CloseReason::NotHttp2(_),
                ..
            } => {
                return Err(self.not_http2(link, close_reason));
            }
            error if again && !link.sender.is_open() => self.elsewhere(link, error)?,
            _ if again && self.resend() => self.stage = CallStage::Send,
            // A server whose deadline acts first may end the stream before our timer does.
            _ if self.deadline.as_ref().is_some_and(|deadline| deadline.has_passed()) => {
                return Err(self.deadline_exceeded());
            }
            error => return Err(status(error, link.address.as_ref())),
        }
        Ok(())
    }

    fn not_http2(&self, link: &Link, close_reason: CloseReason) -> Status {
        match close_reason {
            CloseReason::NotHttp2(error) if !self.channel().is_of_stream() => {
                let address = link.address.as_deref();
                Unconnected::from(ConnectError::not_http2(address, error.why)).into()
            }
            close_reason => Unconnected::Stream(Some(close_reason)).into(),
        }
    }

    fn resend(&mut self) -> bool {
        self.resends = self.resends.saturating_add(1);
        self.resends <= RESENDS
    }

    /// Returns the status of a call whose deadline has passed. It says what the call was waiting
    /// for.
    fn deadline_exceeded(&self) -> Status {
        let time = self.plan.timeout.unwrap_or_default();
        let waited = Waited { time, failed: &self.failed };
        let path = self.request.head().path;
        match &self.stage {
            CallStage::Connect(_) => unconnected_in_time(self.channel().last_failure(), waited),
            CallStage::Wait(_, link) if link.sender.phase() == Phase::Handshake => {
                unconnected_in_time(ConnectError::silent(link.address.as_deref(), None), waited)
            }
            CallStage::Wait(_, link) => no_slot(path, link, waited),
            CallStage::Call(call) => {
                let link = call.connection().map(ToString::to_string).unwrap_or_default();
                Status::deadline_exceeded(format!(
                    "{path}: no response from the server {link}within the deadline of {waited}"
                ))
            }
            CallStage::Send | CallStage::Backoff(_) => Status::deadline_exceeded(format!(
                "{path}: failed {} times within the deadline of {waited}",
                self.attempts.made() - 1
            )),
        }
    }
}

/// Returns the status of a call that waited for a slot until its deadline. `server` is empty, or says
/// where the server is and ends with a space.
pub(crate) fn no_slot(path: &str, server: impl fmt::Display, waited: impl fmt::Display) -> Status {
    Status::deadline_exceeded(format!(
        "{path}: the server {server}takes no more calls at a time \
         (Server::max_concurrent_streams), waited {waited}"
    ))
}

/// Returns the status of a call whose headers exceed the server's `limit` in bytes.
pub(crate) fn headers_too_large(limit: u32) -> Status {
    Status::resource_exhausted(format!(
        "the request's headers are larger than the {limit} bytes that the server takes: raise \
         Server::max_header_list_size there"
    ))
}

/// Writes the server's address and a space, if the link has an address.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.as_ref().map_or(Ok(()), |address| write!(f, "at {address} "))
    }
}
