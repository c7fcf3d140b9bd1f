//! [`Held`]: a connected socket, which is closed on another thread if closing it may block.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::rights;
use super::underway::{self, SendingSocket, Sent};

/// A socket in which descriptors of the peer may lie unread. Closing it closes them too, which can
/// block (SO_LINGER, socket(7)). In that case a thread for that purpose closes it.
#[derive(Debug)]
pub(crate) struct Held {
    /// `Some` until it is dropped.
    socket: Option<OwnedFd>,
    may_block: AtomicBool,
    /// Descriptors that the peer may not have read yet.
    sent: Mutex<Sent>,
}

impl Held {
    pub(super) fn new(socket: OwnedFd, may_block: bool) -> Self {
        Self { socket: Some(socket), may_block: AtomicBool::new(may_block), sent: Mutex::default() }
    }

    /// Notes that the peer may send descriptors from now on.
    pub(super) fn note_may_block(&self) {
        self.may_block.store(true, Ordering::Relaxed);
    }

    fn socket(&self) -> &OwnedFd {
        match &self.socket {
            Some(socket) => socket,
            None => unreachable!("only taken where it is dropped"),
        }
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl AsRawFd for Held {
    fn as_raw_fd(&self) -> RawFd {
        self.socket().as_raw_fd()
    }
}

impl SendingSocket for Held {
    fn sent(&self) -> &Mutex<Sent> {
        &self.sent
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let sent = std::mem::take(self.sent.get_mut().unwrap_or_else(PoisonError::into_inner));
        if sent.count() > 0
            && let Some(socket) = self.socket.take()
        {
            underway::close(socket, sent);
        } else if *self.may_block.get_mut()
            && let Some(socket) = self.socket.take()
        {
            rights::close(socket);
        }
    }
}
