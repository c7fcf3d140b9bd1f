//! Connecting to an [`Address`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;

use super::conn::Conn;
use super::connect_error::ConnectError;
use super::unix::{by_descriptor, unix_socket};
use crate::address::{Address, Kind};
use crate::backoff::{Backoff, jittered};

/// How long connecting may take by default. It is gRPC's MIN_CONNECT_TIMEOUT
/// ("connection-backoff.md" of the gRPC project).
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The backoff between attempts on a server whose backlog is full.
pub(super) const FULL_BACKLOG: Backoff =
    Backoff::new(Duration::from_micros(500), Duration::from_millis(20));

/// Connects within `timeout`.
pub(crate) async fn connect_within(
    address: &Address,
    timeout: Duration,
) -> Result<Conn, ConnectError> {
    match tokio::time::timeout(timeout, connect(address)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::timed_out(Some(address), Some(timeout))),
    }
}

/// Connects. If the backlog is full, it tries again without end: there a non-blocking connect fails
/// with `EAGAIN`, and a blocking one would wait (connect(2)).
async fn connect(address: &Address) -> Result<Conn, ConnectError> {
    match address.kind() {
        Kind::Unix(path) => connect_unix(address, || path_address(path))
            .await
            .map_err(|errno| ConnectError::unix(address, path, errno)),
        Kind::UnixAbstract(name) => {
            connect_unix(address, || Ok((SocketAddrUnix::new_abstract_name(name)?, None)))
                .await
                .map_err(|errno| match errno {
                    Errno::CONNREFUSED => ConnectError::no_server(address, ""),
                    errno => ConnectError::io(address, errno),
                })
        }
        Kind::Tcp(ip) => connect_tcp(address, ip).await,
        Kind::Host(host, port) => connect_tcp(address, (host.as_str(), *port)).await,
    }
}

async fn connect_unix(
    address: &Address,
    resolve: impl Fn() -> rustix::io::Result<(SocketAddrUnix, Option<OwnedFd>)>,
) -> rustix::io::Result<Conn> {
    let mut backoff = FULL_BACKLOG;
    loop {
        // The path is resolved in each attempt, because the server may have restarted meanwhile.
        // The descriptor stays open during the connect, as the address may lead through it.
        let (at, _inode) = resolve()?;
        let socket = unix_socket()?;
        match rustix::net::connect(&socket, &at) {
            Ok(()) => {
                return Conn::unix(socket)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
            }
            Err(Errno::AGAIN) => {
                tracing::debug!(%address, "the server's backlog is full");
                tokio::time::sleep(jittered(backoff.next())).await;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Returns the socket address of a path: the path itself if it fits, otherwise a path through the
/// open inode, which has to stay open until the connect is done.
pub(super) fn path_address(path: &Path) -> rustix::io::Result<(SocketAddrUnix, Option<OwnedFd>)> {
    match SocketAddrUnix::new(path) {
        Ok(address) => Ok((address, None)),
        Err(Errno::NAMETOOLONG) => {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let inode = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
            Ok((SocketAddrUnix::new(by_descriptor(inode.as_fd()))?, Some(inode)))
        }
        Err(errno) => Err(errno),
    }
}

async fn connect_tcp(
    address: &Address,
    target: impl tokio::net::ToSocketAddrs,
) -> Result<Conn, ConnectError> {
    let found = tokio::net::lookup_host(target)
        .await
        .map_err(|error| ConnectError::unknown_host(address, error))?;
    let mut failure = None;
    for at in found {
        match TcpStream::connect(at).await.and_then(refuse_itself) {
            Ok(stream) => {
                let stream = stream.into_std().and_then(|stream| Conn::tcp(stream.into()));
                return stream.map_err(|error| ConnectError::io(address, error));
            }
            Err(error) => keep_failure(&mut failure, error),
        }
    }
    Err(tcp_failure(address, failure))
}

/// Returns why none of a host name's addresses could be connected to. `None`: there is none.
pub(super) fn tcp_failure(address: &Address, failure: Option<io::Error>) -> ConnectError {
    let failure = failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    match failure.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::no_server(address, ""),
        _ => ConnectError::io(address, failure),
    }
}

/// Of the failures of a host name's addresses, keeps the one that says most. That of an address which this
/// host cannot have, such as `::1` where IPv6 is switched off, says nothing of a server.
pub(super) fn keep_failure(kept: &mut Option<io::Error>, error: io::Error) {
    let errno = Errno::from_io_error(&error);
    let is_of_host =
        matches!(errno, Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::NETUNREACH));
    if kept.is_none() || !is_of_host {
        *kept = Some(error);
    }
}

/// Refuses a TCP socket that has connected to itself. That happens where nobody listens on a port that
/// the kernel may give to clients (ip(7), ip_local_port_range), and it gives the client that very port
/// (RFC 9293 §3.5, simultaneous open).
pub(super) fn refuse_itself<S: AsFd>(socket: S) -> io::Result<S> {
    let local = rustix::net::getsockname(&socket)?;
    // The peer is unknown if it has closed the connection already.
    if rustix::net::getpeername(&socket).ok().flatten() != Some(local) {
        return Ok(socket);
    }
    // An orderly close would keep the port from a server for a minute. A reset does not (socket(7),
    // SO_LINGER).
    set_socket_linger(&socket, Some(Duration::ZERO))?;
    Err(io::ErrorKind::ConnectionRefused.into())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

    use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, socket};

    use super::*;

    #[test]
    fn the_failure_of_an_address_that_this_host_does_not_have_hides_no_other() {
        let (absent, refused) = (Errno::ADDRNOTAVAIL, Errno::CONNREFUSED);
        for (errnos, kept) in [
            (vec![refused, absent], refused),
            (vec![absent, refused], refused),
            (vec![absent, Errno::AFNOSUPPORT], absent),
        ] {
            let mut failure = None;
            errnos.into_iter().for_each(|errno| keep_failure(&mut failure, errno.into()));
            assert_eq!(Errno::from_io_error(&failure.unwrap()), Some(kept));
        }
    }

    #[test]
    fn a_socket_that_has_connected_to_itself_is_refused_and_its_port_is_free() {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = getsockname(&socket).unwrap();
        connect(&socket, &address).unwrap();
        let error = refuse_itself(socket).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);

        let address = SocketAddr::try_from(address).unwrap();
        let _listener = TcpListener::bind(address).unwrap();
        assert!(refuse_itself(TcpStream::connect(address).unwrap()).is_ok());
    }
}
