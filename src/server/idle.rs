//! [`Idleness`]: when a server has had no connection for a while, and so ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Shared by the acceptors and connections of a server.
///
/// An acceptor looks at it before it accepts. So on a server with one listener no connection is accepted
/// once it is over; on one with several, a connection may come to one of them just when another one has
/// found that it is over: it is served until it ends.
#[derive(Clone, Debug)]
pub(super) struct Idleness {
    after: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The state has changed.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    open: usize,
    /// When there was last a connection, if there is none now.
    since: Instant,
    /// An acceptor has ended.
    over: bool,
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Open(Arc<Shared>);

impl Idleness {
    pub(super) fn new(after: Duration) -> Self {
        let state = Mutex::new(State { open: 0, since: Instant::now(), over: false });
        Self { after, shared: Arc::new(Shared { state, changed: Notify::new() }) }
    }

    /// A connection is open until what is returned is dropped.
    pub(super) fn open(&self) -> Open {
        self.shared.state().open += 1;
        Open(Arc::clone(&self.shared))
    }

    /// Completes when there has been no connection for long enough. From then on it is over for all.
    ///
    /// Cancelled, it changes nothing.
    pub(super) async fn wait(&self) {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let due = {
                let mut state = self.shared.state();
                if state.over {
                    return;
                }
                let due = state.since.checked_add(self.after).filter(|_| state.open == 0);
                if due.is_some_and(|due| due <= Instant::now()) {
                    state.over = true;
                    drop(state);
                    self.shared.changed.notify_waiters();
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

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
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
