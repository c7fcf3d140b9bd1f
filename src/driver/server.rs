//! The server's end: it gives requests to handlers, and puts their responses into the connection.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, MutexGuard};
use std::task::Poll;
use std::time::Instant;

use futures_core::Stream;
use http::uri::PathAndQuery;

use super::beside::Beside;
use super::body::Incoming;
use super::closing::{ClosedOnDrop, Ended};
use super::connection_memory::ConnectionMemory;
use super::connection_task::ConnectionTask;
use super::discard::discard;
use super::duties::Duties;
use super::encode_buffer::EncodeBuffer;
use super::error::CloseReason;
use super::handler::{Answer, Called, Handler, MessageAnswer, PollAnswer, in_place};
use super::handler_task::{HandlerStage, HandlerTask};
use super::live_handlers::LiveHandler;
use super::memory::User;
use super::options::Options;
use super::output_limit::OutputLimit;
use super::response::{
    ResponseParts, Unanswered, refuse_headers, send_message, send_parts, taken_apart,
};
use super::send::SendBody;
use super::shared::{Shared, State};
use super::slow_methods::SlowMethods;
use super::socket::Socket;
use super::spare::{push, trim};
use super::time_slice::TimeSlice;
use super::timer::now;
use crate::descriptors::ReceivedSet;
use crate::http2::{
    Body, Connection, ErrorCode, NoRequest, Notice, ProtocolEvent, Request, RequestHead, StreamKey,
};
use crate::runtime::has_several_threads;

/// Serves one connection until the client closes it or, after one of `notices`, until its calls have
/// ended. A later notice can shorten an earlier one. Dropping it drops its handlers.
///
/// It is not an `async fn`, which would hold its arguments twice as long as it runs.
///
/// Returns `Ok` if the client closes the connection, or if this end has no more use for it.
pub(crate) fn serve<T, H>(
    mut io: T,
    handler: H,
    options: Options,
    user: Arc<User>,
    live: LiveHandler,
    notices: impl Stream<Item = Notice>,
) -> impl Future<Output = Result<Ended, CloseReason>>
where
    T: Socket,
    H: Handler,
{
    let shared = Shared::new(Connection::server(options.http2, now()));
    shared.lock().response_quotas = io.take_response_quotas();
    let closed_on_drop = ClosedOnDrop(Arc::clone(&shared));
    let slow = has_several_threads().then(SlowMethods::default);
    let duties = ServerDuties { handler, requests: Vec::new(), slow, live };
    let memory = ConnectionMemory::new(Some(user));
    let mut task = ConnectionTask::new(io, duties, memory, options.busy_poll);
    async move {
        let _closed_on_drop = closed_on_drop;
        let notices = pin!(notices);
        let mut notices = Beside::new(notices);
        let mut shutting_down = false;
        let close_reason = poll_fn(|cx| {
            loop {
                let polled = task.poll(&shared, cx);
                if polled.is_ready() {
                    return polled;
                }
                let Poll::Ready(Some(notice)) = notices.poll(cx) else { return polled };
                // The turn before has read what was there. So a peer whose SETTINGS were among that
                // gets a graceful end.
                shutting_down = true;
                shared.shut_down(notice);
            }
        })
        .await;
        // It is boxed, so that it takes no memory as long as the connection lasts.
        Box::pin(task.close()).await;
        match close_reason {
            CloseReason::Closed => Ok(shared.ended(shutting_down)),
            // A client that was told to go may close the connection before the second GOAWAY reaches it.
            CloseReason::Io(_) if shutting_down => Ok(Ended::Closed),
            CloseReason::Io(_) if shared.ended(shutting_down) == Ended::Idle => Ok(Ended::Idle),
            close_reason => Err(close_reason),
        }
    }
}

struct ServerDuties<H: Handler> {
    handler: H,
    /// Requests whose handlers are not called yet.
    requests: Vec<StreamKey>,
    /// The methods that are not polled in place. `None` if no other thread could poll them.
    slow: Option<SlowMethods>,
    live: LiveHandler,
}

/// What a handler has done in place.
#[allow(clippy::large_enum_variant, reason = "it is passed on at once")]
enum Outcome<H: Handler> {
    Response(ResponseParts<H::Body>),
    Message(MessageAnswer),
    Pending(H::Running),
    Panicked,
}

impl<H: Handler> Outcome<H> {
    fn of(answer: Answer<H::Body>) -> Self {
        match answer {
            Answer::Response(response) => Self::Response(taken_apart(response)),
            Answer::Message(answer) => Self::Message(answer),
        }
    }
}

/// Returns what a handler has done after its call. If it was not polled and is not slow, this polls it.
#[inline]
fn polled<H: Handler>(
    called: Option<Called<H::Running>>,
    is_slow: bool,
    message: &mut Vec<u8>,
) -> Outcome<H> {
    let mut running = match called {
        Some(Called::Answered(answer)) => return Outcome::Message(answer),
        Some(Called::Unpolled(running)) if !is_slow => running,
        Some(Called::Pending(running) | Called::Unpolled(running)) => {
            return Outcome::Pending(running);
        }
        None => return Outcome::Panicked,
    };
    let poll = || in_place(poll_fn(|cx| running.poll_answer(cx, message)));
    let outcome = match catch_unwind(AssertUnwindSafe(poll)) {
        Ok(Poll::Ready(answer)) => Outcome::of(answer),
        Ok(Poll::Pending) => return Outcome::Pending(running),
        Err(_) => Outcome::Panicked,
    };
    discard(running);
    outcome
}

/// Notes that a handler has run in place. `method` is its method if those that take long have to be known.
#[inline]
fn note_handler(
    time_slice: &mut Option<TimeSlice>,
    method: Option<PathAndQuery>,
    slow: &mut Option<SlowMethods>,
) {
    let taken = time_slice.as_mut().and_then(|slice| slice.note_handler(Instant::now));
    if let (Some(taken), Some(method), Some(slow)) = (taken, method, slow) {
        slow.note(method, taken);
    }
}

/// The work of a handler that a task has to do, if there is some.
type Left<H> = Option<(StreamKey, HandlerStage<<H as Handler>::Running, <H as Handler>::Body>)>;

/// Sends what a handler has answered so far. Returns what a task has to do, or otherwise ends the call.
fn respond<H: Handler>(
    shared: &Arc<Shared>,
    request: Unanswered,
    outcome: Outcome<H>,
    message: &mut Vec<u8>,
) -> Left<H> {
    let mut response = None;
    let mut state = shared.lock();
    let key = request.open(&mut state);
    let left = match outcome {
        Outcome::Response(parts) => {
            let rest = send_parts(&mut state, key, response.insert(parts));
            rest.map(|(body, next)| {
                HandlerStage::Body(SendBody::new(Arc::clone(shared), key, body, next))
            })
        }
        Outcome::Message(answer) => {
            send_message(&mut state, key, answer, message);
            None
        }
        Outcome::Pending(running) => Some(HandlerStage::Call(running)),
        Outcome::Panicked => {
            state.h2.reset(key, ErrorCode::INTERNAL_ERROR);
            None
        }
    };
    if left.is_none() {
        state.forget(key);
    }
    // What is left of the response is dropped after the lock is free.
    drop(state);
    discard(response);
    left.map(|stage| (key, stage))
}

/// Takes a request for a handler. Its descriptors are closed when the call ends. If its headers are too
/// large, it is answered at once.
#[inline]
fn take_request<H: Handler>(state: &mut State, key: StreamKey) -> Option<Request> {
    match state.h2.take_request(key) {
        Ok(request) => {
            if let Some(Ok(descriptors)) = request.descriptors.as_ref().map(|arrived| &arrived.set)
            {
                state.close_at_the_end(key, descriptors.clone());
            }
            Some(request)
        }
        Err(NoRequest::Forgotten) => None,
        Err(NoRequest::TooLarge { limit, foreign }) => {
            refuse_headers(state, key, H::too_large(limit, foreign));
            None
        }
    }
}

/// A request for a handler.
struct Arrival {
    request: Unanswered,
    head: Arc<RequestHead>,
    body: Incoming,
    descriptors: Option<Box<ReceivedSet>>,
}

impl<H: Handler> ServerDuties<H> {
    /// Takes the next request for a handler: first those that have streams, and then those that have
    /// arrived whole, up to `batch` in all. `taken` is how many this turn has taken.
    #[inline]
    fn next(
        &self,
        state: &mut State,
        shared: &Arc<Shared>,
        taken: &mut usize,
        batch: usize,
    ) -> Option<Arrival> {
        while let Some(key) = self.requests.get(*taken).copied() {
            *taken += 1;
            if let Some(Request { head, body, descriptors }) = take_request::<H>(state, key) {
                let body = match body {
                    Body::Whole(content) => Incoming::whole(content),
                    Body::Open => Incoming::stream(Arc::clone(shared), key),
                };
                return Some(Arrival { request: Unanswered::Stream(key), head, body, descriptors });
            }
        }
        if *taken >= batch {
            return None;
        }
        let (request, head, content) = state.h2.take_whole()?;
        *taken += 1;
        let body = Incoming::whole(content);
        Some(Arrival { request: Unanswered::Whole(request), head, body, descriptors: None })
    }
}

impl<H: Handler> Duties for ServerDuties<H> {
    /// The turn itself encodes most of what is sent.
    const KEPT_OUTPUT: usize = 0;

    /// The calls that a server knows are those that have arrived. It takes half of them.
    const CALLS_PER_TAKEN: u8 = 2;

    fn event(&mut self, state: &mut State, event: ProtocolEvent) {
        match event {
            ProtocolEvent::Opened(key) => {
                push(&mut self.requests, key);
                if self.requests.len() > 2 * state.h2.active_streams() + 16 {
                    // While no handlers are called, peers may cancel their requests.
                    self.requests.retain(|key| state.h2.is_known(*key));
                }
            }
            event => state.deliver(event),
        }
    }

    fn is_full(&self, _: &State, batch: usize) -> bool {
        self.requests.len() >= batch
    }

    fn has_requests(&self, state: &State) -> bool {
        !self.requests.is_empty() || state.h2.whole_requests() > 0
    }

    fn run<'a>(
        &mut self,
        mut state: MutexGuard<'a, State>,
        shared: &'a Arc<Shared>,
        batch: usize,
        limit: OutputLimit,
    ) -> MutexGuard<'a, State> {
        let mut message = EncodeBuffer::take();
        let is_timed = self.slow.is_some() || self.requests.len() + state.h2.whole_requests() > 1;
        let mut time_slice = is_timed.then(|| TimeSlice::begin(self.slow.is_some()));
        let mut taken = 0;
        while !time_slice.as_ref().is_some_and(TimeSlice::is_over)
            && !limit.is_exceeded(&state)
            && let Some(arrival) = self.next(&mut state, shared, &mut taken, batch)
        {
            let Self { handler, slow, live, .. } = &mut *self;
            drop(state);
            let Arrival { request, head, body, descriptors } = arrival;
            let runs = slow.as_mut().and_then(|slow| slow.find(&head.path));
            let is_slow = runs.is_some();
            let method = (slow.is_some() && !is_slow).then(|| head.path.clone());
            let buffer = (!is_slow).then_some(&mut *message);
            let called =
                catch_unwind(AssertUnwindSafe(|| handler.call(head, body, descriptors, buffer)));
            state = match called {
                Ok(Called::Answered(answer)) => {
                    note_handler(&mut time_slice, method, slow);
                    let mut state = shared.lock();
                    request.answer(&mut state, answer, &mut message);
                    state
                }
                called => {
                    let outcome = polled::<H>(called.ok(), is_slow, &mut message);
                    note_handler(&mut time_slice, method, slow);
                    if let Some((key, stage)) = respond(shared, request, outcome, &mut message) {
                        let (_live, task_shared) = (live.clone(), Arc::clone(shared));
                        let task = HandlerTask { shared: task_shared, key, stage, runs, _live };
                        shared.spawn(key, task);
                    }
                    shared.lock()
                }
            };
        }
        if !self.requests.is_empty() {
            self.requests.drain(..taken.min(self.requests.len()));
        }
        state
    }

    fn trim(&mut self) {
        trim(&mut self.requests);
    }
}
