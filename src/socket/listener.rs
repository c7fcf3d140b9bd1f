//! [`Listener`]: a bound address that accepts connections.

#[cfg(feature = "tonic-transport")]
use std::fmt;
use std::future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(feature = "tonic-transport")]
use std::pin::Pin;
use std::sync::Arc;
#[cfg(feature = "tonic-transport")]
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::Shutdown;
use tokio::sync::watch;
use tokio::task::coop::consume_budget;

use super::accept::ListeningSocket;
use super::conn::Conn;
use super::guard::Guard;
use super::listener_state::{ListenerState, ListeningSockets};
use super::published::{Published, Settings};
use crate::address::Address;
use crate::backoff::Backoff;

/// How long nothing is accepted after accept(2) has failed. So a process without free file
/// descriptors does not use up a CPU, and does not stop accepting.
pub(crate) const ACCEPT_BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(5), Duration::from_secs(1));

/// A bound address that accepts connections: a Unix socket or a TCP port.
///
/// Dropping it closes the socket and removes the socket's file, unless another file has replaced
/// it.
///
/// After fork(2), only the parent may use or drop it, and a [`Server`](crate::Server) that has it,
/// unless the child execs: the child's drop would remove the file of the parent's socket. So fork
/// before you bind, or let the child end by `_exit` or exec without dropping it.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    /// The socket that was bound first. A newer one may have replaced it.
    socket: Arc<ListeningSocket>,
    shared: Arc<ListenerState>,
    /// Set if there is a file to watch over.
    guard: Option<Guard>,
    /// Whether another process has the socket, too.
    inherited: bool,
    #[cfg(feature = "tonic-transport")]
    accepting: Accepting,
}

impl Listener {
    /// Returns the listener of a socket without a file of ours.
    pub(super) fn new(address: Address, socket: ListeningSocket) -> Self {
        let socket = Arc::new(socket);
        let shared = ListenerState::new(Arc::clone(&socket), None);
        Self::with(address, socket, shared, None)
    }

    /// Returns the listener of a socket and its file.
    pub(super) fn published(
        address: Address,
        socket: ListeningSocket,
        published: Published,
        settings: Settings,
    ) -> Self {
        let socket = Arc::new(socket);
        let shared = ListenerState::new(Arc::clone(&socket), Some(published));
        let guard = Guard::spawn(&shared, settings);
        Self::with(address, socket, shared, Some(guard))
    }

    fn with(
        address: Address,
        socket: Arc<ListeningSocket>,
        shared: Arc<ListenerState>,
        guard: Option<Guard>,
    ) -> Self {
        Self {
            address,
            socket,
            shared,
            guard,
            inherited: false,
            #[cfg(feature = "tonic-transport")]
            accepting: Accepting { backoff: ACCEPT_BACKOFF, delay: None, next: None },
        }
    }

    /// Replaces the kernel's form of the address with the one that was bound.
    pub(super) fn at(mut self, address: Address) -> Self {
        self.address = address;
        self
    }

    /// Returns the address that it listens on. For TCP these are the IP address and port that were
    /// bound, so instead of port 0 it has the port that the kernel chose.
    pub fn local_addr(&self) -> &Address {
        &self.address
    }

    /// Notes that another process has the socket as well.
    pub(super) fn inherited(mut self) -> Self {
        self.inherited = true;
        self
    }

    /// Lets the socket accept connections after this listener has ended.
    pub(super) fn keep_open(&mut self) {
        self.inherited = true;
    }

    /// Returns whether another process may accept the connections that are not accepted here.
    pub(crate) fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// Returns whether its connections know their peers, as those of Unix sockets do.
    pub(crate) fn knows_peers(&self) -> bool {
        self.socket.is_unix()
    }

    /// Waits for the next connection. Over a Unix socket it knows its peer's identity. A connection
    /// whose peer cannot be identified, or that has failed, is closed.
    ///
    /// # Errors
    ///
    /// The errors of accept(2) that concern the listener, such as `EMFILE`, and those of epoll(7), such as
    /// `ENOSPC` (`fs.epoll.max_user_watches`): then a connection was closed. They are likely to come again
    /// at once. The listener goes on. `NotConnected` once the socket was handed over to a successor (see
    /// [`handed_over`](Self::handed_over)): then no connection comes any more. `InvalidInput`
    /// (`EINVAL`) once another process that has the same socket has shut it down.
    ///
    /// # Cancel safety
    ///
    /// If it is cancelled, no connection is lost.
    pub async fn accept(&self) -> io::Result<Conn> {
        accept(self.shared.sockets(), &self.address).await
    }

    /// Completes once a successor has taken the socket over, which needs
    /// [`BindOptions::allow_take_over`](crate::BindOptions::allow_take_over). This process still
    /// has the connections that it accepted before. It lets their calls finish, and ends. Drop the
    /// listener soon: while it exists, the socket stays open even if the successor ends.
    ///
    /// # Cancel safety
    ///
    /// It can be cancelled and called again.
    pub async fn handed_over(&self) {
        let mut sockets = self.shared.sockets();
        // The sender belongs to this listener, so it still exists.
        let _ = sockets.wait_for(|sockets| sockets.current.is_none()).await;
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.shared.current().is_none()
    }

    /// Does the same as [`accept`](Self::accept) for a single task, with a backoff after an error.
    #[cfg(feature = "tonic-transport")]
    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Conn>>> {
        let Accepting { backoff, delay, next } = &mut self.accepting;
        let future = next.get_or_insert_with(|| {
            let (sockets, address) = (self.shared.sockets(), self.address.clone());
            let delay = delay.take();
            Box::pin(async move {
                if let Some(delay) = delay {
                    tokio::time::sleep(delay).await;
                }
                accept(sockets, &address).await
            })
        });
        let accepted = ready!(future.as_mut().poll(cx));
        *next = None;
        match accepted {
            Ok(_) => backoff.reset(),
            Err(_) => *delay = Some(backoff.next()),
        }
        if accepted.is_err() && self.is_handed_over() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(accepted))
    }

    /// Returns the next connection that is in the queue right now, if there is one. `accept` asks
    /// the kernel only after the runtime has heard of a connection.
    pub(crate) fn accept_queued(&self) -> io::Result<Option<Conn>> {
        let ListeningSockets { current, former } = self.shared.sockets().borrow().clone();
        if let Some(conn) = former.map_or(Ok(None), |former| former.accept_queued(&self.address))? {
            return Ok(Some(conn));
        }
        current.map_or(Ok(None), |current| current.accept_queued(&self.address))
    }

    /// Returns what it has on disk. The caller owns that from now on.
    pub(super) fn end(&mut self) -> Option<Published> {
        self.guard = None;
        self.shared.end()
    }

    /// Returns the socket that has the address. It fails if that was handed over.
    pub(super) fn current(&self) -> io::Result<Arc<ListeningSocket>> {
        self.shared.current().ok_or_else(handed_over_error)
    }

    /// Removes the socket's file and lets a successor bind the path. Clients that have already
    /// connected can still be accepted.
    pub(crate) fn unpublish(&mut self) {
        self.guard = None;
        self.shared.unpublish();
        // If a successor has the socket, it is the same socket, so nothing is done to it.
        let ListeningSockets { current, former } = self.shared.sockets().borrow().clone();
        let ours = |socket: &Arc<ListeningSocket>| !self.inherited && socket.is_unix();
        for socket in current.into_iter().chain(former).filter(ours) {
            // From now on, clients that have found the file but have not connected are refused.
            // Otherwise they would be reset when the socket closes. The queue stays
            // (`unix_stream_connect` in Linux' af_unix.c).
            let _ = rustix::net::shutdown(&socket, Shutdown::Read);
        }
    }
}

impl Drop for Listener {
    /// Removes the file before the socket is closed, so that no client finds a name without a
    /// server.
    fn drop(&mut self) {
        self.unpublish();
    }
}

/// Returns the listening socket. After it was published again (`BindOptions::republish`) this is
/// still the one that was bound first.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits for the next connection on the socket that has the address, or on the former one.
async fn accept(
    mut sockets: watch::Receiver<ListeningSockets>,
    address: &Address,
) -> io::Result<Conn> {
    // Many connections in a row must not keep the runtime's thread.
    consume_budget().await;
    loop {
        let ListeningSockets { current, former } = sockets.borrow_and_update().clone();
        if let Some(former) = &former
            && let Some(conn) = former.accept_queued(address)?
        {
            return Ok(conn);
        }
        let Some(current) = current else { return Err(handed_over_error()) };
        // A hard link, a bind mount or the name that it was moved to may still lead to the former one.
        let of_former = async {
            let Some(former) = &former else { return future::pending().await };
            match former.accept(address).await {
                // It was shut down, which says nothing of the other.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                    future::pending().await
                }
                accepted => accepted,
            }
        };
        tokio::select! {
            biased;
            accepted = of_former => return accepted,
            accepted = current.accept(address) => return accepted,
            Ok(()) = sockets.changed() => {}
        }
    }
}

fn handed_over_error() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the listening socket was handed over to a successor",
    )
}

/// The stream of connections that a listener waits for, and its backoff after a failure.
#[cfg(feature = "tonic-transport")]
struct Accepting {
    backoff: Backoff,
    delay: Option<Duration>,
    next: Option<Pin<Box<dyn Future<Output = io::Result<Conn>> + Send + Sync>>>,
}

#[cfg(feature = "tonic-transport")]
impl fmt::Debug for Accepting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepting").field("backoff", &self.backoff).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "tonic-transport"))]
mod tests {
    use std::future::poll_fn;
    use std::net::TcpStream;

    use rustix::net::sockopt;
    use tokio::time::Instant;

    use super::*;

    async fn listener() -> Listener {
        Listener::bind("127.0.0.1:0").await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn as_a_stream_it_pauses_after_each_failure() {
        let mut listener = listener().await;
        // It does not listen any more, so accept(2) fails from now on.
        rustix::net::shutdown(&listener, Shutdown::Read).unwrap();
        let started = Instant::now();
        for pauses in [0, 5, 5 + 10, 5 + 10 + 20] {
            poll_fn(|cx| listener.poll_accept(cx)).await.unwrap().unwrap_err();
            let elapsed = started.elapsed().as_millis();
            // The timer counts whole milliseconds.
            assert!((pauses..pauses + 5).contains(&elapsed), "{elapsed} after {pauses}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn as_a_stream_it_passes_over_connections_that_have_failed_by_themselves() {
        let mut listener = listener().await;
        let address = listener.local_addr().to_string();
        for _ in 0..3 {
            let reset = TcpStream::connect(&address).unwrap();
            sockopt::set_socket_linger(&reset, Some(Duration::ZERO)).unwrap();
        }
        let client = TcpStream::connect(&address).unwrap();
        let started = Instant::now();
        let conn = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap().unwrap();
        let crate::socket::Peer::Tcp(peer) = crate::socket::Peer::of(Some(&conn)) else {
            unreachable!("{conn:?}")
        };
        assert_eq!(peer.remote_addr(), client.local_addr().unwrap());
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
