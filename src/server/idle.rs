//! [`Idleness`]: finds out when a server has had no connection for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The acceptors and connections of a server share one.
///
/// An acceptor checks it before it accepts. So a server with one listener accepts no connection
/// after its end. On a server with several listeners, one may accept a connection just when another
/// finds that the time is over; that connection is served until it ends.
#[derive(Clone, Debug)]
pub(super) struct Idleness {
    after: Duration,
    tracker: Arc<Tracker>,
}

#[derive(Debug)]
struct Tracker {
    state: Mutex<IdleState>,
    /// Notified when the state has changed.
    changed: Notify,
}

#[derive(Debug)]
struct IdleState {
    open: usize,
    /// When the last connection ended, if none is open.
    since: Instant,
    /// Whether the server has been idle for long enough.
    over: bool,
}

/// Counts as an open connection until it is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection(Arc<Tracker>);

impl Idleness {
    pub(super) fn new(after: Duration) -> Self {
        let state = Mutex::new(IdleState { open: 0, since: Instant::now(), over: false });
        Self { after, tracker: Arc::new(Tracker { state, changed: Notify::new() }) }
    }

    /// Counts a connection as open until the returned value is dropped.
    pub(super) fn open(&self) -> OpenConnection {
        self.tracker.state().open += 1;
        OpenConnection(Arc::clone(&self.tracker))
    }

    /// Completes when there has been no connection for long enough, and from then on at once.
    ///
    /// Cancelling it changes nothing.
    pub(super) async fn wait(&self) {
        loop {
            let changed = self.tracker.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let due = {
                let mut state = self.tracker.state();
                if state.over {
                    return;
                }
                let due = state.since.checked_add(self.after).filter(|_| state.open == 0);
                if due.is_some_and(|due| due <= Instant::now()) {
                    state.over = true;
                    drop(state);
                    self.tracker.changed.notify_waiters();
                    return;
                }
                due
            };
            match due {
                Some(due) => {
                    tokio::select! {
                        () = changed => {}
                        () = sleep_until(due) => {}
                    }
                }
                None => changed.await,
            }
        }
    }
}

impl Tracker {
    fn state(&self) -> MutexGuard<'_, IdleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        let is_last = state.open == 0;
        if is_last {
            state.since = Instant::now();
        }
        drop(state);
        if is_last {
            self.0.changed.notify_waiters();
        }
    }
}
