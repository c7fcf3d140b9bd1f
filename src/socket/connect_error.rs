//! [`ConnectError`]: why there is no connection to an [`Address`], and what to do about it.

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::identity::PeerIdentity;
use super::unix::kind_name;
use crate::address::{Address, AddressParseError, shown_path};

/// Why there is no connection. The message is one line that names the address and the remedy.
/// Clones share the same error.
///
/// ```
/// use samehost::{Channel, ConnectErrorKind};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let error = Channel::connect("unix:/no/such.sock").await.unwrap_err();
/// assert_eq!(error.kind(), ConnectErrorKind::NoServer);
/// assert!(error.to_string().contains("start the server or check the address"));
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// `Display` and `Debug` print the same message, so that an error returned from `main` is readable.
/// As the source of a [`tonic::Status`], whose text has the message, `Debug` prints the kind.
#[derive(Clone)]
pub struct ConnectError {
    details: Arc<ConnectErrorDetails>,
    /// Whether it is the source of a status.
    in_status: bool,
}

struct ConnectErrorDetails {
    kind: ConnectErrorKind,
    address: Option<Address>,
    message: String,
    cause: Option<io::Error>,
    server: Option<PeerIdentity>,
    /// If it is about several addresses: the error of one of them, which has the rest.
    of_one: Option<ConnectError>,
}

/// The kind of a [`ConnectError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// No server listens there.
    NoServer,
    /// The file at the path is not a stream socket.
    NotASocket,
    /// The path is not valid: it is too long, leads through a file or goes round in a circle.
    InvalidPath,
    /// The mode of the file or of a directory does not let this process in.
    PermissionDenied,
    /// Within the connect timeout there was no connection, or the server did not speak on it.
    TimedOut,
    /// The host name could not be resolved.
    UnknownHost,
    /// The server closed the connection before it was ready for calls.
    Closed,
    /// The program that answers there does not speak HTTP/2.
    NotHttp2,
    /// The channel was told not to accept this server.
    WrongServer,
    /// The channel was told which servers to accept, but TCP and connectors do not tell who the
    /// server is.
    UnknownServer,
    /// What the caller gave is not an address.
    InvalidAddress,
    /// Anything else. [`ConnectError::io_error`] tells more.
    Io,
}

impl ConnectErrorKind {
    /// Returns whether waiting cannot help, because a person has to change something first.
    pub fn is_permanent(self) -> bool {
        match self {
            Self::NotASocket
            | Self::InvalidPath
            | Self::NotHttp2
            | Self::WrongServer
            | Self::UnknownServer
            | Self::InvalidAddress => true,
            // A server that is about to start may create its directory or set its socket's mode.
            Self::PermissionDenied
            | Self::NoServer
            | Self::TimedOut
            | Self::UnknownHost
            | Self::Closed
            | Self::Io => false,
        }
    }
}

impl ConnectError {
    fn new(kind: ConnectErrorKind, address: Option<&Address>, message: String) -> Self {
        let address = address.cloned();
        let details =
            ConnectErrorDetails { kind, address, message, cause: None, server: None, of_one: None };
        Self { details: Arc::new(details), in_status: false }
    }

    fn because(mut self, cause: io::Error) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.details) {
            inner.cause = Some(cause);
        }
        self
    }

    /// Returns the same error as the source of a status whose text has the message.
    pub(crate) fn in_status(self) -> Self {
        Self { in_status: true, ..self }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ConnectErrorKind {
        self.details.kind
    }

    /// Returns the address to connect to. It is `None` if what the caller gave is not an address,
    /// or if the channel was made from a connector.
    pub fn address(&self) -> Option<&Address> {
        self.details.address.as_ref()
    }

    /// Returns the error of the operating system or of a connector, if there was one.
    pub fn io_error(&self) -> Option<&io::Error> {
        let of_one = || self.details.of_one.as_ref()?.io_error();
        self.details.cause.as_ref().or_else(of_one)
    }

    /// Returns the server that was not accepted, for [`ConnectErrorKind::WrongServer`].
    pub fn server(&self) -> Option<&PeerIdentity> {
        let of_one = || self.details.of_one.as_ref()?.server();
        self.details.server.as_ref().or_else(of_one)
    }

    /// Returns the error for an address without a server. `why` says what was found instead, after
    /// a colon, or is empty.
    pub(super) fn no_server(address: &Address, why: &str) -> Self {
        let message = format!(
            "no server is listening at {address}{why}: start the server or check the address"
        );
        Self::new(ConnectErrorKind::NoServer, Some(address), message)
    }

    pub(crate) fn io(address: &Address, cause: impl Into<io::Error>) -> Self {
        let cause = cause.into();
        let message = format!("could not connect to {address}: {cause}");
        Self::new(ConnectErrorKind::Io, Some(address), message).because(cause)
    }

    pub(super) fn unknown_host(address: &Address, cause: io::Error) -> Self {
        let message = format!(
            "{address}: the host name cannot be resolved ({cause}): check it or give an IP address"
        );
        Self::new(ConnectErrorKind::UnknownHost, Some(address), message).because(cause)
    }

    /// Returns the error for a connection that did not come about within the connect timeout, or
    /// before the deadline of a call (`None`), which the call's status tells.
    pub(crate) fn timed_out(address: Option<&Address>, timeout: Option<Duration>) -> Self {
        let server = address.map_or_else(|| "by the connector".to_owned(), |it| format!("to {it}"));
        let message = format!(
            "no connection {server}{}: the server may be overloaded; try again, or {}",
            Within(timeout),
            more_time(timeout)
        );
        Self::new(ConnectErrorKind::TimedOut, address, message)
    }

    pub(crate) fn not_http2(address: Option<&Address>, why: &str) -> Self {
        let message = format!(
            "the server {}does not speak HTTP/2 ({why}): check that it is a gRPC server",
            At(address)
        );
        Self::new(ConnectErrorKind::NotHttp2, address, message)
    }

    /// Returns the error for a server that `require_server` does not accept.
    pub(crate) fn wrong_server(address: &Address, server: &PeerIdentity) -> Self {
        let message = format!(
            "{address}: the server runs as uid {}, gid {}, and require_server does not \
             accept that: check who serves this address",
            server.uid(),
            server.gid()
        );
        let mut error = Self::new(ConnectErrorKind::WrongServer, Some(address), message);
        if let Some(inner) = Arc::get_mut(&mut error.details) {
            inner.server = Some(server.clone());
        }
        error
    }

    pub(crate) fn unknown_server(address: Option<&Address>) -> Self {
        let message = match address {
            Some(address) => {
                format!(
                    "{address}: TCP does not tell who the server is: connect to its Unix socket, or \
                     leave out require_server"
                )
            }
            None => "a connector does not tell who the server is: give the channel an address, or \
                     leave out require_server"
                .to_owned(),
        };
        Self::new(ConnectErrorKind::UnknownServer, address, message)
    }

    /// Returns the error for a connector that failed, or that opened something unusable.
    pub(crate) fn connector(cause: io::Error) -> Self {
        let message = format!("the connector failed: {cause}");
        Self::new(ConnectErrorKind::Io, None, message).because(cause)
    }

    /// Returns the error for a call whose connection was opened by a runtime that ended.
    pub(crate) fn runtime_ended() -> Self {
        let message =
            "the tokio runtime that connected was shut down: make calls on one that goes on";
        Self::new(ConnectErrorKind::Io, None, message.to_owned())
    }

    /// Returns the error for a server that accepted the connection and then was silent, until the
    /// connect timeout or the deadline of a call (`None`) had passed.
    pub(crate) fn silent(address: Option<&Address>, timeout: Option<Duration>) -> Self {
        let message = format!(
            "the server {}took the connection and has sent no SETTINGS{}: it may still be starting; \
             {}, or check that it is a gRPC server",
            At(address),
            Within(timeout),
            more_time(timeout)
        );
        Self::new(ConnectErrorKind::TimedOut, address, message)
    }

    /// Returns the error for a server that closed the connection before it took a call.
    pub(crate) fn closed(address: Option<&Address>, why: &dyn fmt::Display) -> Self {
        let message = format!(
            "the server {}closed the connection before it took a call: {why}: \
             try again, or look into its log",
            At(address)
        );
        Self::new(ConnectErrorKind::Closed, address, message)
    }

    /// Returns the error if none of several addresses has a server. All but the message is that of the
    /// first that may get better, because then waiting makes sense, or else of the preferred address.
    pub(crate) fn all(errors: impl Iterator<Item = Self>) -> Self {
        let mut errors: Vec<_> = errors.collect();
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let better = errors.iter().position(|error| !error.kind().is_permanent());
        let chosen = (!errors.is_empty()).then(|| errors.swap_remove(better.unwrap_or(0)));
        let kind = chosen.as_ref().map_or(ConnectErrorKind::Io, Self::kind);
        let address = chosen.as_ref().and_then(Self::address);
        let mut error = Self::new(kind, address, texts.join("; "));
        if let Some(inner) = Arc::get_mut(&mut error.details) {
            inner.of_one = chosen.clone();
        }
        error
    }

    /// Looks at a Unix socket's file and returns what is wrong with it.
    pub(super) fn unix(address: &Address, path: &Path, errno: Errno) -> Self {
        match errno {
            Errno::NOENT => match rustix::fs::readlink(path, Vec::new()) {
                Ok(target) => {
                    let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                    let why =
                        format!(": it is a link to {}, which is not there", shown_path(target));
                    Self::no_server(address, &why)
                }
                // A long path is reached through /proc (unix(7) allows 107 bytes).
                Err(_) if rustix::fs::stat(path).is_ok() => Self::new(
                    ConnectErrorKind::Io,
                    Some(address),
                    format!(
                        "could not connect to {address}: a path above 107 bytes takes /proc: mount it or \
                         choose a shorter path"
                    ),
                ),
                Err(_) => Self::no_server(address, ": there is no such file"),
            },
            Errno::CONNREFUSED => match rustix::fs::stat(path) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => {
                    Self::no_server(address, ": the socket file is stale")
                }
                Ok(stat) => Self::not_a_socket(address, kind_name(&stat)),
                Err(_) => Self::no_server(address, ""),
            },
            Errno::ACCESS => {
                let message = format!(
                    "permission denied: {}: run as a user who may connect, or change the \
                     server's mode or group (BindOptions::mode, BindOptions::group)",
                    closed_file(path)
                );
                Self::new(ConnectErrorKind::PermissionDenied, Some(address), message)
                    .because(errno.into())
            }
            Errno::PROTOTYPE => {
                let message = format!(
                    "{address}: the socket there is of another type (datagram or seqpacket), and gRPC \
                     needs a stream socket: check the address"
                );
                Self::new(ConnectErrorKind::NotASocket, Some(address), message)
                    .because(errno.into())
            }
            Errno::NAMETOOLONG | Errno::NOTDIR | Errno::LOOP => {
                let cause = io::Error::from(errno);
                let message = format!("{address}: no file can have this path ({cause}): change it");
                Self::new(ConnectErrorKind::InvalidPath, Some(address), message).because(cause)
            }
            errno => Self::io(address, errno),
        }
    }

    fn not_a_socket(address: &Address, found: &str) -> Self {
        let message =
            format!("{address}: there is {found} at this path, not a socket: check the address");
        Self::new(ConnectErrorKind::NotASocket, Some(address), message)
    }
}

impl From<AddressParseError> for ConnectError {
    fn from(error: AddressParseError) -> Self {
        Self::new(ConnectErrorKind::InvalidAddress, None, error.to_string())
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.details.message)
    }
}

/// Writes the message, because `main` prints the error that it returns in this form. A status prints
/// its source in this form, too, after the message.
impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.in_status {
            true => fmt::Debug::fmt(&self.details.kind, f),
            false => fmt::Display::fmt(self, f),
        }
    }
}

/// The message has the cause, so the source is what is behind the cause.
impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.io_error()?.source()
    }
}

/// An address and a space, or nothing if there is no address.
struct At<'a>(Option<&'a Address>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| write!(f, "at {address} "))
    }
}

/// Says how to wait longer than the connect timeout, or than the deadline of a call (`None`).
fn more_time(timeout: Option<Duration>) -> &'static str {
    match timeout {
        Some(_) => "raise the channel's connect_timeout",
        None => "give the call more time (the request's set_timeout or the channel's timeout)",
    }
}

/// How long something was waited for, or that it has not come yet.
struct Within(Option<Duration>);

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(timeout) => write!(f, " within {timeout:?}"),
            None => f.write_str(" yet"),
        }
    }
}

/// Returns the file on the way to `path` that does not let this process in, with its mode and
/// owner.
fn closed_file(path: &Path) -> String {
    let mut closed: PathBuf = path.to_owned();
    loop {
        if let Ok(stat) = rustix::fs::stat(&closed) {
            return format!(
                "{} is mode {:04o}, owned by uid {}",
                shown_path(&closed),
                stat.st_mode & 0o7777,
                stat.st_uid
            );
        }
        // A directory above cannot be searched. The nearest one that can be seen is the one to
        // name.
        if !closed.pop() || closed.as_os_str().is_empty() {
            return shown_path(path).to_string();
        }
    }
}
