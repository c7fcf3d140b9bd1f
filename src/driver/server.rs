//! The server's end: requests to handlers, and their responses into the connection.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::response::{Parts, Response};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};
use tokio::runtime::{Handle, RuntimeFlavor};
use tonic::Status;

use super::beside::Beside;
use super::body::Incoming;
use super::error::Lost;
use super::fields::Fields;
use super::memory::{Account, User};
use super::options::{BoxError, Options};
use super::pass::{LostOnDrop, Pass, Role};
use super::room::Room;
use super::send::{Outbound, Rest, SendBody, Start, StartEnd, send_start, start};
use super::shared::{Shared, State};
use super::socket::Socket;
use super::spare::{push, trim};
use super::timer::now;
use crate::descriptors::{Arrived, Descriptors};
use crate::http2::{
    Body, Connection, ErrorCode, Event, NoRequest, Request, RequestHead, StreamKey,
};

/// On a runtime of several threads, a method whose handler took longer than this in place twice in a
/// row has a task of its own from then on, so that the connection's other calls need not wait for it.
const SLOW: Duration = Duration::from_micros(100);

/// When handlers have run for so long in a turn, the other requests are for the next turn: so that other
/// connections need not wait for all of them.
const LONGEST: Duration = Duration::from_micros(500);

/// Methods of a connection that are known to be slow, at most.
const SLOW_METHODS: usize = 64;

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

/// Serves one connection until the client closes it or, after `shutdown`, until its calls have
/// ended. Dropped, it drops its handlers.
///
/// Not an `async fn`: that would hold its arguments twice for as long as it runs.
///
/// It ends well when the client closes the connection or this end has no more use for it.
pub(crate) fn serve<T, H>(
    io: T,
    handler: H,
    options: Options,
    user: Arc<User>,
    shutdown: impl Future<Output = ()>,
) -> impl Future<Output = Result<Ended, Lost>>
where
    T: Socket,
    H: Handler,
{
    let shared = Shared::new(Connection::server(options.http2, now()), false);
    let lost = LostOnDrop(Arc::clone(&shared));
    let parallel = Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread;
    let role =
        ServerRole { handler, requests: Vec::new(), slow: parallel.then(SlowMethods::default) };
    let account = Account::new(Some(user));
    let mut pass = Pass::new(io, shared, role, account, options.busy_poll);
    async move {
        let _lost = lost;
        let shutdown = pin!(shutdown);
        let mut shutdown = Beside::new(shutdown);
        let mut shutting_down = false;
        let lost = poll_fn(|cx| {
            let polled = pass.poll(cx);
            if polled.is_ready() || shutting_down || shutdown.poll(cx).is_pending() {
                return polled;
            }
            // After what was already there to read: a peer that has introduced itself is told properly.
            shutting_down = true;
            pass.shut_down();
            pass.poll(cx)
        })
        .await;
        // Boxed: as long as the connection lasts it takes no room.
        Box::pin(pass.close()).await;
        match lost {
            Lost::Closed => Ok(pass.ended(shutting_down)),
            // A client that leaves as it was told does not wait for the second GOAWAY.
            Lost::Io(_) if pass.ended(shutting_down) == Ended::Idle => Ok(Ended::Idle),
            lost => Err(lost),
        }
    }
}

/// How a server's connection has ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client closed it, or the server shuts down.
    Closed,
    /// It had no call for longer than its idle timeout.
    Idle,
    /// The server had no room for what it held.
    NoRoom,
}

struct ServerRole<H: Handler> {
    handler: H,
    /// No handler was called for these yet.
    requests: Vec<StreamKey>,
    /// Which methods are not polled in place. `None` where no other thread could poll them.
    slow: Option<SlowMethods>,
}

/// The methods of a connection whose handlers hold its task up.
#[derive(Default)]
struct SlowMethods {
    known: Vec<PathAndQuery>,
    /// Was slow when it last ran in place: once may be chance.
    suspect: Option<PathAndQuery>,
}

impl SlowMethods {
    fn contains(&self, path: &PathAndQuery) -> bool {
        self.known.contains(path)
    }

    /// A handler took so long in place.
    fn note(&mut self, path: PathAndQuery, time: Duration) {
        let suspected = self.suspect.as_ref() == Some(&path);
        match (time > SLOW, suspected) {
            (true, true) if self.known.len() < SLOW_METHODS => {
                self.suspect = None;
                self.known.push(path);
            }
            (true, _) => self.suspect = Some(path),
            (false, true) => self.suspect = None,
            (false, false) => {}
        }
    }
}

/// What became of a handler that was polled in place.
enum Outcome<H: Handler> {
    Ready(Answer<H::Body>),
    Pending(H::Reply),
    Panicked,
}

/// Calls a handler and polls it in place.
fn attempt<H: Handler>(
    handler: &mut H,
    slow: &mut Option<SlowMethods>,
    message: &mut Vec<u8>,
    head: Arc<RequestHead>,
    body: Incoming,
    descriptors: Option<Box<Arrived>>,
) -> Outcome<H> {
    let timed = slow.is_some().then(|| (head.path.clone(), Instant::now()));
    let is_slow = slow.as_ref().is_some_and(|slow| slow.contains(&head.path));
    let Ok(mut reply) = catch_unwind(AssertUnwindSafe(|| handler.call(head, body, descriptors)))
    else {
        return Outcome::Panicked;
    };
    if is_slow {
        return Outcome::Pending(reply);
    }
    // Without a waker: whoever goes on polls again at once. Outside the task's budget, which is the
    // connection's.
    let mut cx = Context::from_waker(Waker::noop());
    let in_place = poll_fn(|cx| reply.poll_answer(cx, message));
    let mut in_place = tokio::task::unconstrained(in_place);
    let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut in_place).poll(&mut cx)));
    if let (Some((path, began)), Some(slow)) = (timed, slow) {
        slow.note(path, began.elapsed());
    }
    match polled {
        Ok(Poll::Ready(answer)) => Outcome::Ready(answer),
        Ok(Poll::Pending) => Outcome::Pending(reply),
        Err(_) => Outcome::Panicked,
    }
}

impl<H: Handler> Role for ServerRole<H> {
    const LENDS: bool = true;

    fn event(&mut self, state: &mut State, event: Event) {
        match event {
            Event::Opened(key) => {
                push(&mut self.requests, key);
                if self.requests.len() > 2 * state.h2.active_streams() + 16 {
                    // While no handlers are called, peers may give up what they asked for.
                    self.requests.retain(|key| state.h2.is_known(*key));
                }
            }
            event => state.deliver(event),
        }
    }

    fn is_full(&self, state: &State) -> bool {
        self.requests.len() >= state.batch()
    }

    fn holds(&self) -> bool {
        !self.requests.is_empty()
    }

    fn run<'a>(
        &mut self,
        mut state: MutexGuard<'a, State>,
        shared: &'a Arc<Shared>,
    ) -> MutexGuard<'a, State> {
        let Self { handler, requests, slow } = self;
        let mut message = Room::take();
        let began = (requests.len() > 1).then(Instant::now);
        let mut taken = 0;
        while let Some(key) = requests.get(taken).copied() {
            if taken > 0 && began.is_some_and(|began| began.elapsed() > LONGEST) {
                break;
            }
            taken += 1;
            let Request { head, body, descriptors } = match state.h2.take_request(key) {
                Ok(request) => request,
                Err(NoRequest::Gone) => continue,
                Err(NoRequest::TooLarge { limit, foreign }) => {
                    refuse_headers(&mut state, key, H::too_large(limit, foreign));
                    continue;
                }
            };
            if let Some(Ok(descriptors)) = descriptors.as_ref().map(|arrived| &arrived.set) {
                state.close_at_the_end(key, descriptors.clone());
            }
            drop(state);
            let body = match body {
                Body::Whole(content) => Incoming::whole(content),
                Body::Open => Incoming::stream(Arc::clone(shared), key),
            };
            let stage = match attempt(handler, slow, &mut message, head, body, descriptors) {
                Outcome::Ready(Answer::Message { head, descriptors, trailers }) => {
                    state = shared.lock();
                    let head = (&head, descriptors);
                    send_message(&mut state, key, head, &mut message, trailers);
                    state.forget(key);
                    continue;
                }
                Outcome::Ready(Answer::Response(response)) => {
                    let reply = taken_apart(response);
                    state = shared.lock();
                    match send_reply(&mut state, key, reply) {
                        None => {
                            state.forget(key);
                            continue;
                        }
                        Some((body, next)) => {
                            Stage::Body(SendBody::new(Arc::clone(shared), key, body, next))
                        }
                    }
                }
                Outcome::Pending(reply) => {
                    state = shared.lock();
                    Stage::Call(reply)
                }
                Outcome::Panicked => {
                    state = shared.lock();
                    state.h2.reset(key, ErrorCode::INTERNAL_ERROR);
                    state.forget(key);
                    continue;
                }
            };
            // The task waits for the lock that is held here, and so for its entry.
            let task = tokio::spawn(Task { shared: Arc::clone(shared), key, stage });
            state.waiters.set_task(key, task.abort_handle());
        }
        requests.drain(..taken);
        state
    }

    fn trim(&mut self) {
        trim(&mut self.requests);
    }
}

/// Answers a request whose header list is larger than this end accepts.
fn refuse_headers(state: &mut State, key: StreamKey, (status, headers): (StatusCode, HeaderMap)) {
    tracing::debug!(stream = key.id(), "a request's headers are too large");
    state.h2.send_response(key, status, &headers, true);
    state.forget(key);
}

/// What there is to send of a response.
struct Reply<B> {
    parts: Parts,
    /// Travel with the head.
    descriptors: Option<Descriptors>,
    start: Start<B>,
}

/// Takes a response apart. The rest of it is dropped here, while no lock is held.
fn taken_apart<B>(response: Response<B>) -> Reply<B>
where
    B: Outbound<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let (mut parts, body) = response.into_parts();
    let descriptors = parts.extensions.remove::<Descriptors>();
    parts.extensions.clear();
    Reply { parts, descriptors, start: start(body) }
}

/// Sends a response of one message, and leaves the room of it empty.
fn send_message(
    state: &mut State,
    key: StreamKey,
    (head, descriptors): (&Fields, Option<Descriptors>),
    message: &mut Vec<u8>,
    trailers: &'static HeaderMap,
) {
    let goes_on = match (head, &descriptors) {
        (Fields::Static(head), None) => {
            state.h2.send_static_response(key, head);
            true
        }
        _ => send_head(state, key, StatusCode::OK, head, descriptors, false),
    };
    if goes_on {
        state.h2.send_small(key, message, false);
        state.h2.send_static_trailers(key, trailers);
    }
    message.clear();
}

/// Sends a head with the descriptors that go with it. Returns whether the rest may follow: where the
/// client does not take the descriptors, an error was sent instead.
fn send_head(
    state: &mut State,
    key: StreamKey,
    status: StatusCode,
    fields: &HeaderMap,
    descriptors: Option<Descriptors>,
    end: bool,
) -> bool {
    if let Some(descriptors) = descriptors.filter(|list| !list.is_empty())
        && let Err(limit) = state.h2.send_descriptors(key, &descriptors)
    {
        let why =
            format!("the response has file descriptors, and the client takes {limit} with a call");
        let (parts, _) = Status::failed_precondition(why).into_http::<()>().into_parts();
        state.h2.send_response(key, parts.status, &parts.headers, true);
        return false;
    }
    state.h2.send_response(key, status, fields, end);
    true
}

/// Sends a head and what its body gave at once. What is returned is the body's rest.
fn send_reply<B>(
    state: &mut State,
    key: StreamKey,
    Reply { parts, descriptors, start: Start { data, end } }: Reply<B>,
) -> Option<Rest<B>> {
    let empty = data.is_none() && matches!(end, StartEnd::Plain);
    let goes_on = send_head(state, key, parts.status, &parts.headers, descriptors, empty);
    if !goes_on || empty || send_start(state, key, data, &end) {
        return None;
    }
    match end {
        StartEnd::More { body, next } => Some((body, next)),
        _ => None,
    }
}

/// A handler that was not ready in place, or the rest of its response. However it ends, the stream
/// ends with it.
struct Task<R, B> {
    shared: Arc<Shared>,
    key: StreamKey,
    stage: Stage<R, B>,
}

enum Stage<R, B> {
    Call(R),
    Body(SendBody<B>),
}

impl<R, B> Future for Task<R, B>
where
    R: PollAnswer<Body = B> + Unpin,
    B: Outbound<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        match catch_unwind(AssertUnwindSafe(|| this.advance(cx))) {
            Ok(polled) => polled,
            Err(_) => {
                let key = this.key;
                this.shared.with(|state| state.h2.reset(key, ErrorCode::INTERNAL_ERROR));
                Poll::Ready(())
            }
        }
    }
}

impl<R, B> Task<R, B>
where
    R: PollAnswer<Body = B> + Unpin,
    B: Outbound<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                Stage::Call(reply) => {
                    let mut message = Room::take();
                    let Poll::Ready(answer) = reply.poll_answer(cx, &mut message) else {
                        return Poll::Pending;
                    };
                    let key = self.key;
                    let response = match answer {
                        Answer::Response(response) => response,
                        Answer::Message { head, descriptors, trailers } => {
                            let head = (&head, descriptors);
                            self.shared.with(|state| {
                                send_message(state, key, head, &mut message, trailers);
                            });
                            return Poll::Ready(());
                        }
                    };
                    let reply = taken_apart(response);
                    let rest = self.shared.with(|state| send_reply(state, key, reply));
                    match rest {
                        None => return Poll::Ready(()),
                        Some((body, next)) => {
                            let shared = Arc::clone(&self.shared);
                            self.stage = Stage::Body(SendBody::new(shared, key, body, next));
                        }
                    }
                }
                Stage::Body(body) => return Pin::new(body).poll(cx),
            }
        }
    }
}

impl<R, B> Drop for Task<R, B> {
    fn drop(&mut self) {
        let key = self.key;
        self.shared.with(|state| state.forget(key));
    }
}
