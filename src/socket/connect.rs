//! Connecting to an [`Address`], and [`ConnectError`]: why it did not work and what to do.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use tokio::net::TcpStream;

use super::bind::unix_socket;
use super::conn::Conn;
use super::file::by_descriptor;
use crate::address::{Address, Kind};

/// How long connecting may take, unless set otherwise.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The pauses between attempts on a server whose backlog is full: doubled from the first up to
/// the last.
const BACKLOG_PAUSES: (Duration, Duration) =
    (Duration::from_micros(500), Duration::from_millis(20));

/// Connects within `timeout`. A full backlog is tried again until then: a non-blocking connect
/// fails with `EAGAIN` where a blocking one would wait (connect(2)).
pub(crate) async fn connect(address: &Address, timeout: Duration) -> Result<Conn, ConnectError> {
    let attempt = async {
        match address.kind() {
            Kind::Unix(path) => connect_unix(address, || path_address(path))
                .await
                .map_err(|errno| ConnectError::unix(address, path, errno)),
            Kind::UnixAbstract(name) => {
                connect_unix(address, || Ok((SocketAddrUnix::new_abstract_name(name)?, None)))
                    .await
                    .map_err(|errno| match errno {
                        Errno::CONNREFUSED => {
                            ConnectError::NoServer { address: address.clone(), why: "" }
                        }
                        errno => ConnectError::io(address, errno),
                    })
            }
            Kind::Tcp(ip) => connect_tcp(address, ip).await,
            Kind::Host(host, port) => connect_tcp(address, (host.as_str(), *port)).await,
        }
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut { address: address.clone(), timeout }),
    }
}

async fn connect_unix(
    address: &Address,
    resolve: impl Fn() -> rustix::io::Result<(SocketAddrUnix, Option<OwnedFd>)>,
) -> rustix::io::Result<Conn> {
    let (mut pause, longest) = BACKLOG_PAUSES;
    loop {
        // Looked up each time: the server may have restarted meanwhile. The descriptor stays open
        // during the connect, as the address may lead through it.
        let (place, _inode) = resolve()?;
        let socket = unix_socket()?;
        match rustix::net::connect(&socket, &place) {
            Ok(()) => {
                return Conn::unix(socket)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
            }
            Err(Errno::AGAIN) => {
                tracing::debug!(%address, "the server's backlog is full");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The socket address of a path: itself where it fits, else by way of the open inode, which has to
/// stay open until the connect is done.
fn path_address(path: &Path) -> rustix::io::Result<(SocketAddrUnix, Option<OwnedFd>)> {
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
        .map_err(|source| ConnectError::Resolve { address: address.clone(), source })?;
    let found: Vec<_> = found.collect();
    let stream = TcpStream::connect(&*found).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            ConnectError::NoServer { address: address.clone(), why: "" }
        }
        _ => ConnectError::io(address, error),
    })?;
    stream
        .into_std()
        .and_then(|stream| Conn::tcp(stream.into()))
        .map_err(|error| ConnectError::io(address, error))
}

/// Why no connection could be made. Every message names the address and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody listens there.
    #[error("no server is listening at {address}{why}: start the server or check the address")]
    NoServer {
        /// The address to connect to.
        address: Address,
        /// What was found instead, with a leading colon; empty where there is nothing to find.
        why: &'static str,
    },
    /// What stands at the path is no socket.
    #[error("{address}: there is {kind} at this path, not a socket: check the address")]
    NotASocket {
        /// The address to connect to.
        address: Address,
        /// What stands there, with its article.
        kind: &'static str,
    },
    /// The file's mode, or a directory's, keeps this process out.
    #[error(
        "permission denied: {found}: run as a user who may connect, or change the server's mode or group"
    )]
    PermissionDenied {
        /// The address to connect to.
        address: Address,
        /// Which file keeps the process out, and by what mode and owner.
        found: String,
    },
    /// No connection within the time given.
    #[error(
        "no connection to {address} within {timeout:?}: the server may be overloaded; try again or allow more time"
    )]
    TimedOut {
        /// The address to connect to.
        address: Address,
        /// The connect timeout.
        timeout: Duration,
    },
    /// The host name could not be resolved.
    #[error(
        "{address}: the host name cannot be resolved ({source}): check it or give an IP address"
    )]
    Resolve {
        /// The address to connect to.
        address: Address,
        /// The cause.
        source: io::Error,
    },
    /// What answers there does not speak HTTP/2.
    #[error(
        "{address}: the server does not speak HTTP/2 ({source}): check that this is a gRPC server's address"
    )]
    NotHttp2 {
        /// The address to connect to.
        address: Address,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server is not one that the channel was told to accept.
    #[error(
        "{address}: the server runs as uid {uid}, gid {gid}, which this client was told not to \
         trust: check who serves this address"
    )]
    WrongServer {
        /// The address to connect to.
        address: Address,
        /// The user of the process that began to listen there.
        uid: u32,
        /// Its group.
        gid: u32,
        /// The process, where it can be seen from here.
        pid: Option<u32>,
    },
    /// The channel was told which servers to accept, and TCP does not tell who the server is.
    #[error("{address}: TCP does not tell who the server is: connect to its Unix socket")]
    UnknownServer {
        /// The address to connect to.
        address: Address,
    },
    /// Any other failure.
    #[error("could not connect to {address}: {source}")]
    Io {
        /// The address to connect to.
        address: Address,
        /// The cause.
        source: io::Error,
    },
}

impl ConnectError {
    fn io(address: &Address, source: impl Into<io::Error>) -> Self {
        Self::Io { address: address.clone(), source: source.into() }
    }

    /// Says what stands in the way of a Unix socket, by a look at the file.
    fn unix(address: &Address, path: &Path, errno: Errno) -> Self {
        let address = address.clone();
        match errno {
            Errno::NOENT => Self::NoServer { address, why: ": there is no such file" },
            Errno::CONNREFUSED => match rustix::fs::stat(path) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => {
                    Self::NoServer { address, why: ": the socket file is stale" }
                }
                Ok(stat) => Self::NotASocket { address, kind: super::file::kind_name(&stat) },
                Err(_) => Self::NoServer { address, why: "" },
            },
            Errno::ACCESS => Self::PermissionDenied { found: closed_file(path), address },
            Errno::PROTOTYPE => Self::NotASocket { address, kind: "a datagram socket" },
            errno => Self::io(&address, errno),
        }
    }
}

/// The file on the way to `path` that keeps this process out, with its mode and owner.
fn closed_file(path: &Path) -> String {
    let mut closed: PathBuf = path.to_owned();
    loop {
        if let Ok(stat) = rustix::fs::stat(&closed) {
            return format!(
                "{} is mode {:04o}, owned by uid {}",
                crate::address::shown_path(&closed),
                stat.st_mode & 0o7777,
                stat.st_uid
            );
        }
        // A directory above may not be searched: the nearest one that can be seen is it.
        if !closed.pop() || closed.as_os_str().is_empty() {
            return crate::address::shown_path(path).to_string();
        }
    }
}
