//! Listening sockets that another process bound: a parent process, or systemd's socket activation.
//! Their files are not ours and are never removed.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;

use rustix::net::SocketType;

use super::accept::ListeningSocket;
use super::listener::Listener;
use super::sys;
use super::unix::is_listener;
use crate::address::Address;

/// The queue of connections that wait to be accepted. The kernel limits it (listen(2),
/// `net.core.somaxconn`).
const BACKLOG: i32 = i32::MAX;

impl Listener {
    /// Takes a socket that is bound and listens already: a `std::os::unix::net::UnixListener`, a
    /// `std::net::TcpListener`, or an `OwnedFd` of either kind.
    ///
    /// It calls listen(2) again, because the peers of a Unix socket see the process that did so
    /// last. Its address is the one that it was bound to. A socket's file stays when the listener
    /// is dropped. The process that bound the socket has decided who can reach it, so TCP beyond
    /// loopback is accepted, too.
    ///
    /// # Errors
    ///
    /// [`InheritErrorKind::NotAListener`] if the socket does not listen, [`InheritErrorKind::Io`]
    /// if a system call fails.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO enabled.
    pub fn from_std(socket: impl Into<OwnedFd>) -> Result<Self, InheritError> {
        inherit("the socket given", socket.into())
    }

    /// Takes the sockets that systemd passed to this process (sd_listen_fds(3)), each with its name
    /// (`FileDescriptorName=`, or `unknown`). The list is empty if no socket was passed. See
    /// [`from_std`](Self::from_std) for what becomes of them. The systemd unit decides who can
    /// connect: its default, `SocketMode=0666`, lets everybody in.
    ///
    /// Only the first call in a process gets them. Call it early, before other code of the process
    /// opens descriptors, which could have the same numbers if no socket was passed. A descriptor
    /// that is close-on-exec was not passed and is refused. This is so, too, for sockets that other
    /// code, such as sd_listen_fds(3) itself, has taken before: give those to `from_std`.
    ///
    /// # Errors
    ///
    /// [`InheritErrorKind::Environment`] if `LISTEN_PID`, `LISTEN_FDS` or `LISTEN_FDNAMES` are not
    /// valid or name a descriptor that was not passed, [`InheritErrorKind::Taken`] on each later
    /// call, even if the first one failed, and the errors of `from_std`.
    ///
    /// # Panics
    ///
    /// As `from_std`.
    pub fn from_systemd() -> Result<Vec<(String, Self)>, InheritError> {
        let passed = sys::passed_descriptors()
            .map_err(|source| InheritError::new(InheritProblem::Environment { source }))?
            .ok_or_else(|| InheritError::new(InheritProblem::Taken))?;
        let named = passed.into_iter().map(|(name, socket)| {
            let what = format!("the socket {name:?} of LISTEN_FDS");
            inherit(&what, socket).map(|listener| (name, listener))
        });
        named.collect()
    }
}

fn inherit(what: &str, socket: OwnedFd) -> Result<Listener, InheritError> {
    let (socket, address) = with_address(socket);
    let what = || Inherited { what: what.to_owned(), address: address.clone() };
    let failed = |step| {
        let socket = what();
        move |source: io::Error| InheritError::new(InheritProblem::Io { socket, step, source })
    };
    let none = || InheritError::new(InheritProblem::NotAListener { socket: what() });
    if !is_listener(&socket, SocketType::STREAM) {
        return Err(none());
    }
    let bound_at = address.clone().ok_or_else(none)?;
    rustix::net::listen(&socket, BACKLOG).map_err(|e| failed("listen on")(e.into()))?;
    rustix::io::ioctl_fionbio(&socket, true).map_err(|e| failed("set up")(e.into()))?;
    let is_unix = bound_at.is_unix();
    if is_unix {
        // Clients that came before may have sent descriptors. Each connection checks that itself.
        let _ = sys::pass_descriptors(&socket, false);
    }
    let socket = ListeningSocket::new(socket, is_unix).map_err(failed("register"))?;
    Ok(Listener::new(bound_at, socket).inherited())
}

/// Returns a socket with the address that it is bound to, if that is one of ours. std reads it,
/// because rustix (1.1.6) fails for a path of 107 bytes and panics for one of 108.
fn with_address(socket: OwnedFd) -> (OwnedFd, Option<Address>) {
    // std says of a socket of another kind only that its address is of another kind.
    let socket = UnixListener::from(socket);
    let unix = socket.local_addr().ok().and_then(|name| unix_address(&name));
    let socket = TcpListener::from(OwnedFd::from(socket));
    let address = unix.or_else(|| socket.local_addr().ok().map(Into::into));
    (socket.into(), address)
}

fn unix_address(name: &SocketAddr) -> Option<Address> {
    match name.as_abstract_name() {
        Some(name) => Address::unix_abstract(name).ok(),
        None => Address::unix(name.as_pathname()?).ok(),
    }
}

/// Why a socket could not be inherited. `Debug` prints the message as `Display` does.
#[derive(Clone)]
pub struct InheritError(Arc<InheritProblem>);

/// The kind of an [`InheritError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InheritErrorKind {
    /// It is not a Unix or TCP stream socket that listens.
    NotAListener,
    /// `LISTEN_PID`, `LISTEN_FDS` or `LISTEN_FDNAMES` are not valid, or a descriptor that they name
    /// is not open or was not passed to this process.
    Environment,
    /// An earlier call has taken the sockets, or has failed.
    Taken,
    /// A system call failed: see [`InheritError::io_error`].
    Io,
}

#[derive(Debug, thiserror::Error)]
enum InheritProblem {
    #[error(
        "{socket} is not a listening Unix or TCP stream socket: bind it and listen on it first \
         (systemd: ListenStream=, Accept=no)"
    )]
    NotAListener { socket: Inherited },
    #[error(
        "the sockets of LISTEN_FDS cannot be taken: {source}: unset it, or have systemd set it"
    )]
    Environment { source: io::Error },
    #[error("the sockets of LISTEN_FDS are taken already: keep what the first call returned")]
    Taken,
    #[error("could not {step} {socket}: {source}")]
    Io { socket: Inherited, step: &'static str, source: io::Error },
}

/// A socket that was to be inherited.
#[derive(Debug)]
struct Inherited {
    what: String,
    /// `None` if it is not bound, or to none of our addresses.
    address: Option<Address>,
}

impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "{} ({address})", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl InheritError {
    fn new(problem: InheritProblem) -> Self {
        Self(Arc::new(problem))
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> InheritErrorKind {
        match *self.0 {
            InheritProblem::NotAListener { .. } => InheritErrorKind::NotAListener,
            InheritProblem::Environment { .. } => InheritErrorKind::Environment,
            InheritProblem::Taken => InheritErrorKind::Taken,
            InheritProblem::Io { .. } => InheritErrorKind::Io,
        }
    }

    /// Returns the address that the socket is bound to. It is `None` if there is no such socket, or
    /// it has no address of the kinds that an [`Address`] can be.
    pub fn address(&self) -> Option<&Address> {
        match &*self.0 {
            InheritProblem::NotAListener { socket } | InheritProblem::Io { socket, .. } => {
                socket.address.as_ref()
            }
            InheritProblem::Environment { .. } | InheritProblem::Taken => None,
        }
    }

    /// Returns the system's error if one is the cause. The message includes its text.
    pub fn io_error(&self) -> Option<&io::Error> {
        match &*self.0 {
            InheritProblem::Environment { source } | InheritProblem::Io { source, .. } => {
                Some(source)
            }
            InheritProblem::NotAListener { .. } | InheritProblem::Taken => None,
        }
    }
}

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for InheritError {
    /// Returns the source of [`io_error`](InheritError::io_error), which the message includes
    /// already.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.io_error()?.source()
    }
}
