//! What a server that permits a take-over keeps for it: the control socket, and an offer that was
//! made and not decided yet.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags};
use tokio::io::unix::AsyncFd;

use super::super::file::SocketFile;
use super::message::{self, Nonce, Refusal, Request};

/// The control socket and its file.
#[derive(Debug)]
pub(in crate::socket) struct Control {
    pub(in crate::socket) file: SocketFile,
    pub(in crate::socket) socket: Arc<AsyncFd<OwnedFd>>,
}

/// An offer that was made and not decided yet.
#[derive(Debug)]
pub(in crate::socket) struct Offer {
    successor: Arc<AsyncFd<OwnedFd>>,
    nonce: Nonce,
}

impl Offer {
    pub(super) fn new(successor: Arc<AsyncFd<OwnedFd>>, nonce: Nonce) -> Self {
        Self { successor, nonce }
    }

    /// Ends it. Returns whether the successor has acknowledged it: afterwards it cannot any more.
    pub(in crate::socket) fn end(self) -> bool {
        let _ = rustix::net::shutdown(&self.successor, Shutdown::Read);
        let acknowledged = loop {
            match message::request(&self.successor) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                said => break said,
            }
        };
        let nonce = self.nonce;
        matches!(acknowledged, Ok(Some(Request::Acknowledge(repeated))) if repeated == nonce)
    }
}

impl Control {
    /// How many successors may wait to be heard.
    pub(in crate::socket) const BACKLOG: i32 = 16;

    /// Tells whoever is in the queue that another successor was there first.
    pub(in crate::socket) fn turn_all_away(&self) {
        while let Ok(Some(successor)) = accept_queued(&self.socket) {
            let _ = message::refuse(&successor, Refusal::Busy);
        }
    }
}

/// Returns the next process that is in the control socket's queue right now, if there is one.
pub(super) fn accept_queued(control: &AsyncFd<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    loop {
        match rustix::net::accept_with(control, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(successor) => return Ok(Some(successor)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNABORTED | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
