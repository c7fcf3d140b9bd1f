//! [`Attempt`]: connecting, for all calls of a channel that wait for a connection.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tonic::Status;

use super::builder::Target;
use super::channel::{Shared, lock};
use super::link::Link;
use super::state::ChannelState;
use crate::backoff::{Backoff, jittered};
use crate::driver::Lost;
use crate::observer::Event;
use crate::socket::ConnectError;

/// Between attempts for calls that wait for a server.
pub(super) const WAITING: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(1));

/// Connects, again and again while a call waits for a server. It goes on as long as a call has a
/// reference to it, whichever that is.
pub(super) struct Attempt {
    progress: watch::Receiver<Progress>,
    callers: Arc<Callers>,
    /// Aborted with the last reference.
    _task: JoinSet<()>,
}

#[derive(Clone)]
enum Progress {
    /// So often it has failed, the last time for this reason.
    Trying {
        failures: u32,
        last: Option<ConnectError>,
    },
    Done(Result<Arc<Link>, ConnectError>),
}

/// What the calls want of it.
#[derive(Default)]
struct Callers {
    /// So many wait for a server.
    waiting: AtomicUsize,
    /// One does not, and wants to know now.
    hurry: Notify,
}

/// A call that waits for a server.
struct Waiting(Arc<Callers>);

impl Waiting {
    fn new(callers: &Arc<Callers>) -> Self {
        callers.waiting.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(callers))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Why there is no connection to send a call on.
pub(super) enum Unconnected {
    Connect(ConnectError),
    /// The stream that was given has ended.
    Stream(Option<Lost>),
}

impl From<ConnectError> for Unconnected {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<Unconnected> for Status {
    fn from(why: Unconnected) -> Self {
        match why {
            Unconnected::Connect(error) => {
                let mut status = Self::unavailable(error.to_string());
                status.set_source(Arc::new(error));
                status
            }
            Unconnected::Stream(None | Some(Lost::Closed)) => {
                Self::unavailable("the stream that this channel was made from has ended")
            }
            Unconnected::Stream(Some(lost)) => Self::unavailable(format!(
                "the stream that this channel was made from has ended: {lost}"
            )),
        }
    }
}

impl Shared {
    /// Connects once, as a call that does not wait for a server does.
    pub(super) async fn connect_once(self: &Arc<Self>) -> Result<(), ConnectError> {
        match self.connect(false, false).await {
            Err(Unconnected::Connect(error)) => Err(error),
            Ok(_) | Err(Unconnected::Stream(_)) => Ok(()),
        }
    }

    /// The connection, opened now if there is none. Its outcome is that of all calls that wait for
    /// it. With `wait`, failures are not the end of it, but for those that only a person can mend.
    /// With `later`, a connection was of no use, and the next one is opened after the backoff.
    pub(super) async fn connect(
        self: &Arc<Self>,
        wait: bool,
        mut later: bool,
    ) -> Result<Arc<Link>, Unconnected> {
        loop {
            let attempt = match self.attempt(wait && later) {
                Found::Link(link) => return Ok(link),
                Found::Attempt(attempt) => attempt,
                Found::Ended(lost) => return Err(Unconnected::Stream(lost)),
            };
            let waiting = wait.then(|| Waiting::new(&attempt.callers));
            let mut progress = attempt.progress.clone();
            let seen = match &*progress.borrow() {
                Progress::Trying { failures, .. } => *failures,
                Progress::Done(_) => 0,
            };
            if waiting.is_none() {
                attempt.callers.hurry.notify_one();
            }
            let news = progress.wait_for(|progress| match progress {
                Progress::Trying { failures, .. } => !wait && *failures > seen,
                Progress::Done(_) => true,
            });
            let news = news.await.map(|news| news.clone());
            match news {
                Ok(Progress::Done(Ok(link))) => return Ok(link),
                // It ended before it knew of this call.
                Ok(Progress::Done(Err(error))) if wait && !error.kind().is_permanent() => {
                    later = true;
                }
                Ok(Progress::Done(Err(error)) | Progress::Trying { last: Some(error), .. }) => {
                    return Err(error.into());
                }
                Ok(Progress::Trying { last: None, .. }) | Err(_) => {
                    let cause = "the runtime that connected was shut down";
                    return Err(ConnectError::connector(io::Error::other(cause)).into());
                }
            }
        }
    }

    /// The connection, or the attempt to get one, begun now if there is none.
    fn attempt(self: &Arc<Self>, later: bool) -> Found {
        if let Target::Stream = self.config.target {
            return match self.link() {
                Some(link) if link.sender.is_open() => Found::Link(link),
                link => Found::Ended(link.and_then(|link| link.sender.lost())),
            };
        }
        let mut under_way = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has come to its end drops the other half of its channel.
        let earlier = under_way.upgrade().filter(|it| it.progress.has_changed().is_ok());
        if let Some(attempt) = earlier {
            return Found::Attempt(attempt);
        }
        if let Some(link) = self.current() {
            return Found::Link(link);
        }
        self.discard_ended();
        let (sender, progress) = watch::channel(Progress::Trying { failures: 0, last: None });
        let callers = Arc::<Callers>::default();
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(self).run(sender, Arc::clone(&callers), later));
        let attempt = Arc::new(Attempt { progress, callers, _task: task });
        *under_way = Arc::downgrade(&attempt);
        Found::Attempt(attempt)
    }

    async fn run(
        self: Arc<Self>,
        progress: watch::Sender<Progress>,
        callers: Arc<Callers>,
        later: bool,
    ) {
        let given_up = GivenUp(&self);
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
                    // A server whose connections are of no use does not get them one by one.
                    if !later {
                        lock(&self.backoff).reset();
                    }
                    progress.send_replace(Progress::Done(Ok(self.use_link(link))));
                    return;
                }
                Err(error) => {
                    failures += 1;
                    self.note_failure(&error, failures);
                    let permanent = error.kind().is_permanent();
                    if permanent || callers.waiting.load(Ordering::SeqCst) == 0 {
                        std::mem::forget(given_up);
                        progress.send_replace(Progress::Done(Err(error)));
                        return;
                    }
                    progress.send_replace(Progress::Trying { failures, last: Some(error) });
                    self.wait(&callers).await;
                }
            }
        }
    }

    fn note_failure(&self, error: &ConnectError, failures: u32) {
        tracing::debug!(%error, failures, "no connection");
        *lock(&self.failure) = Some(error.clone());
        self.changes.send_replace(ChannelState::TransientFailure);
    }

    /// The backoff, unless a call wants to know now.
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

    /// Why there is no connection, as far as is known.
    pub(super) fn last_failure(&self) -> Option<ConnectError> {
        lock(&self.failure).clone()
    }
}

enum Found {
    Link(Arc<Link>),
    Attempt(Arc<Attempt>),
    Ended(Option<Lost>),
}

/// An attempt that no call waits for any more is dropped in the middle.
struct GivenUp<'a>(&'a Shared);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.0.changes.send_if_modified(|state| {
            let connecting = *state == ChannelState::Connecting;
            if connecting {
                *state = ChannelState::Idle;
            }
            connecting
        });
    }
}
