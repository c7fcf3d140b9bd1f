//! Listening sockets that another process bound: a parent's, or those of systemd's socket
//! activation. Their files are not ours and never removed.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType, sockopt};
use tokio::net::{TcpListener, UnixListener};

use super::bind::BACKLOG;
use super::listener::Listener;
use super::sys;
use crate::address::Address;

impl Listener {
    /// Takes a socket that is bound and listens already: a `std::os::unix::net::UnixListener`, a
    /// `std::net::TcpListener`, or an `OwnedFd` of either kind.
    ///
    /// It is told to listen once more, for the peers of a Unix socket see who did so last; its
    /// address is the one that it was bound to. A socket's file stays when the listener is dropped.
    /// Who bound it has decided who can reach it: TCP beyond loopback is taken, too.
    ///
    /// # Errors
    ///
    /// [`InheritError::NotAListener`] where it is none, [`InheritError::Io`] for what the kernel says.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO enabled.
    pub fn from_std(socket: impl Into<OwnedFd>) -> Result<Self, InheritError> {
        inherit("the socket given", socket.into())
    }

    /// Takes the sockets that systemd passed to this process (sd_listen_fds(3)), each with its name
    /// (`FileDescriptorName=`; `unknown` where there is none). None where nothing was passed. See
    /// [`from_std`](Self::from_std) for what becomes of them. Who can connect is the unit's to say:
    /// systemd's own default, `SocketMode=0666`, is everybody.
    ///
    /// Only the first call in a process gets them.
    ///
    /// # Errors
    ///
    /// [`InheritError::Environment`] where `LISTEN_PID`, `LISTEN_FDS` or `LISTEN_FDNAMES` make no
    /// sense, [`InheritError::Taken`] on a second call, and those of `from_std`.
    ///
    /// # Panics
    ///
    /// As `from_std`.
    pub fn from_systemd() -> Result<Vec<(String, Self)>, InheritError> {
        let passed = sys::passed_descriptors()
            .map_err(|source| InheritError::Environment { source })?
            .ok_or(InheritError::Taken)?;
        let named = passed.into_iter().map(|(name, socket)| {
            let what = format!("the socket {name:?} of LISTEN_FDS");
            inherit(&what, socket).map(|listener| (name, listener))
        });
        named.collect()
    }
}

fn inherit(what: &str, socket: OwnedFd) -> Result<Listener, InheritError> {
    let step = |step| move |source| InheritError::Io { what: what.to_owned(), step, source };
    let none = || InheritError::NotAListener { what: what.to_owned() };
    let is_listener = sockopt::socket_acceptconn(&socket).unwrap_or(false)
        && sockopt::socket_type(&socket) == Ok(SocketType::STREAM);
    if !is_listener {
        return Err(none());
    }
    let family =
        sockopt::socket_domain(&socket).map_err(|e| step("ask the family of")(e.into()))?;
    let name = rustix::net::getsockname(&socket);
    let name = name.map_err(|e| step("ask the address of")(e.into()))?;
    rustix::net::listen(&socket, BACKLOG.cast_signed()).map_err(|e| step("listen on")(e.into()))?;
    rustix::io::ioctl_fionbio(&socket, true).map_err(|e| step("set up")(e.into()))?;
    let registered = step("register");
    match family {
        AddressFamily::UNIX => {
            let address = unix_address(name).ok_or_else(none)?;
            // Clients that came before may have sent some; each connection looks for itself.
            let _ = sys::refuse_descriptors(&socket);
            let listener = UnixListener::from_std(socket.into()).map_err(registered)?;
            Ok(Listener::unix(address, listener, None).inherited())
        }
        AddressFamily::INET | AddressFamily::INET6 => {
            let address = SocketAddr::try_from(name).map_err(|_| none())?;
            let listener = TcpListener::from_std(socket.into()).map_err(registered)?;
            Ok(Listener::tcp(address.into(), listener).inherited())
        }
        _ => Err(none()),
    }
}

fn unix_address(name: SocketAddrAny) -> Option<Address> {
    let name = SocketAddrUnix::try_from(name).ok()?;
    if let Some(name) = name.abstract_name() {
        return Address::unix_abstract(name).ok();
    }
    Address::unix(OsStr::from_bytes(name.path()?.to_bytes())).ok()
}

/// Why a socket could not be inherited.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// It is not a Unix or TCP stream socket that listens.
    #[error(
        "{what} is not a listening Unix or TCP stream socket: bind it and listen on it first \
         (systemd: ListenStream=, Accept=no)"
    )]
    NotAListener {
        /// Which socket.
        what: String,
    },
    /// `LISTEN_PID`, `LISTEN_FDS` or `LISTEN_FDNAMES` make no sense, or a descriptor they name is
    /// not open.
    #[error("the sockets of LISTEN_FDS cannot be taken: {source}")]
    Environment {
        /// The cause.
        source: io::Error,
    },
    /// An earlier call has taken the sockets.
    #[error("the sockets of LISTEN_FDS are taken already: keep what the first call returned")]
    Taken,
    /// A system call failed.
    #[error("could not {step} {what}: {source}")]
    Io {
        /// Which socket.
        what: String,
        /// What was being done.
        step: &'static str,
        /// The cause.
        source: io::Error,
    },
}
