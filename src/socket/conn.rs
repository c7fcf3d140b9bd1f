//! [`Conn`]: one connected socket, Unix or TCP.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::identity::{PeerIdentity, TcpPeer};
use super::rights::{self, ReceivedRights};
use super::stream::{SocketSender, SocketStream};
use super::unix::peer_user;
use crate::address::Address;
use crate::descriptors::{
    AnnouncedSet, ConnectionQuotas, Quota, ReceivedSet, ResponseQuotas, closer,
};

/// A connection that a [`Listener`](crate::Listener) accepted or a channel opened.
#[derive(Debug)]
pub struct Conn {
    stream: SocketStream,
    is_unix: bool,
    peer: Option<Peer>,
    /// Set if the peer may send descriptors.
    passing: Option<Box<ReceivingRights>>,
}

/// The state of receiving descriptors.
#[derive(Debug)]
struct ReceivingRights {
    quotas: Vec<Arc<Quota>>,
    /// The quotas of descriptors in responses.
    response_quotas: Vec<Arc<Quota>>,
    /// The peer's user.
    user: Option<u32>,
    sets: VecDeque<ReceivedSet>,
    /// The last set was refused, and many sets wait to be closed. Nothing more is received.
    is_over: bool,
}

/// The other end of a connection, as far as the transport knows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Peer {
    /// A process, over a Unix socket.
    Unix(PeerIdentity),
    /// An address, over TCP.
    Tcp(TcpPeer),
    /// The connection did not come from a [`Listener`](crate::Listener).
    Unknown,
}

impl Peer {
    /// Returns the process at the other end if the transport knows it.
    pub fn identity(&self) -> Option<&PeerIdentity> {
        match self {
            Self::Unix(identity) => Some(identity),
            Self::Tcp(_) | Self::Unknown => None,
        }
    }

    /// Returns the peer of a connection that was accepted.
    pub(crate) fn of(conn: Option<&Conn>) -> Self {
        conn.and_then(|conn| conn.peer.clone()).unwrap_or(Self::Unknown)
    }

    /// Adds it to a request's extensions: one extension, [`PeerIdentity`] or [`TcpPeer`]. With the
    /// feature `tonic-transport` it adds tonic's own as well.
    pub(crate) fn add_to(&self, extensions: &mut http::Extensions) {
        match self {
            Self::Unix(peer) => drop(extensions.insert(peer.clone())),
            Self::Tcp(peer) => drop(extensions.insert(peer.clone())),
            Self::Unknown => {}
        }
        #[cfg(feature = "tonic-transport")]
        match self {
            Self::Unix(peer) => drop(extensions.insert(peer.uds_connect_info())),
            Self::Tcp(peer) => drop(extensions.insert(peer.tcp_connect_info())),
            Self::Unknown => {}
        }
    }
}

impl Conn {
    /// Returns a connection on a Unix socket that does not block.
    pub(super) fn unix(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { stream: SocketStream::unix(socket)?, is_unix: true, peer: None, passing: None })
    }

    /// Returns a connection on a TCP socket that does not block. Small messages must not wait for
    /// the acknowledgement of earlier ones (tcp(7)).
    pub(super) fn tcp(socket: OwnedFd) -> io::Result<Self> {
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
        Ok(Self { stream: SocketStream::tcp(socket)?, is_unix: false, peer: None, passing: None })
    }

    /// Finds out the peer of a connection to or from `address`. It fails if the peer cannot be
    /// identified.
    pub(crate) fn identified(mut self, address: &Address) -> io::Result<Self> {
        self.peer = Some(if self.is_unix {
            Peer::Unix(PeerIdentity::of(self.stream.downgrade(), address)?)
        } else {
            let remote = rustix::net::getpeername(&self.stream)?;
            let remote = SocketAddr::try_from(remote.ok_or(io::ErrorKind::NotConnected)?)?;
            Peer::Tcp(TcpPeer::new(remote, address))
        });
        Ok(self)
    }

    /// Returns the process at the other end, or `None` over TCP, which does not know it.
    pub fn peer_identity(&self) -> Option<&PeerIdentity> {
        self.peer.as_ref()?.identity()
    }

    /// Appends the bytes that are there to `input`, as many as its capacity takes, and at most
    /// `most`.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        match &mut self.passing {
            None => self.stream.poll_receive(cx, input, most),
            Some(passing) if passing.is_over => Poll::Ready(Err(rights::behind())),
            Some(passing) => self.stream.poll_receive_with(cx, input, most, |received| {
                passing.arrived(received);
            }),
        }
    }

    /// Takes descriptors from the peer from now on, as far as `quotas` allow. Returns whether that is
    /// possible: it is not over TCP, nor while too many of its user wait to be closed.
    pub(crate) fn take_descriptors(&mut self, quotas: ConnectionQuotas) -> bool {
        if !self.is_unix {
            return false;
        }
        let user = peer_user(&self.stream);
        let takes = !closer::is_behind(user);
        if takes {
            self.stream.take_descriptors();
            self.passing = Some(Box::new(ReceivingRights {
                quotas: quotas.received,
                response_quotas: quotas.responses,
                user,
                sets: VecDeque::new(),
                is_over: false,
            }));
        }
        takes
    }

    /// Takes what the descriptors of responses count against. `None` if they cannot be sent.
    pub(crate) fn take_response_quotas(&mut self) -> Option<ResponseQuotas> {
        let passing = self.passing.as_mut()?;
        let quotas = std::mem::take(&mut passing.response_quotas);
        Some(ResponseQuotas { quotas, user: passing.user })
    }

    /// Takes what came with the bytes that were received, one set at a time.
    #[inline]
    pub(crate) fn next_set(&mut self) -> Option<ReceivedSet> {
        self.passing.as_mut()?.sets.pop_front()
    }

    /// Sends `bytes` with the descriptors of `set` beside the first of them.
    pub(crate) fn poll_send_descriptors(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
        set: &AnnouncedSet,
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_send_descriptors(cx, bytes, set)
    }

    /// Does the same with the bytes that are there right now. It asks the kernel, while
    /// `poll_receive` asks the runtime what epoll last reported. It wakes no task later.
    pub(crate) fn receive(&mut self, input: &mut BytesMut, most: usize) -> io::Result<usize> {
        match &mut self.passing {
            None => self.stream.receive(input, most),
            Some(passing) if passing.is_over => Err(rights::behind()),
            Some(passing) => {
                let received = rights::receive(&self.stream, input, most)?;
                let bytes = received.bytes;
                passing.arrived(received);
                Ok(bytes)
            }
        }
    }

    /// Returns whether there is something to read, without reading it. `None` means that nothing
    /// can come any more, or that the peer has closed both of its sides.
    pub(crate) fn has_unread(&self) -> io::Result<Option<bool>> {
        self.stream.has_unread()
    }

    /// Is ready once the peer has closed both of its sides. Over TCP, the end of the peer's writing
    /// side looks the same until this end writes, and counts as both.
    pub(crate) fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_unix { self.stream.poll_hang_up(cx) } else { Poll::Ready(()) }
    }

    /// Returns a second way to send, beside [`AsyncWrite`].
    pub(crate) fn sender(&self) -> SocketSender {
        self.stream.sender()
    }

    /// Returns whether both ends were bound to the same single CPU when the connection began. Over
    /// TCP that is not known.
    pub(crate) fn shares_one_cpu(&self) -> bool {
        self.stream.shares_one_cpu()
    }

    /// Returns whether this is a Unix socket rather than TCP.
    pub(crate) fn is_unix(&self) -> bool {
        self.is_unix
    }
}

impl ReceivingRights {
    fn arrived(&mut self, received: ReceivedRights) {
        let ReceivedRights { descriptors, truncated, .. } = received;
        if truncated || !descriptors.is_empty() {
            let set = ReceivedSet::new(descriptors, truncated, &self.quotas, self.user);
            // No quota counts the descriptors of a refused set.
            self.is_over |= set.set.is_err() && closer::is_behind(self.user);
            self.sets.push_back(set);
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, buf)
    }

    /// Nothing is buffered here.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    use std::sync::mpsc;

    use super::super::listener::Listener;
    use super::super::sys;
    use super::super::unix::unix_socket;
    use super::*;
    use crate::descriptors::MAX_PER_CALL;

    fn most(most: usize) -> ConnectionQuotas {
        ConnectionQuotas { received: vec![Quota::new(most)], responses: Vec::new() }
    }

    fn pair() -> (Conn, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Conn::unix(ours.into()).unwrap(), theirs)
    }

    /// Otherwise each read that leaves room in its buffer has to be repeated.
    #[tokio::test]
    async fn no_descriptors_can_come_to_a_connection_that_takes_none() {
        if sys::takes_descriptors(unix_socket().unwrap()).is_err() {
            // An older kernel cannot refuse them.
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let name = format!("samehost-refuses-{}", std::process::id());
        let names = [SocketAddr::from_pathname(&path), SocketAddr::from_abstract_name(&name)];
        let addresses = [format!("unix:{}", path.display()), format!("unix-abstract:{name}")];
        for (name, address) in names.into_iter().zip(addresses) {
            let listener = Listener::bind(&*address).await.unwrap();
            let client = UnixStream::connect_addr(&name.unwrap()).unwrap();
            let sent = sys::tests::send_descriptor(&client, client.as_fd());
            assert_eq!(sent, Err(rustix::io::Errno::PERM), "before it is accepted");
            let accepted = listener.accept().await.unwrap();
            assert!(!sys::takes_descriptors(&accepted.stream).unwrap(), "{address}");
        }
    }

    #[tokio::test]
    async fn a_connection_ends_whose_descriptors_can_be_neither_held_nor_closed() {
        let (mut conn, peer) = pair();
        assert!(conn.take_descriptors(most(0)));
        let user = peer_user(&peer);
        // Threads that close something which blocks.
        let (began, begin) = mpsc::channel();
        let mut release = Vec::new();
        for _ in 0..closer::MAX_THREADS_PER_USER {
            let (sender, blocked) = mpsc::channel::<()>();
            let began = began.clone();
            closer::run(user, 1, move |_| {
                began.send(()).unwrap();
                let _ = blocked.recv();
            });
            release.push(sender);
            begin.recv().unwrap();
        }
        let mut input = BytesMut::with_capacity(64);
        let mut sets = 0;
        let error = loop {
            rights::send(&peer, b"x", &[peer.as_fd(); MAX_PER_CALL]).unwrap();
            match poll_fn(|cx| conn.poll_receive(cx, &mut input, usize::MAX)).await {
                Ok(_) => assert!(conn.next_set().unwrap().set.is_err()),
                Err(error) => break error,
            }
            sets += 1;
            assert!(sets <= 5);
        };
        assert!(error.to_string().contains("wait to be closed"), "{error}");
        let (mut another, _peer) = pair();
        assert!(!another.take_descriptors(most(1)));
        drop(release);
    }
}
