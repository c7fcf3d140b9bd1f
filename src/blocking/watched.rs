//! [`WatchedSocket`]: tells observers of a connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::address::Address;
use crate::driver::CloseReason;
use crate::http2::ErrorCode;
use crate::observer::{ConnectionInfo, ConnectionWatch, Observers};
use crate::socket::Peer;

/// Something that has happened on a connection.
pub(super) enum ConnectionNews {
    /// The server's SETTINGS have come.
    Ready,
    /// The server has sent GOAWAY.
    GoingAway(ErrorCode),
    Ended(CloseReason),
}

/// A connection that is observed. If it is dropped while the connection is open, it tells observers
/// that the connection was closed.
pub(super) struct WatchedSocket {
    /// The connection as observers see it.
    pub(super) connection: Option<Arc<ConnectionInfo>>,
    news: Mutex<NewsQueue>,
}

struct NewsQueue {
    waiting: VecDeque<ConnectionNews>,
    /// `None` while a thread tells observers. That thread also tells what follows.
    watch: Option<ConnectionWatch>,
}

impl WatchedSocket {
    /// Returns `None` if there are no observers, and nothing reads spans.
    pub(super) fn new(
        observers: Option<&Observers>,
        address: &Arc<Address>,
        peer: &Peer,
    ) -> Option<Self> {
        let watch = ConnectionWatch::opening(observers, Some(address), peer)?;
        let connection = watch.connection();
        let queue = NewsQueue { waiting: VecDeque::new(), watch: Some(watch) };
        Some(Self { connection, news: Mutex::new(queue) })
    }

    /// Adds news for the observers.
    pub(super) fn add(&self, news: Vec<ConnectionNews>) {
        self.lock().waiting.extend(news);
    }

    /// Tells observers the news in order. If another thread is telling them, or this one within an
    /// observer, that call tells the rest. No lock is held while observers run.
    pub(super) fn tell(&self) {
        let mut queue = self.lock();
        let Some(mut watch) = queue.watch.take() else { return };
        while let Some(news) = queue.waiting.pop_front() {
            drop(queue);
            match news {
                ConnectionNews::Ready => watch.opened(),
                ConnectionNews::GoingAway(code) => watch.going_away(code),
                ConnectionNews::Ended(why) => watch.ended(&why),
            }
            queue = self.lock();
        }
        queue.watch = Some(watch);
    }

    fn lock(&self) -> MutexGuard<'_, NewsQueue> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
