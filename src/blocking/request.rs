//! [`BlockingRequest`]: the request of a call, its deadline, and how often it was made.

use std::thread;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::uri::PathAndQuery;
use tonic::Status;

use super::builder::ChannelBuilder;
use super::channel::Channel;
use super::encoded::Encoded;
use super::reader::left;
use crate::address::Address;
use crate::backoff::{Backoff, jittered};
use crate::client::{
    CallPlan, DirectResponse, FailedAttempt, PREVIOUS_ATTEMPTS, PolicyAttempts, RESENDS, WAITING,
    WaitForReady, Waited, no_slot, unavailable, unconnected_in_time,
};
use crate::driver::Fields;
use crate::grpc::{GRPC_TIMEOUT, failure_in, timeout_value};
use crate::http2::{HeadId, SendRequest};
use crate::observer::CallObservation;
use crate::socket::ConnectError;

/// The request of a call.
pub(super) struct BlockingRequest {
    path: &'static str,
    headers: Fields,
    pub(super) deadline: BlockingDeadline,
    pub(super) plan: CallPlan,
    /// The attempts that the retry policy has had made.
    attempts: PolicyAttempts,
    /// How often it was sent again because no server had processed it.
    resends: u32,
    /// How long it waits between connections that were of no use.
    backoff: Backoff,
    pub(super) observation: Option<Box<CallObservation>>,
}

/// Why a call has no response.
pub(super) enum NoResponse {
    /// No server has processed it, so it can be sent again.
    Again(Status),
    /// The same, and its connection takes no more calls.
    Elsewhere(Status),
    Failed(Status),
}

impl From<NoResponse> for Status {
    fn from(reason: NoResponse) -> Self {
        match reason {
            NoResponse::Again(status)
            | NoResponse::Elsewhere(status)
            | NoResponse::Failed(status) => status,
        }
    }
}

/// The moment when a call has to have ended, and the status that it gets after that.
#[derive(Clone, Debug)]
pub(super) struct BlockingDeadline {
    at: Option<Instant>,
    timeout: Duration,
    failed: FailedAttempt,
    path: &'static str,
}

impl BlockingDeadline {
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    pub(super) fn has_passed(&self) -> bool {
        self.at.is_some_and(|at| at <= Instant::now())
    }

    pub(super) fn exceeded(&self, address: &Address) -> Status {
        let (path, waited) = (self.path, self.waited());
        Status::deadline_exceeded(format!(
            "{path}: no complete response from the server at {address} within the deadline of {waited}"
        ))
    }

    /// Returns the status of a call that waited for a slot until its deadline.
    pub(super) fn no_slot(&self, address: &Address) -> Status {
        no_slot(self.path, format_args!("at {address} "), self.waited())
    }

    fn waited(&self) -> Waited<'_> {
        Waited { time: self.timeout, failed: &self.failed }
    }

    /// Returns the status of a call that has failed. After the deadline that is the deadline's
    /// status, whichever end has ended the call.
    pub(super) fn or(&self, status: Status, address: &Address) -> Status {
        if self.has_passed() { self.exceeded(address) } else { status }
    }
}

impl BlockingRequest {
    /// Tells observers that a call begins. It has the channel's deadline if the headers have none.
    /// `wait_for_ready` is the call's own choice, if it has one.
    pub(super) fn new(
        channel: &Channel,
        path: &'static str,
        headers: Fields,
        wait_for_ready: Option<WaitForReady>,
    ) -> Self {
        let observation = channel.observers().map(|observers| {
            let path = PathAndQuery::from_static(path);
            Box::new(CallObservation::of_channel(observers, &path))
        });
        let own = match &headers {
            Fields::Static(_) => None,
            Fields::Own(headers) => Some(&**headers),
        };
        let plan = CallPlan::new(own, wait_for_ready, &channel.config().defaults);
        let at = plan.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Self {
            path,
            headers,
            deadline: BlockingDeadline {
                at,
                timeout: plan.timeout.unwrap_or_default(),
                failed: FailedAttempt::default(),
                path,
            },
            plan,
            attempts: PolicyAttempts::FIRST,
            resends: 0,
            backoff: WAITING,
            observation,
        }
    }

    /// Has the server told how much time is left, if some has passed since the call began.
    pub(super) fn set_time_left(&mut self) {
        let Some(left) = left(self.deadline.at) else { return };
        if self.deadline.timeout.saturating_sub(left) > Duration::from_millis(1) {
            self.headers.set(GRPC_TIMEOUT, timeout_value(left));
            self.plan.note_own_timeout();
        }
    }

    /// Returns the head of the request, with the fields that the channel adds.
    pub(super) fn head<'a>(
        &'a self,
        config: &'a ChannelBuilder,
        authority: &'a [u8],
    ) -> SendRequest<'a> {
        SendRequest {
            method: "POST",
            scheme: "http",
            authority,
            path: self.path,
            headers: &self.headers,
            more: self.plan.more_fields(&config.defaults),
            id: match self.headers {
                Fields::Static(fields) => Some(HeadId::request(self.path, fields)),
                Fields::Own(_) => None,
            },
            descriptors: None,
        }
    }

    /// Returns the status of a call for which there is no connection.
    pub(super) fn unconnected(&self, error: ConnectError) -> NoResponse {
        if !self.deadline.has_passed() {
            return NoResponse::Failed(unavailable(error));
        }
        NoResponse::Failed(unconnected_in_time(error, self.deadline.waited()))
    }

    /// Returns how often the request was made, the attempt that is under way included.
    fn begun(&self) -> u32 {
        self.attempts.made().saturating_add(self.resends)
    }

    /// Returns how long to wait before the request is sent again, and prepares that. Returns `None`
    /// if it is not to be sent again.
    pub(super) fn resend(&mut self, reason: &NoResponse) -> Option<Duration> {
        let (status, waits) = match reason {
            NoResponse::Again(status) => (status, false),
            NoResponse::Elsewhere(status) => (status, self.plan.waits_for_ready),
            NoResponse::Failed(_) => return None,
        };
        let wait = match self.resends {
            // The connection before it was of no use, either.
            1.. if waits => jittered(self.backoff.next()),
            resends if resends < u32::from(RESENDS) => Duration::ZERO,
            _ => return None,
        };
        self.deadline.failed.note(self.begun(), status);
        self.resends = self.resends.saturating_add(1);
        self.count();
        Some(wait)
    }

    /// Returns how long to wait before the next attempt if the policy wants one, and prepares that
    /// attempt.
    pub(super) fn retry(
        &mut self,
        channel: &Channel,
        status: &Status,
        headers: Option<&HeaderMap>,
        message: &Encoded,
    ) -> Option<Duration> {
        let policy = channel.config().retry.as_ref()?;
        let (begun, before) = (self.begun(), self.attempts.made());
        let (attempts, code) = (&mut self.attempts, status.code());
        let wait = policy.next(channel.tokens(), attempts, code, headers, message.len())?;
        self.deadline.failed.note(begun, status);
        self.headers.set(PREVIOUS_ATTEMPTS, before.into());
        self.count();
        Some(wait)
    }

    /// Does the same after a response's head has come. A head without a body may have the status of
    /// a failure.
    pub(super) fn retry_answer(
        &mut self,
        channel: &Channel,
        response: &DirectResponse,
        message: &Encoded,
    ) -> Option<Duration> {
        let policy = channel.config().retry.as_ref()?;
        let headers = &response.head.headers;
        match failure_in(headers) {
            Some(status) => self.retry(channel, &status, Some(headers), message),
            None => {
                channel.tokens().refill(policy);
                None
            }
        }
    }

    /// Sleeps, up to the deadline.
    pub(super) fn back_off(&mut self, wait: Duration) -> Result<(), Status> {
        if wait.is_zero() {
            return Ok(());
        }
        let waits = self.begin_wait();
        let left = left(self.deadline.at);
        thread::sleep(left.map_or(wait, |left| wait.min(left)));
        self.end_wait(waits);
        if left.is_none_or(|left| wait < left) {
            return Ok(());
        }
        let (failures, waited) = (self.begun() - 1, self.deadline.waited());
        let text =
            format!("{}: failed {failures} times within the deadline of {waited}", self.path);
        Err(self.failed(Status::deadline_exceeded(text)))
    }

    pub(super) fn failed(&mut self, status: Status) -> Status {
        if let Some(observation) = &mut self.observation {
            observation.ended_with(status.code());
        }
        status
    }

    // ---- What observers are told ------------------------------------------------------------

    fn count(&mut self) {
        if let Some(observation) = &mut self.observation {
            let attempts = observation.attempts();
            (attempts.retries, attempts.resends) = (self.attempts.made() - 1, self.resends);
        }
    }

    /// Notes that the call waits from now on for a connection, a slot or the next attempt.
    pub(super) fn begin_wait(&self) -> Option<Instant> {
        self.observation.as_ref().map(|_| Instant::now())
    }

    pub(super) fn end_wait(&mut self, began: Option<Instant>) {
        if let (Some(observation), Some(began)) = (&mut self.observation, began) {
            observation.attempts().waited += began.elapsed();
        }
    }

    /// Notes that the request was put into a connection. Its bytes count once, however often that
    /// happens.
    pub(super) fn note_sent(&mut self, bytes: usize) {
        let is_first = self.begun() == 1;
        if let Some(observation) = self.observation.as_mut().filter(|_| is_first) {
            observation.sent(bytes);
        }
    }
}
