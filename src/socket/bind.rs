//! [`BindOptions`]: how a listening socket is made, and [`BindError`]: why it was not. The socket
//! file's own rules are in `file`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::file::SocketFile;
use super::listener::Listener;
use super::sys;
use crate::address::{Address, Kind, shown_path};

/// The queue of connections that wait to be accepted; the kernel caps it at
/// `net.core.somaxconn` (listen(2)).
pub(super) const BACKLOG: u32 = 4096;

/// How a [`Listener`] is bound. The defaults are the safe ones: a Unix socket that only its owner
/// can connect to, in a directory that nobody else can write to, and TCP on loopback only.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use samehost::{Address, BindOptions};
///
/// let address: Address = "unix:/run/app/app.sock".parse()?;
/// let listener = BindOptions::new().mode(0o660).group("app").bind(&address).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct BindOptions {
    pub(super) mode: u32,
    pub(super) group: Option<Group>,
    pub(super) backlog: i32,
    pub(super) allow_shared_directory: bool,
    allow_remote: bool,
}

/// A Unix group, by name or by number. A `&str` or `String` is a name, a `u32` a number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Group {
    /// A name, looked up when the socket is bound.
    Name(String),
    /// A group id.
    Id(u32),
}

impl From<&str> for Group {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for Group {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl From<u32> for Group {
    fn from(id: u32) -> Self {
        Self::Id(id)
    }
}

impl Default for BindOptions {
    fn default() -> Self {
        Self {
            mode: 0o600,
            group: None,
            backlog: BACKLOG.cast_signed(),
            allow_shared_directory: false,
            allow_remote: false,
        }
    }
}

impl BindOptions {
    /// The defaults: mode 0600, a backlog of 4096, no group, nothing unsafe allowed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The permission bits of a Unix socket's file; connecting needs write permission (unix(7)).
    /// The file never shows a wider mode, and the process's umask is neither used nor changed.
    /// Default 0600. Of no effect on TCP and abstract sockets.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The group of a Unix socket's file. The process must be root or a member of it (chown(2)).
    /// Default: the one that the file system gives it, in most cases the process's own. Of no effect
    /// on TCP and abstract sockets.
    #[must_use]
    pub fn group(mut self, group: impl Into<Group>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// How many connections may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    /// Default 4096.
    #[must_use]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = i32::try_from(connections).unwrap_or(i32::MAX);
        self
    }

    /// Allows a Unix socket in a directory that others can write to, or that another user owns.
    /// Whoever can write there can take the name and pose as the server. Kubernetes' `emptyDir` is
    /// such a directory. A sticky directory such as `/tmp` needs no allowance, nor does one that the
    /// socket's own group can write to. Only the directory itself is looked at, by owner and mode:
    /// not its parents, and not ACLs. Default false.
    #[must_use]
    pub fn allow_shared_directory(mut self, allow: bool) -> Self {
        self.allow_shared_directory = allow;
        self
    }

    /// Allows TCP on an address other than loopback. Everything is sent in plain text, and a TCP
    /// peer has no identity. Default false.
    #[must_use]
    pub fn allow_remote(mut self, allow: bool) -> Self {
        self.allow_remote = allow;
        self
    }

    /// Binds `address` and listens on it.
    ///
    /// A Unix socket left by a server that was killed is replaced; a live one never is. When it
    /// returns, the file has its final mode and group, and clients can connect. Beside the file
    /// stands a lock file, `.NAME.lock`, which stays after the server is gone. (A name over 64 bytes
    /// is replaced by a hash in it.) Of the addresses of a host name the first that works is bound.
    ///
    /// # Errors
    ///
    /// A [`BindError`]; then nothing is left behind but the lock file.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it leaves nothing behind but the lock file.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO and time enabled.
    pub async fn bind(&self, address: &Address) -> Result<Listener, BindError> {
        match address.kind() {
            Kind::Unix(path) => {
                let (file, socket) = SocketFile::bind(address, path, self).await?;
                let listener = unix_listener(socket).map_err(|e| not_registered(address, e))?;
                Ok(Listener::unix(address.clone(), listener, Some(file)))
            }
            Kind::UnixAbstract(name) => {
                let listener = self.bind_abstract(address, name)?;
                Ok(Listener::unix(address.clone(), listener, None))
            }
            Kind::Tcp(ip) => self.bind_tcp(address, &[*ip]).await,
            Kind::Host(host, port) => {
                let found = tokio::net::lookup_host((host.as_str(), *port))
                    .await
                    .map_err(|source| BindError::Resolve { address: address.clone(), source })?;
                self.bind_tcp(address, &found.collect::<Vec<_>>()).await
            }
        }
    }

    fn bind_abstract(&self, address: &Address, name: &[u8]) -> Result<UnixListener, BindError> {
        let step = |step| {
            move |errno: rustix::io::Errno| BindError::Io {
                address: address.clone(),
                step,
                source: errno.into(),
            }
        };
        let name = SocketAddrUnix::new_abstract_name(name).map_err(step("name the socket"))?;
        let socket = unix_socket().map_err(step("create the socket"))?;
        rustix::net::bind(&socket, &name).map_err(|errno| match errno {
            rustix::io::Errno::ADDRINUSE => BindError::AlreadyServed { address: address.clone() },
            errno => step("bind the socket")(errno),
        })?;
        rustix::net::listen(&socket, self.backlog).map_err(step("listen"))?;
        unix_listener(socket).map_err(|e| not_registered(address, e))
    }

    /// Binds the first of `candidates` that can be bound.
    async fn bind_tcp(
        &self,
        address: &Address,
        candidates: &[SocketAddr],
    ) -> Result<Listener, BindError> {
        if let Some(remote) = candidates.iter().find(|ip| !ip.ip().is_loopback())
            && !self.allow_remote
        {
            return Err(BindError::NotLoopback { address: address.clone(), resolved: *remote });
        }
        let failed = |step| move |source| BindError::Io { address: address.clone(), step, source };
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let listener = candidates.iter().find_map(|ip| match self.listen_tcp(*ip) {
            Ok(listener) => Some(listener),
            Err(error) => {
                failure = error;
                None
            }
        });
        let listener = listener.ok_or_else(|| match failure.kind() {
            io::ErrorKind::AddrInUse => BindError::PortInUse { address: address.clone() },
            _ => failed("bind the socket")(failure),
        })?;
        let bound = listener.local_addr().map_err(failed("read the port"))?;
        Ok(Listener::tcp(Address::from(bound), listener))
    }

    fn listen_tcp(&self, ip: SocketAddr) -> io::Result<TcpListener> {
        let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart need not wait for the last connections' TIME_WAIT (socket(7)).
        socket.set_reuseaddr(true)?;
        socket.bind(ip)?;
        socket.listen(self.backlog.cast_unsigned())
    }
}

/// A new Unix stream socket, non-blocking, not inherited by children, that takes no descriptors
/// where the kernel can refuse them.
pub(super) fn unix_socket() -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    let _ = sys::refuse_descriptors(&socket);
    Ok(socket)
}

fn unix_listener(socket: OwnedFd) -> io::Result<UnixListener> {
    UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))
}

fn not_registered(address: &Address, source: io::Error) -> BindError {
    BindError::Io { address: address.clone(), step: "register the socket with the runtime", source }
}

/// Why an address could not be bound. Every message names the address and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process serves this address.
    #[error("{address} is already being served: stop that server or choose another address")]
    AlreadyServed {
        /// The address to bind.
        address: Address,
    },
    /// Another process has this TCP port.
    #[error("{address}: the port is in use: stop that server or choose another port")]
    PortInUse {
        /// The address to bind.
        address: Address,
    },
    /// Something other than a socket stands at the path. It was not touched.
    #[error("{address}: there is {kind} at this path: move it away or choose another path")]
    NotASocket {
        /// The address to bind.
        address: Address,
        /// What stands there, with its article.
        kind: &'static str,
    },
    /// The path names no file: it ends in `/`, `.` or `..`.
    #[error("{address}: the path must end in a file name, such as app.sock")]
    NoFileName {
        /// The address to bind.
        address: Address,
    },
    /// The socket's directory is not there.
    #[error("{address}: the directory {} does not exist: create it first", shown_path(directory))]
    NoDirectory {
        /// The address to bind.
        address: Address,
        /// The directory.
        directory: PathBuf,
    },
    /// Others can write to the socket's directory, so they could replace the socket.
    #[error(
        "{address}: others can write to the directory {} (mode {mode:04o}): \
         run `chmod {remedy} {}` or allow a shared directory",
        shown_path(directory),
        shown_path(directory)
    )]
    SharedDirectory {
        /// The address to bind.
        address: Address,
        /// The directory.
        directory: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What `chmod` should take away.
        remedy: &'static str,
    },
    /// The socket's directory belongs to another user, who could replace the socket.
    #[error(
        "{address}: the directory {} is owned by uid {owner}, neither this process's user nor \
         root: use a directory of your own or allow a shared directory",
        shown_path(directory)
    )]
    ForeignDirectory {
        /// The address to bind.
        address: Address,
        /// The directory.
        directory: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// What stands in the lock file's place cannot be used as one.
    #[error(
        "{address}: the lock file {} {problem}: remove it if no server of that address is running",
        shown_path(path)
    )]
    LockFile {
        /// The address to bind.
        address: Address,
        /// The lock file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Other files kept appearing at the path while it was being bound.
    #[error("{address}: another program keeps replacing this file: stop it or choose another path")]
    Contended {
        /// The address to bind.
        address: Address,
    },
    /// There is no such group.
    #[error("{address}: there is no group {name:?}: create it or give its number")]
    NoSuchGroup {
        /// The address to bind.
        address: Address,
        /// The name that was looked up.
        name: String,
    },
    /// The file may not be given to this group.
    #[error(
        "{address}: the socket cannot be given to group {group}: run as root or as a member of it"
    )]
    GroupRefused {
        /// The address to bind.
        address: Address,
        /// The group's id.
        group: u32,
    },
    /// The mode has bits other than the permission bits 0777.
    #[error(
        "{address}: mode {mode:o} is no permission mode: give one from 0 to 0777, such as 0660"
    )]
    InvalidMode {
        /// The address to bind.
        address: Address,
        /// The mode that was asked for.
        mode: u32,
    },
    /// The address is reachable from other hosts.
    #[error(
        "{address} is {resolved}, which other hosts may reach, in plain text: \
         bind 127.0.0.1 or allow remote addresses by name"
    )]
    NotLoopback {
        /// The address to bind.
        address: Address,
        /// The address that is not on loopback.
        resolved: SocketAddr,
    },
    /// The host name could not be resolved.
    #[error(
        "{address}: the host name cannot be resolved ({source}): check it or give an IP address"
    )]
    Resolve {
        /// The address to bind.
        address: Address,
        /// The cause.
        source: io::Error,
    },
    /// A step of binding a socket file failed.
    #[error("{address}: could not {step} {}: {}", shown_path(path), advice(source))]
    File {
        /// The address to bind.
        address: Address,
        /// What was being done.
        step: &'static str,
        /// To which path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A step of binding that concerns no file failed.
    #[error("{address}: could not {step}: {}", advice(source))]
    Io {
        /// The address to bind.
        address: Address,
        /// What was being done.
        step: &'static str,
        /// The cause.
        source: io::Error,
    },
}

impl BindError {
    pub(super) fn file(
        address: &Address,
        step: &'static str,
        path: &Path,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::File { address: address.clone(), step, path: path.to_owned(), source: source.into() }
    }
}

/// An IO error and, where there is one, its usual remedy.
fn advice(error: &io::Error) -> impl fmt::Display {
    use io::ErrorKind as K;
    let remedy = match error.kind() {
        K::PermissionDenied => ": use a directory that this process may write to",
        K::ReadOnlyFilesystem => ": choose a path on a file system that can be written to",
        K::StorageFull | K::QuotaExceeded => ": free some space or choose another file system",
        K::NotADirectory => ": part of the path is a file; choose another path",
        K::InvalidFilename => ": choose a shorter path",
        K::AddrNotAvailable => ": this host has no such address; use 127.0.0.1",
        _ => "",
    };
    format!("{error}{remedy}")
}
