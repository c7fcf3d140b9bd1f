//! The client's end: it puts calls into the connection, and takes their responses out.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderName, HeaderValue};

use super::body::Incoming;
use super::closing::ClosedOnDrop;
use super::connection_memory::ConnectionMemory;
use super::connection_task::ConnectionTask;
use super::duties::Duties;
use super::error::{CloseReason, StreamError};
use super::options::Options;
use super::outgoing::{OutgoingHead, OutgoingRequest};
use super::output;
use super::shared::{Shared, State};
use super::socket::Socket;
use super::timer::now;
use super::watch::{Watch, Watching};
use crate::descriptors::{ConnectionQuotas, ReceivedSet};
use crate::http2::{Body, Connection, NotNow, ProtocolEvent, ResponseHead, SendRequest, StreamKey};

/// Starts calls on a connection. When all clones are dropped, the connection ends after its last
/// call.
#[derive(Clone, Debug)]
pub(crate) struct Sender(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    /// Whether the driver polls for the response as soon as a call is sent.
    spins: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|state| state.abandoned = true);
    }
}

struct ClientDuties;

impl Duties for ClientDuties {
    /// Callers encode while the driver sleeps: a message or two have room.
    const KEPT_OUTPUT: usize = 4 * 1024;

    /// Half of a client's calls are at the server. A turn takes half of the others: a quarter of all.
    const CALLS_PER_TAKEN: u8 = 4;

    fn event(&mut self, state: &mut State, event: ProtocolEvent) {
        state.deliver(event);
    }

    fn is_full(&self, state: &State, batch: usize) -> bool {
        state.wakes.len() >= batch
    }
}

/// The phase of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The server's SETTINGS have not come.
    Handshake,
    Ready,
    /// It takes no more calls.
    Ended,
}

/// Why a call was not sent.
pub(crate) enum Unsent {
    /// The server takes no more calls at the moment.
    Wait(SlotTicket),
    /// This connection takes no more calls, for this reason. Another one may.
    Elsewhere(CloseReason),
    /// The connection failed in a way in which another one would fail, too.
    NotHttp2(CloseReason),
    /// The headers are larger than the server takes. The limit is in bytes.
    TooLarge { limit: u32 },
    /// The server takes fewer descriptors with a request than this one has.
    TooManyDescriptors { limit: u32 },
    /// The body failed before anything was sent.
    Body(StreamError),
}

/// Fields that a channel adds to a request's own. Adding them to its header map would cost more
/// than sending them.
pub(crate) type MoreFields<'a> = [Option<(&'a HeaderName, &'a HeaderValue)>; 2];

impl AsRef<Self> for Sender {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Sender {
    /// Starts HTTP/2 on a connected stream. A task of its own drives it.
    pub(crate) fn start<T>(io: T, options: Options) -> Self
    where
        T: Socket + Send + 'static,
    {
        Self::start_watched(io, options, None)
    }

    /// Starts HTTP/2 on a connected stream. The task that drives it also tells `watch` what
    /// happens.
    pub(crate) fn start_watched<T>(
        mut io: T,
        mut options: Options,
        watch: Option<Box<dyn Watch>>,
    ) -> Self
    where
        T: Socket + Send + 'static,
    {
        let takes = options.http2.descriptors > 0;
        if takes && !io.take_descriptors(ConnectionQuotas::of_client()) {
            options.http2.descriptors = 0;
        }
        let shared = Shared::new(Connection::client(options.http2, now()));
        // A driver that watches the calls' time has to know of each call.
        if options.http2.keep_alive.is_none() {
            shared.lock().socket_sender = io.sender();
        }
        let spins = T::HAS_DESCRIPTOR && options.busy_poll.is_some();
        let closed_on_drop = ClosedOnDrop(Arc::clone(&shared));
        let memory = ConnectionMemory::new(None);
        let mut task = ConnectionTask::new(io, ClientDuties, memory, options.busy_poll);
        let driven = Arc::clone(&shared);
        let mut watching = watch.map(|watch| Watching::new(watch, Arc::clone(&shared)));
        tokio::spawn(async move {
            let _closed_on_drop = closed_on_drop;
            let why = match &mut watching {
                None => std::future::poll_fn(|cx| task.poll(&driven, cx)).await,
                Some(watching) => {
                    std::future::poll_fn(|cx| {
                        let polled = task.poll(&driven, cx);
                        watching.look();
                        polled
                    })
                    .await
                }
            };
            tracing::debug!(%why, "a connection ended");
            task.close().await;
            if let Some(watching) = watching {
                watching.ended(&why);
            }
        });
        Self(Arc::new(Handle { shared, spins }))
    }

    /// Returns whether both belong to the same connection.
    #[cfg(test)]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns whether the connection takes calls, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        self.0.shared.lock().phase() != Phase::Ended
    }

    pub(crate) fn phase(&self) -> Phase {
        self.0.shared.lock().phase()
    }

    /// Completes when the connection has left the phase `before`, which is not the last one.
    pub(crate) async fn phase_after(&self, before: Phase) -> Phase {
        let mut watcher = Watcher { shared: &self.0.shared, ticket: None };
        std::future::poll_fn(|cx| watcher.poll(before, cx)).await
    }

    /// Completes when the server's SETTINGS have come and the connection takes calls. It fails
    /// without a reason if the server has announced its end (GOAWAY, NO_ERROR), even if it has ended
    /// by now.
    pub(crate) async fn ready(&self) -> Result<(), Option<CloseReason>> {
        match self.phase_after(Phase::Handshake).await {
            Phase::Ended => {
                let state = self.0.shared.lock();
                Err(if state.was_dismissed() { None } else { state.close_reason.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Returns why the connection has ended, if it has.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        self.0.shared.lock().close_reason.clone()
    }

    /// Leaves identifiers for only `left` more calls.
    #[cfg(test)]
    pub(crate) fn leave_identifiers(&self, left: u32) {
        self.0.shared.lock().h2.leave_identifiers(left);
    }

    /// Returns how many tasks wait for a change of the phase.
    #[cfg(test)]
    pub(crate) fn watchers(&self) -> usize {
        self.0.shared.lock().watchers.len()
    }

    /// Returns how many failed request bodies wait until the ends of their calls are read.
    #[cfg(test)]
    pub(crate) fn failed_bodies(&self) -> usize {
        self.0.shared.lock().failed_bodies.len()
    }

    /// Returns whether something waits for the driver to send it.
    #[cfg(test)]
    pub(crate) fn has_unsent(&self) -> bool {
        self.0.shared.lock().h2.has_outgoing()
    }

    /// Puts a request into the connection, with the part of its body that is ready. The caller makes a
    /// [`PendingCall`] of it, and polls that when the task is woken. `place` is the call's in the
    /// line for a slot, if it has waited there.
    pub(crate) fn send<R: OutgoingRequest>(
        &self,
        request: &mut R,
        authority: &[u8],
        more: MoreFields<'_>,
        place: Option<u64>,
        cx: &Context<'_>,
    ) -> Result<StreamKey, Unsent> {
        let Handle { shared, spins } = &*self.0;
        let content = request.prepare()?;
        let put = |state: &mut State| {
            if let Some(close_reason) = &state.close_reason {
                return Err(match close_reason {
                    CloseReason::NotHttp2(_) => Unsent::NotHttp2(close_reason.clone()),
                    _ => Unsent::Elsewhere(close_reason.clone()),
                });
            }
            if place.is_none() && state.gives_way() {
                return Err(Unsent::Wait(SlotTicket::behind_the_called(state, shared)));
            }
            output::lend(&mut state.h2);
            let OutgoingHead { method, path, headers, descriptors, id } = request.head();
            let scheme = "http";
            let head =
                SendRequest { method, scheme, authority, path, headers, more, descriptors, id };
            let empty = request.is_empty();
            let unsent = state.h2.has_outgoing();
            let key = state.h2.send_request(head, empty).map_err(|not_now| match not_now {
                NotNow::NoSlot => Unsent::Wait(SlotTicket::new(state, shared, place, cx)),
                NotNow::TakesNoRequests => Unsent::Elsewhere(CloseReason::Closed),
                NotNow::TooLarge { limit } => Unsent::TooLarge { limit },
                NotNow::TooManyDescriptors { limit } => Unsent::TooManyDescriptors { limit },
            })?;
            state.waiters.wait_to_read(key, cx.waker());
            let whole = empty || request.write(content, state, key);
            if whole && !unsent {
                state.send_directly();
                if *spins {
                    let driver = state.driver.wake();
                    state.wakes.extend(driver);
                }
            }
            Ok((key, whole))
        };
        let (key, whole) = shared.with(|state| {
            let sent = put(state);
            if !matches!(sent, Err(Unsent::Wait(_))) {
                // If there is room, another waiting call may be sent as well.
                state.wake_waiter();
            }
            sent
        })?;
        if !whole {
            request.send_rest(shared, key);
        }
        Ok(key)
    }
}

/// A task that waits for a change of the connection's phase.
struct Watcher<'a> {
    shared: &'a Shared,
    ticket: Option<u64>,
}

impl Watcher<'_> {
    fn poll(&mut self, before: Phase, cx: &Context<'_>) -> Poll<Phase> {
        self.shared.with(|state| {
            let phase = state.phase();
            if phase != before {
                return Poll::Ready(phase);
            }
            let ticket = *self.ticket.get_or_insert_with(|| state.ticket());
            state.watchers.insert(ticket, cx.waker().clone());
            Poll::Pending
        })
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let waker = self.shared.lock().watchers.remove(&ticket);
            drop(waker);
        }
    }
}

/// A position in the line of calls that wait for a slot. The call tries again when it is called. If
/// the ticket is dropped after that without a try, the next one in the line is called.
pub(crate) struct SlotTicket {
    shared: Arc<Shared>,
    ticket: u64,
    /// Whether calls that are being woken have not gone first yet.
    gives_way: bool,
}

impl SlotTicket {
    /// A call whose slot was taken before it tried keeps its place.
    fn new(state: &mut State, shared: &Arc<Shared>, place: Option<u64>, cx: &Context<'_>) -> Self {
        let ticket = place.unwrap_or_else(|| state.ticket());
        state.waiting.insert(ticket, cx.waker().clone());
        Self { shared: Arc::clone(shared), ticket, gives_way: false }
    }

    /// Returns a ticket among those that were called. Its call tries at the task's next poll, after those
    /// that are being woken. It does not wait for them to try, because their tasks may not poll them.
    fn behind_the_called(state: &mut State, shared: &Arc<Shared>) -> Self {
        let ticket = state.ticket();
        state.called.push(ticket);
        Self { shared: Arc::clone(shared), ticket, gives_way: true }
    }

    /// Is ready once the call may try again. The caller then has to try at once, with the place that
    /// is returned.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<u64> {
        if std::mem::take(&mut self.gives_way) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.shared.with(|state| match state.waiting.get_mut(&self.ticket) {
            Some(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            None => {
                state.note_try(self.ticket);
                Poll::Ready(self.ticket)
            }
        })
    }
}

impl Drop for SlotTicket {
    fn drop(&mut self) {
        self.shared.with(|state| {
            if state.waiting.remove(&self.ticket).is_some() {
                state.waiter_left();
            } else if state.note_try(self.ticket) {
                state.wake_waiter();
            }
        });
    }
}

/// A response, as far as it has arrived.
pub(crate) struct Responded {
    pub(crate) head: Arc<ResponseHead>,
    pub(crate) body: Incoming,
    /// The descriptors that came with the head.
    pub(crate) descriptors: Option<Box<ReceivedSet>>,
}

/// A call until its response's head. `C` refers to its connection. Dropping it cancels the call.
#[derive(Debug)]
pub(crate) struct PendingCall<C: Deref<Target: AsRef<Sender>>>(Option<(C, StreamKey)>);

impl<C: Deref<Target: AsRef<Sender>>> PendingCall<C> {
    /// Makes a call of what [`Sender::send`] returned.
    pub(crate) fn new(connection: C, key: StreamKey) -> Self {
        Self(Some((connection, key)))
    }

    pub(crate) fn connection(&self) -> Option<&C> {
        self.0.as_ref().map(|(connection, _)| connection)
    }
}

impl<C: Deref<Target: AsRef<Sender>> + Unpin> Future for PendingCall<C> {
    /// The connection comes back with the response.
    type Output = (C, Result<Responded, StreamError>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((connection, key)) = &self.0 else {
            return Poll::Pending;
        };
        let (shared, key) = (&connection.as_ref().0.shared, *key);
        let polled = shared.with(|state| match state.h2.take_response(key) {
            Poll::Ready(Ok((head, body))) => {
                let descriptors = state.h2.take_descriptors(key);
                let body = match body {
                    Body::Whole(content) => {
                        state.forget(key);
                        Incoming::whole(content)
                    }
                    Body::Open => Incoming::stream(Arc::clone(shared), key),
                };
                Poll::Ready(Ok(Responded { head, body, descriptors }))
            }
            Poll::Ready(Err(failure)) => {
                let error = state.stream_error(key, failure);
                state.forget(key);
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                state.waiters.wait_to_read(key, cx.waker());
                Poll::Pending
            }
        });
        let response = ready!(polled);
        // The stream is forgotten, or belongs to the body from now on.
        match self.0.take() {
            Some((connection, _)) => Poll::Ready((connection, response)),
            None => Poll::Pending,
        }
    }
}

impl<C: Deref<Target: AsRef<Sender>>> Drop for PendingCall<C> {
    fn drop(&mut self) {
        if let Some((connection, key)) = &self.0 {
            let key = *key;
            connection.as_ref().0.shared.with(|state| state.forget(key));
        }
    }
}
