//! [`BlockingCall`]: one call on a connection, from its request to the end of its response.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use tonic::{Code, Status};

use super::channel::Channel;
use super::connection::{BlockingConnection, TimedOut};
use super::encoded::Encoded;
use super::request::{BlockingDeadline, BlockingRequest, NoResponse};
use super::state::BlockingState;
use super::waiting::WaitsFor;
use crate::client::{DirectResponse, headers_too_large};
use crate::driver::{CloseReason, StreamError};
use crate::grpc::{normalise, status};
use crate::http2::{Body, Content, NotNow, Progress, Read, StreamKey};
use crate::observer::CallObservation;

/// How often a thread that only sends reads what the server has sent meanwhile. A look before each
/// message would slow down those that send many.
const LOOK: Duration = Duration::from_millis(1);

/// A call. If it is dropped before its end, it is cancelled.
pub(super) struct BlockingCall {
    connection: Arc<BlockingConnection>,
    key: StreamKey,
    deadline: BlockingDeadline,
    /// The whole body of the response, if it came with the head.
    content: Option<Content>,
    /// What was read of the response while the request was sent, if that is wanted.
    early: Option<Box<EarlyData>>,
    over: bool,
    /// Whether its deadline has ended it.
    is_late: bool,
    /// When `send` has last read what the server has sent.
    looked: Option<Instant>,
    /// Dropping it tells observers of the call's end.
    observation: Option<Box<CallObservation>>,
}

/// The beginning of a response that is read while its request is still sent. A server that answers before
/// the request's end may take no more of it until the client takes the answer.
#[derive(Default)]
struct EarlyData {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// No more is read than this and one piece, in bytes.
    most: usize,
}

impl EarlyData {
    /// Reads what has arrived. Returns whether that is more than is wanted.
    fn read(&mut self, state: &mut BlockingState, key: StreamKey) -> bool {
        while self.bytes <= self.most
            && let Read::Data(piece) = state.h2.read(key)
        {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
        self.bytes > self.most
    }
}

/// The next part of a response.
pub(super) enum ResponsePart {
    Data(Bytes),
    End(Option<HeaderMap>),
}

impl BlockingCall {
    /// Sends the head of a request. If the request has only one message, it is sent together with
    /// the head.
    pub(super) fn open(
        channel: &Channel,
        request: &mut BlockingRequest,
        message: Option<&mut Encoded>,
    ) -> Result<Self, NoResponse> {
        let deadline = request.deadline.clone();
        let waits = request.begin_wait();
        let connected =
            channel.connection(deadline.at(), request.plan.waits_for_ready, message.is_none());
        let size = message.as_ref().map_or(0, |message| message.len());
        let opened = connected.map_err(|error| request.unconnected(error)).and_then(|connection| {
            request.set_time_left();
            let key = Self::start(&connection, channel, request, message)?;
            Ok((connection, key))
        });
        request.end_wait(waits);
        let (connection, key) = opened?;
        request.note_sent(size);
        Ok(Self {
            connection,
            key,
            deadline,
            content: None,
            early: None,
            over: false,
            is_late: false,
            looked: None,
            observation: None,
        })
    }

    fn start(
        connection: &BlockingConnection,
        channel: &Channel,
        request: &BlockingRequest,
        mut message: Option<&mut Encoded>,
    ) -> Result<StreamKey, NoResponse> {
        let head = request.head(channel.config(), &connection.authority);
        let opened = connection.until(WaitsFor::Slot, request.deadline.at(), |state| {
            match state.h2.send_request(head, false) {
                Ok(key) => {
                    // It is sent in one write with the head.
                    if let Some(message) = &mut message {
                        message.send(&mut state.h2, key);
                    }
                    Some(Ok(key))
                }
                // The server takes no more calls at the moment.
                Err(NotNow::NoSlot) if state.close_reason.is_none() => None,
                Err(not_now) => Some(Err((not_now, state.end()))),
            }
        });
        match opened {
            Ok(Ok(key)) => Ok(key),
            Ok(Err((NotNow::TooLarge { limit }, _))) => {
                Err(NoResponse::Failed(headers_too_large(limit)))
            }
            Ok(Err((_, close_reason))) => {
                let close_reason = close_reason.unwrap_or(CloseReason::Closed);
                let error = StreamError::ConnectionEnded { close_reason, unprocessed: true };
                Err(NoResponse::Elsewhere(status(error, Some(&connection.address))))
            }
            Err(TimedOut) => Err(NoResponse::Failed(request.deadline.no_slot(&connection.address))),
        }
    }

    /// Returns why it has failed, if it has failed already and no server has processed it.
    pub(super) fn unprocessed(&mut self) -> Option<NoResponse> {
        let error = self.until(|state| {
            // Until the connection has ended, nobody knows. A response may have come already, to a
            // thread that reads for others.
            let failure = |state: &BlockingState| state.h2.failure_of(self.key);
            (!state.is_ending()).then(|| failure(state).map(|failure| state.error(failure)))
        });
        let error = error.ok().flatten().filter(StreamError::may_be_sent_again)?;
        Some(self.failed(error))
    }

    /// Reads the response while the request is sent, up to `most` bytes. Then the server need not take
    /// any more of the request.
    pub(super) fn read_early(&mut self, most: usize) {
        self.early = Some(Box::new(EarlyData { most, ..EarlyData::default() }));
    }

    /// Tells observers of the call from now on.
    pub(super) fn observe(&mut self, observation: Option<Box<CallObservation>>) {
        self.observation = observation;
    }

    /// Does the same for a call whose response has begun.
    pub(super) fn answered(
        &mut self,
        observation: Option<Box<CallObservation>>,
        response: &DirectResponse,
    ) {
        if observation.is_some() {
            self.observation = observation;
            self.note_head(&response.head.headers);
        }
    }

    /// Sends a part of the request, and waits until all of it is in the socket. Returns whether the
    /// server takes more: one that has already answered need not read the rest.
    pub(super) fn send(&mut self, mut data: Vec<u8>) -> Result<bool, Status> {
        if self.over && !self.is_late {
            return Ok(false);
        }
        if self.deadline.has_passed() {
            return Err(self.timed_out());
        }
        let (key, len) = (self.key, data.len());
        let now = Instant::now();
        let looks = self.looked.is_none_or(|looked| now >= looked + LOOK);
        if looks {
            self.looked = Some(now);
        }
        let progress = self.connection.with(|state| {
            if looks {
                self.connection.look(state);
            }
            match state.h2.is_answered(key) {
                true => Progress::Closed,
                false => state.h2.send_small(key, &mut data, false),
            }
        });
        if progress == Progress::Closed {
            return Ok(false);
        }
        if let Some(observation) = &mut self.observation {
            observation.sent(len);
        }
        self.written().map_err(|TimedOut| self.timed_out())
    }

    /// Ends the request. If the deadline passes meanwhile, reading the response tells that.
    pub(super) fn finish(&mut self) {
        self.connection.with(|state| state.h2.send_data(self.key, Bytes::new(), true));
        let _ = self.written();
    }

    /// Waits until all that was sent is in the socket: the thread may do something else afterwards,
    /// and a server waits only so long for the rest of a frame. Returns whether the server takes more.
    pub(super) fn written(&mut self) -> Result<bool, TimedOut> {
        let key = self.key;
        let mut early = self.early.take();
        // What other calls send later does not count.
        let mut end = None;
        let written = self.until(|state| {
            if state.has_failed() {
                return Some(false);
            }
            let mut is_answered = state.h2.is_answered(key);
            if state.h2.is_blocked(key) && !is_answered {
                is_answered = early.as_mut().is_some_and(|early| early.read(state, key));
                if !is_answered {
                    return None;
                }
            }
            let written = state.h2.written();
            let end = *end.get_or_insert(written + state.h2.outgoing_len() as u64);
            (written >= end).then_some(!is_answered)
        });
        self.early = early;
        written
    }

    /// Waits for the head of the response.
    pub(super) fn head(&mut self) -> Result<DirectResponse, NoResponse> {
        let key = self.key;
        let head = self.until(|state| match state.h2.take_response(key) {
            Poll::Ready(Ok((head, Body::Whole(content)))) => {
                state.h2.forget(key);
                Some(Ok((head, Some(content))))
            }
            Poll::Ready(Ok((head, Body::Open))) => Some(Ok((head, None))),
            Poll::Ready(Err(failure)) => Some(Err(state.error(failure))),
            Poll::Pending if state.close_reason.is_some() => Some(Err(gone(state))),
            Poll::Pending => None,
        });
        let (head, whole) = match head {
            Ok(Ok(head)) => head,
            Ok(Err(error)) => return Err(self.failed(error)),
            Err(TimedOut) => return Err(NoResponse::Failed(self.timed_out())),
        };
        self.over = whole.is_some();
        let response = DirectResponse::new(head, whole.as_ref());
        let mut response = response.map_err(|status| NoResponse::Failed(self.ended(status)))?;
        response.extensions = self.connection.extensions.clone();
        self.content = whole;
        self.note_head(&response.head.headers);
        Ok(response)
    }

    /// Returns whether the response has nothing but its head.
    pub(super) fn is_answered_by_head(&self) -> bool {
        let content = self.content.as_ref();
        content.is_some_and(|content| content.pieces.is_empty() && content.trailers.is_none())
    }

    /// Takes the whole body of the response, if it came with the head.
    pub(super) fn take_content(&mut self) -> Option<Content> {
        self.content.take()
    }

    /// Waits for the next part of the response. After the end it returns the end again.
    pub(super) fn next(&mut self) -> Result<ResponsePart, Status> {
        if let Some(data) = self.early.as_mut().and_then(|early| early.pieces.pop_front()) {
            if let Some(observation) = &mut self.observation {
                observation.received_more(data.len());
            }
            return Ok(ResponsePart::Data(data));
        }
        if let Some(content) = &mut self.content {
            if let Some(piece) = content.pieces.pop() {
                return Ok(ResponsePart::Data(piece));
            }
            let mut trailers = content.trailers.take().map(Arc::unwrap_or_clone);
            trailers.iter_mut().for_each(normalise);
            return Ok(ResponsePart::End(trailers));
        }
        if self.is_late {
            return Err(self.timed_out());
        }
        if self.over {
            return Ok(ResponsePart::End(None));
        }
        let key = self.key;
        let next = self.until(|state| {
            Some(match state.h2.read(key) {
                Read::Data(data) => Ok(ResponsePart::Data(data)),
                Read::Trailers(trailers) => {
                    Ok(ResponsePart::End(Some(Arc::unwrap_or_clone(trailers))))
                }
                Read::End => Ok(ResponsePart::End(None)),
                Read::Failed(failure) => Err(state.error(failure)),
                Read::Pending if state.close_reason.is_none() => return None,
                Read::Pending | Read::Forgotten => Err(gone(state)),
            })
        });
        match next {
            Ok(Ok(ResponsePart::Data(data))) => {
                if let Some(observation) = &mut self.observation {
                    observation.received_more(data.len());
                }
                Ok(ResponsePart::Data(data))
            }
            Ok(Ok(ResponsePart::End(mut trailers))) => {
                self.forget();
                if let Some(observation) = &mut self.observation {
                    observation.ended(trailers.as_ref());
                }
                trailers.iter_mut().for_each(normalise);
                Ok(ResponsePart::End(trailers))
            }
            Ok(Err(error)) => Err(self.failed(error).into()),
            Err(TimedOut) => Err(self.timed_out()),
        }
    }

    /// Waits until `find` finds something of this call.
    fn until<T>(&self, find: impl FnMut(&mut BlockingState) -> Option<T>) -> Result<T, TimedOut> {
        self.connection.until(WaitsFor::Stream(self.key), self.deadline.at(), find)
    }

    fn timed_out(&mut self) -> Status {
        self.is_late = true;
        self.forget();
        self.ended(self.deadline.exceeded(&self.connection.address))
    }

    fn failed(&mut self, error: StreamError) -> NoResponse {
        self.forget();
        let again = error.may_be_sent_again();
        let address = &self.connection.address;
        let status = self.deadline.or(status(error, Some(address)), address);
        // While a call may be made again, its request has the observation.
        let status = self.ended(status);
        match again && status.code() != Code::DeadlineExceeded {
            true if self.connection.is_open(false) => NoResponse::Again(status),
            true => NoResponse::Elsewhere(status),
            false => NoResponse::Failed(status),
        }
    }

    /// Notes the status with which the call has failed.
    pub(super) fn ended(&mut self, status: Status) -> Status {
        if let Some(observation) = &mut self.observation {
            observation.ended_with(status.code());
        }
        status
    }

    /// Notes the status of an outcome.
    pub(super) fn conclude<T>(&mut self, outcome: Result<T, Status>) -> Result<T, Status> {
        outcome.map_err(|status| self.ended(status))
    }

    fn note_head(&mut self, headers: &HeaderMap) {
        let Some(observation) = &mut self.observation else { return };
        let watched = self.connection.watched.as_ref();
        observation.answered(watched.and_then(|watched| watched.connection.clone()));
        observation.fields(headers);
        if let Some(content) = &self.content {
            observation.received_more(content.pieces.len());
            observation.ended(content.trailers.as_deref());
        }
    }

    fn forget(&mut self) {
        if !self.over {
            self.over = true;
            self.connection.forget(self.key);
        }
    }
}

impl Drop for BlockingCall {
    fn drop(&mut self) {
        self.forget();
    }
}

fn gone(state: &BlockingState) -> StreamError {
    let close_reason = state.end().unwrap_or(CloseReason::Closed);
    StreamError::ConnectionEnded { close_reason, unprocessed: false }
}
