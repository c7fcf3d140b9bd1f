//! [`ListenerState`]: the state that a listener shares with the tasks that watch over it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::accept::ListeningSocket;
use super::hand_over::Offer;
use super::published::Published;
use super::watched::WatchedFile;

#[derive(Debug)]
pub(super) struct ListenerState {
    /// The files on disk. `None` if there are none, or if they are no longer this listener's.
    published: Mutex<Option<Published>>,
    /// The sockets that accept connections.
    sockets: watch::Sender<ListeningSockets>,
}

/// The sockets that a listener accepts from.
#[derive(Clone, Debug)]
pub(super) struct ListeningSockets {
    /// The socket that has the address, or `None` once it was handed over.
    pub(super) current: Option<Arc<ListeningSocket>>,
    /// A socket whose file was deleted or moved. Clients may wait in its queue, or reach it by another name.
    pub(super) former: Option<Arc<ListeningSocket>>,
}

impl ListenerState {
    pub(super) fn new(socket: Arc<ListeningSocket>, published: Option<Published>) -> Arc<Self> {
        let sockets = watch::Sender::new(ListeningSockets { current: Some(socket), former: None });
        Arc::new(Self { published: Mutex::new(published), sockets })
    }

    pub(super) fn sockets(&self) -> watch::Receiver<ListeningSockets> {
        self.sockets.subscribe()
    }

    pub(super) fn current(&self) -> Option<Arc<ListeningSocket>> {
        self.sockets.borrow().current.clone()
    }

    /// Accepts from a new socket, too, and no more from the former's predecessor. `renew` replaces the
    /// files that are gone. Neither happens if a successor has just taken the old ones.
    pub(super) fn replace(&self, socket: ListeningSocket, renew: impl FnOnce(&mut Published)) {
        let mut published = self.published();
        if self.decide_on(&mut published) {
            return;
        }
        // The listener may have ended meanwhile. Then the new files are removed again.
        let Some(published) = published.as_mut() else { return };
        renew(published);
        let socket = Some(Arc::new(socket));
        self.sockets.send_modify(|sockets| {
            sockets.former = std::mem::replace(&mut sockets.current, socket);
        });
    }

    /// Returns what is to be watched: the socket file, and the control socket if there is one.
    pub(super) fn watched(&self) -> Option<(WatchedFile, Option<Arc<AsyncFd<OwnedFd>>>)> {
        let published = self.published();
        let published = published.as_ref()?;
        let control = published.control.as_ref().map(|control| Arc::clone(&control.socket));
        Some((published.file.watched(), control))
    }

    /// Removes the files and releases the lock, unless a successor has just taken them. The sockets
    /// go on accepting.
    pub(super) fn unpublish(&self) {
        drop(self.end());
    }

    /// Ends an offer. Returns whether the successor has taken it. Then everything belongs to the
    /// successor, and this listener accepts no more connections.
    pub(super) fn decide(&self) -> bool {
        self.decide_on(&mut self.published())
    }

    /// Does the same, and makes no offers any more.
    pub(super) fn offer_no_more(&self) -> bool {
        let mut published = self.published();
        let handed_over = self.decide_on(&mut published);
        let control = published.as_mut().and_then(|published| published.control.take());
        drop(published);
        drop(control);
        handed_over
    }

    fn decide_on(&self, published: &mut Option<Published>) -> bool {
        let offer = published.as_mut().and_then(|published| published.offer.take());
        let handed_over = offer.is_some_and(Offer::end);
        if handed_over {
            if let Some(published) = published.take() {
                published.leave();
            }
            self.sockets
                .send_modify(|sockets| *sockets = ListeningSockets { current: None, former: None });
        }
        handed_over
    }

    /// Ends an offer, and returns what this listener still owns.
    pub(super) fn end(&self) -> Option<Published> {
        // One lock for both: nobody would end an offer that was made in between.
        let mut published = self.published();
        self.decide_on(&mut published);
        published.take()
    }

    /// Locks the published files. The lock is never held across an `await`.
    pub(super) fn published(&self) -> MutexGuard<'_, Option<Published>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
