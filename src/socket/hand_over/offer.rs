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
        let nonce = self.nonce;
        let acknowledged = message::request(&self.successor);
        matches!(acknowledged, Ok(Some(SuccessorMessage::Acknowledge(repeated))) if repeated == nonce)
    }
}

impl ControlSocket {
    /// How many successors may wait for an answer.
    pub(in crate::socket) const BACKLOG: i32 = 16;

    /// Tells the processes in the queue that another successor was first.
    pub(in crate::socket) fn refuse_all(&self) {
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
    use crate::socket::guard::watch;
    use crate::socket::listener_state::ListenerState;
    use crate::socket::location::Location;
    use crate::socket::lock::Lock;
    use crate::socket::published::{Published, Settings, files};

    /// A server whose file is deleted while a successor has an offer of it.
    struct Offered {
        _directory: tempfile::TempDir,
        location: Arc<Location>,
        settings: Settings,
        shared: Arc<ListenerState>,
        successor: OwnedFd,
        nonce: Nonce,
    }

    impl Offered {
        /// The successor acknowledges the offer before the server notices anything, or not.
        async fn new(acknowledges: bool) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("x");
            let location = Arc::new(Location::open(&Address::unix(&path).unwrap(), &path).unwrap());
            let settings = Settings::usual();
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
            Self { _directory: directory, location, settings, shared, successor, nonce }
        }

        /// Returns whether the successor can take the offer now, and whether the server still has
        /// a socket.
        fn outcome(&self) -> (bool, bool) {
            let no_offer = |published: &Published| published.offer.is_none();
            assert!(self.shared.published().as_ref().is_none_or(no_offer));
            let can_take = message::acknowledge(&self.successor, self.nonce).is_ok();
            (can_take, self.shared.current().is_some())
        }

        /// Publishes the socket again.
        async fn publish(&self) {
            let location = Arc::clone(&self.location);
            let (_, file, socket) = files(&location, &self.settings, true).await.unwrap();
            let socket = ListeningSocket::new(socket, true).unwrap();
            self.shared.replace(socket, |published| published.renew(location, None, file, None));
            let path = self.location.path(&self.location.name);
            let serves = self.shared.current().is_some();
            assert_eq!(path.exists(), serves, "a file that nobody serves, or none");
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_published_again_ends_the_offer_of_the_former_one() {
        let offered = Offered::new(false).await;
        offered.publish().await;
        assert_eq!(offered.outcome(), (false, true));
    }

    #[tokio::test]
    async fn a_socket_that_was_taken_before_is_not_published_again() {
        let offered = Offered::new(true).await;
        offered.publish().await;
        assert_eq!(offered.outcome(), (false, false));
    }

    #[tokio::test]
    async fn a_socket_whose_file_is_gone_is_offered_no_more() {
        for acknowledges in [false, true] {
            let offered = Offered::new(acknowledges).await;
            watch(&offered.shared, &offered.settings).await;
            assert_eq!(offered.outcome(), (false, !acknowledges));
        }
    }
}
