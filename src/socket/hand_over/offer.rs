//! What a server that permits a take-over keeps for it: the control socket, and the offer that is
//! not decided yet.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags};
use tokio::io::unix::AsyncFd;

use super::super::file::SocketFile;
use super::message::{self, Nonce, Refusal, SuccessorMessage};

/// The control socket and its file.
#[derive(Debug)]
pub(in crate::socket) struct ControlSocket {
    pub(in crate::socket) file: SocketFile,
    pub(in crate::socket) socket: Arc<AsyncFd<OwnedFd>>,
}

/// An offer that is not decided yet.
#[derive(Debug)]
pub(in crate::socket) struct Offer {
    successor: Arc<AsyncFd<OwnedFd>>,
    nonce: Nonce,
}

impl Offer {
    pub(super) fn new(successor: Arc<AsyncFd<OwnedFd>>, nonce: Nonce) -> Self {
        Self { successor, nonce }
    }

    /// Ends the offer. Returns whether the successor has acknowledged it. Afterwards it cannot do
    /// so any more.
    pub(in crate::socket) fn end(self) -> bool {
        let _ = rustix::net::shutdown(&self.successor, Shutdown::Read);
        let acknowledged = loop {
            match message::request(&self.successor) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                said => break said,
            }
        };
        let nonce = self.nonce;
        matches!(acknowledged, Ok(Some(SuccessorMessage::Acknowledge(repeated))) if repeated == nonce)
    }
}

impl ControlSocket {
    /// How many successors may wait for an answer.
    pub(in crate::socket) const BACKLOG: i32 = 16;

    /// Tells the processes in the queue that another successor was first.
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

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketType, socketpair};

    use super::*;
    use crate::address::Address;
    use crate::runtime::asynchronous;
    use crate::socket::accept::ListeningSocket;
    use crate::socket::listener_state::ListenerState;
    use crate::socket::location::Location;
    use crate::socket::lock::Lock;
    use crate::socket::published::{Published, Settings, socket_file};

    /// The file of a server is deleted and published again while a successor has an offer of the
    /// old one. Returns whether the offer was taken, and whether the server still has a socket.
    async fn published_again(acknowledges: bool) -> (bool, bool) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let location = Arc::new(Location::open(&Address::unix(&path).unwrap(), &path).unwrap());
        let settings = Settings {
            mode: 0o600,
            group: None,
            backlog: 1,
            allow_shared_directory: false,
            allow_take_over: false,
            republish: true,
        };
        let lock = Lock::acquire(&location).unwrap().unwrap();
        let (mut published, socket) =
            Published::new(Arc::clone(&location), lock, &settings).await.unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, successor) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let nonce = Nonce::new();
        published.offer = Some(Offer::new(Arc::new(asynchronous(ours).unwrap()), nonce));
        let socket = Arc::new(ListeningSocket::new(socket, true).unwrap());
        let shared = ListenerState::new(socket, Some(published));
        std::fs::remove_file(&path).unwrap();
        if acknowledges {
            message::acknowledge(&successor, nonce).unwrap();
        }
        let (file, socket) = socket_file(&location, &settings).await.unwrap();
        let socket = ListeningSocket::new(socket, true).unwrap();
        shared.replace(socket, |published| published.renew(location, None, file, None));
        let serves = shared.current().is_some();
        assert_eq!(path.exists(), serves, "a file that nobody serves, or none");
        assert!(shared.published().as_ref().is_none_or(|published| published.offer.is_none()));
        (message::acknowledge(&successor, nonce).is_ok(), serves)
    }

    #[tokio::test]
    async fn a_socket_that_is_published_again_ends_the_offer_of_the_former_one() {
        assert_eq!(published_again(false).await, (false, true));
    }

    #[tokio::test]
    async fn a_socket_that_was_taken_before_is_not_published_again() {
        assert_eq!(published_again(true).await, (false, false));
    }
}
