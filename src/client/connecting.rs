//! [`Attempt`]: connecting, on behalf of all calls of a channel that wait for a connection.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tonic::Status;

use super::builder::Target;
use super::channel::{ChannelCore, lock};
use super::link::Link;
use super::state::ChannelState;
use crate::address::Address;
use crate::backoff::{Backoff, jittered};
use crate::driver::CloseReason;
use crate::observer::Event;
use crate::socket::ConnectError;

/// The backoff between attempts for calls that wait for a server.
pub(crate) const WAITING: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(1));

/// How often a call begins another attempt because the one that it began before was lost: its runtime was
/// shut down.
const LOST_ATTEMPTS: u32 = 2;

/// A task that connects, repeatedly while a call waits for a server. It runs as long as any call
/// has a reference to it.
pub(super) struct Attempt {
    progress: watch::Receiver<AttemptState>,
    callers: Arc<Callers>,
    /// Dropping it aborts the task.
    _task: JoinSet<()>,
}

#[derive(Clone)]
enum AttemptState {
    /// It has failed this often, the last time for this reason.
    Trying {
        failures: u32,
        last: Option<ConnectError>,
    },
    Done(Result<Arc<Link>, ConnectError>),
}

/// What the calls want from the attempt.
#[derive(Default)]
struct Callers {
    /// How many calls wait for a server.
    waiting: AtomicUsize,
    /// Notified when a call does not wait, and wants to know the outcome now.
    hurry: Notify,
}

/// A call that waits for a server.
struct WaitingCall(Arc<Callers>);

impl WaitingCall {
    fn new(callers: &Arc<Callers>) -> Self {
        callers.waiting.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(callers))
    }
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Why there is no connection to send a call on.
pub(super) enum Unconnected {
    Connect(ConnectError),
    /// The stream that the channel was made from has ended.
    Stream(Option<CloseReason>),
}

impl From<ConnectError> for Unconnected {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<Unconnected> for Status {
    fn from(why: Unconnected) -> Self {
        match why {
            Unconnected::Connect(error) => unavailable(error),
            Unconnected::Stream(None | Some(CloseReason::Closed)) => {
                Self::unavailable("the stream that this channel was made from has ended")
            }
            Unconnected::Stream(Some(close_reason)) => Self::unavailable(format!(
                "the stream that this channel was made from has ended: {close_reason}"
            )),
        }
    }
}

/// Returns UNAVAILABLE, with the error as its source.
pub(crate) fn unavailable(error: ConnectError) -> Status {
    caused_by(error, Status::unavailable)
}

/// Returns the status of a call that had no connection when its deadline had passed, with the error as
/// its source. `waited` is the time that the call had.
pub(crate) fn unconnected_in_time(error: ConnectError, waited: impl fmt::Display) -> Status {
    caused_by(error, |error| Status::deadline_exceeded(format!("{error}, waited {waited}")))
}

fn caused_by(error: ConnectError, status: impl FnOnce(String) -> Status) -> Status {
    let mut status = status(error.to_string());
    status.set_source(Arc::new(error.in_status()));
    status
}

impl ChannelCore {
    /// Connects once. A call that does not wait for a server does this.
    pub(super) async fn connect_once(self: &Arc<Self>) -> Result<(), ConnectError> {
        match self.connect(false, false).await {
            Err(Unconnected::Connect(error)) => Err(error),
            Ok(_) | Err(Unconnected::Stream(_)) => Ok(()),
        }
    }

    /// Returns the connection, and opens one if there is none. All calls that wait for it get the
    /// same outcome. With `wait`, only failures that a person has to mend end the wait. With
    /// `later`, a connection was of no use, and the next one is opened after the backoff.
    pub(super) async fn connect(
        self: &Arc<Self>,
        wait: bool,
        mut later: bool,
    ) -> Result<Arc<Link>, Unconnected> {
        let mut lost = 0;
        loop {
            let (attempt, is_own) = match self.attempt(wait && later) {
                Found::Link(link) => return Ok(link),
                Found::Attempt { attempt, begins } => (attempt, begins),
                Found::Ended(close_reason) => return Err(Unconnected::Stream(close_reason)),
            };
            let waiting = wait.then(|| WaitingCall::new(&attempt.callers));
            let mut progress = attempt.progress.clone();
            let seen = match &*progress.borrow() {
                AttemptState::Trying { failures, .. } => *failures,
                AttemptState::Done(_) => 0,
            };
            if waiting.is_none() {
                attempt.callers.hurry.notify_one();
            }
            let news = progress.wait_for(|progress| match progress {
                AttemptState::Trying { failures, .. } => !wait && *failures > seen,
                AttemptState::Done(_) => true,
            });
            let news = news.await.map(|news| news.clone());
            match news {
                Ok(AttemptState::Done(Ok(link))) => return Ok(link),
                // The attempt ended before it knew of this call.
                Ok(AttemptState::Done(Err(error))) if wait && !error.kind().is_permanent() => {
                    later = true;
                }
                Ok(
                    AttemptState::Done(Err(error)) | AttemptState::Trying { last: Some(error), .. },
                ) => {
                    return Err(error.into());
                }
                // The runtime that connected was shut down. That of another call says nothing of this
                // call's own, however often it happens.
                Ok(AttemptState::Trying { last: None, .. }) | Err(_)
                    if !is_own || lost < LOST_ATTEMPTS =>
                {
                    lost += u32::from(is_own);
                }
                _ => return Err(ConnectError::runtime_ended().into()),
            }
        }
    }

    /// Returns the connection, or the attempt to get one. It begins an attempt if there is none.
    fn attempt(self: &Arc<Self>, later: bool) -> Found {
        if let Target::Stream = self.config.target {
            return match self.link() {
                Some(link) if link.sender.is_open() => Found::Link(link),
                link => Found::Ended(link.and_then(|link| link.sender.close_reason())),
            };
        }
        // This drops it, which must not happen under the lock.
        self.discard_ended();
        let mut under_way = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        // An attempt that has ended has dropped the other half of its channel.
        let earlier = under_way.upgrade().filter(|it| it.progress.has_changed().is_ok());
        if let Some(attempt) = earlier {
            return Found::Attempt { attempt, begins: false };
        }
        if let Some(link) = self.current() {
            return Found::Link(link);
        }
        let (sender, progress) = watch::channel(AttemptState::Trying { failures: 0, last: None });
        let callers = Arc::<Callers>::default();
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(self).run(sender, Arc::clone(&callers), later));
        let attempt = Arc::new(Attempt { progress, callers, _task: task });
        *under_way = Arc::downgrade(&attempt);
        Found::Attempt { attempt, begins: true }
    }

    async fn run(
        self: Arc<Self>,
        progress: watch::Sender<AttemptState>,
        callers: Arc<Callers>,
        later: bool,
    ) {
        let given_up = GivenUp { channel: &self, callers: &callers };
        if later {
            self.wait(&callers).await;
        }
        let mut failures = 0;
        loop {
            if failures == 0 {
                self.changes.send_replace(ChannelState::Connecting);
            }
            match self.open().await {
                Ok(link) => {
                    std::mem::forget(given_up);
                    // If a server's connections are of no use, they follow each other only after
                    // the backoff.
                    if !later {
                        lock(&self.backoff).reset();
                    }
                    progress.send_replace(AttemptState::Done(Ok(self.use_link(link))));
                    return;
                }
                Err(error) => {
                    failures += 1;
                    self.note_failure(&error, failures);
                    let permanent = error.kind().is_permanent();
                    if permanent || callers.waiting.load(Ordering::SeqCst) == 0 {
                        std::mem::forget(given_up);
                        progress.send_replace(AttemptState::Done(Err(error)));
                        return;
                    }
                    progress.send_replace(AttemptState::Trying { failures, last: Some(error) });
                    self.wait(&callers).await;
                }
            }
        }
    }

    fn note_failure(&self, error: &ConnectError, failures: u32) {
        tracing::debug!(%error, failures, "no connection");
        self.failure.set(error.clone());
        self.changes.send_replace(ChannelState::TransientFailure);
    }

    /// Waits for the backoff, unless a call wants to know now.
    async fn wait(&self, callers: &Callers) {
        let wait = jittered(lock(&self.backoff).next());
        if let Some(observers) = &self.config.observers {
            observers.tell(&Event::BackoffBegan { wait });
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = callers.hurry.notified() => {}
        }
    }

    /// Returns why there is no connection, as far as is known.
    pub(super) fn last_failure(&self) -> ConnectError {
        self.failure.get().unwrap_or_else(|| match &self.config.target {
            Target::Addresses(addresses) => {
                let late = |address: &Arc<Address>| ConnectError::timed_out(Some(address), None);
                ConnectError::all(addresses.iter().map(late))
            }
            _ => ConnectError::timed_out(None, None),
        })
    }
}

/// Why a channel has no connection: the failure of the last attempt, or what the attempt under way
/// still waits for.
#[derive(Default)]
pub(super) struct LastFailure(Mutex<Option<ConnectError>>);

impl LastFailure {
    pub(super) fn set(&self, error: ConnectError) {
        *lock(&self.0) = Some(error);
    }

    pub(super) fn clear(&self) {
        *lock(&self.0) = None;
    }

    fn get(&self) -> Option<ConnectError> {
        lock(&self.0).clone()
    }
}

enum Found {
    Link(Arc<Link>),
    /// An attempt that begins, or that another call has begun.
    Attempt {
        attempt: Arc<Attempt>,
        begins: bool,
    },
    Ended(Option<CloseReason>),
}

/// Clears the state when an attempt is dropped before its end because no call waits any more.
struct GivenUp<'a> {
    channel: &'a ChannelCore,
    callers: &'a Arc<Callers>,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        // The runtime drops the task later. Another attempt may have begun since, and then the state is
        // of that.
        let under_way = lock(&self.channel.attempt);
        let attempt = under_way.upgrade();
        if attempt.as_ref().is_none_or(|it| Arc::ptr_eq(&it.callers, self.callers)) {
            self.channel.changes.send_if_modified(|state| {
                let connecting = *state == ChannelState::Connecting;
                if connecting {
                    *state = ChannelState::Idle;
                }
                connecting
            });
        }
        // This may be the last reference, which is not dropped under the lock.
        drop(under_way);
        drop(attempt);
    }
}
