//! Connecting to an [`Address`] without a runtime.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::SocketAddrUnix;

use super::conn::Peer;
use super::connect::{FULL_BACKLOG, keep_failure, path_address, refuse_itself, tcp_failure};
use super::connect_error::ConnectError;
use super::held::Held;
use super::identity::{PeerIdentity, TcpPeer};
use super::unix::unix_socket;
use crate::address::{Address, Kind};
use crate::backoff::jittered;

/// Connects a socket that blocks, and asks which process listens there. The error names `timeout`,
/// unless a call's deadline comes first (`None`). Over TCP the other end is unknown if it has closed the
/// connection already.
pub(crate) fn connect_blocking(
    address: &Address,
    until: Option<Instant>,
    timeout: Option<Duration>,
) -> Result<(Arc<Held>, Peer), ConnectError> {
    let socket = Arc::new(Held::new(connect(address, until, timeout)?, false));
    let peer = if address.is_unix() {
        let identity = PeerIdentity::of(Arc::downgrade(&socket), address);
        Peer::Unix(identity.map_err(|error| ConnectError::io(address, error))?)
    } else {
        let remote = rustix::net::getpeername(&socket).ok().flatten();
        let remote = remote.and_then(|remote| SocketAddr::try_from(remote).ok());
        remote.map_or(Peer::Unknown, |remote| Peer::Tcp(TcpPeer::new(remote, address)))
    };
    Ok((socket, peer))
}

fn connect(
    address: &Address,
    until: Option<Instant>,
    timeout: Option<Duration>,
) -> Result<OwnedFd, ConnectError> {
    let late = || ConnectError::timed_out(Some(address), timeout);
    match address.kind() {
        Kind::Unix(path) => connect_unix(until, || path_address(path))
            .map_err(|errno| ConnectError::unix(address, path, errno))?
            .ok_or_else(late),
        Kind::UnixAbstract(name) => {
            connect_unix(until, || Ok((SocketAddrUnix::new_abstract_name(name)?, None)))
                .map_err(|errno| match errno {
                    Errno::CONNREFUSED => ConnectError::no_server(address, ""),
                    errno => ConnectError::io(address, errno),
                })?
                .ok_or_else(late)
        }
        Kind::Tcp(ip) => connect_tcp(address, &[*ip], until, late),
        Kind::Host(host, port) => {
            let found = (host.as_str(), *port).to_socket_addrs();
            let found: Vec<_> =
                found.map_err(|error| ConnectError::unknown_host(address, error))?.collect();
            connect_tcp(address, &found, until, late)
        }
    }
}

fn is_over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| until <= Instant::now())
}

/// Returns `None` if the server's backlog was full until the time was over.
fn connect_unix(
    until: Option<Instant>,
    resolve: impl Fn() -> rustix::io::Result<(SocketAddrUnix, Option<OwnedFd>)>,
) -> rustix::io::Result<Option<OwnedFd>> {
    let mut backoff = FULL_BACKLOG;
    loop {
        let (at, _inode) = resolve()?;
        // A blocking socket would wait without limit for a full backlog (connect(2)).
        let socket = unix_socket()?;
        match rustix::net::connect(&socket, &at) {
            Ok(()) => {
                ioctl_fionbio(&socket, false)?;
                return Ok(Some(socket));
            }
            Err(Errno::AGAIN) if is_over(until) => return Ok(None),
            Err(Errno::AGAIN) => std::thread::sleep(jittered(backoff.next())),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn connect_tcp(
    address: &Address,
    found: &[SocketAddr],
    until: Option<Instant>,
    late: impl Fn() -> ConnectError,
) -> Result<OwnedFd, ConnectError> {
    let mut failure = None;
    for at in found {
        let connected = match until {
            None => TcpStream::connect(at),
            Some(until) => match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Err(late()),
                left => TcpStream::connect_timeout(at, left),
            },
        };
        let connected = connected.and_then(refuse_itself);
        match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(stream.into()),
            Err(error) => keep_failure(&mut failure, error),
        }
    }
    Err(match failure {
        Some(error) if error.kind() == io::ErrorKind::TimedOut => late(),
        failure => tcp_failure(address, failure),
    })
}
