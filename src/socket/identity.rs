//! [`PeerIdentity`]: the process at the other end of a Unix socket. `policy` decides what it may
//! do.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock, OnceLock, Weak};

use nix::sys::socket::{getsockopt, sockopt};
#[cfg(feature = "tonic-transport")]
use tonic::transport::server::{Connected, TcpConnectInfo, UdsConnectInfo};

use super::held::Held;
use super::sys;
use crate::address::Address;
#[cfg(feature = "tonic-transport")]
use crate::address::Kind;

/// The process at the other end of a Unix socket, as the kernel reports it.
///
/// On a server it is the client, at the moment when it connected. A later setuid(2) or exec(2)
/// changes nothing, and it does not matter which process holds the socket now. Each request over a
/// Unix socket has the identity among its extensions. A request over TCP has a [`TcpPeer`] instead,
/// because TCP does not know the process.
///
/// ```
/// use samehost::PeerIdentity;
/// use tonic::{Request, Status};
///
/// fn caller<T>(request: &Request<T>) -> Result<u32, Status> {
///     let peer = request.extensions().get::<PeerIdentity>();
///     let peer = peer.ok_or_else(|| Status::unauthenticated("call over the Unix socket"))?;
///     Ok(peer.uid())
/// }
/// ```
///
/// Clones share the same identity. See unix(7), SO_PEERCRED.
#[derive(Clone)]
pub struct PeerIdentity(Arc<Identity>);

struct Identity {
    uid: u32,
    gid: u32,
    pid: Option<u32>,
    /// Set when they were first asked for.
    groups: OnceLock<Vec<u32>>,
    address: Address,
    socket: Weak<Held>,
}

impl PeerIdentity {
    /// Returns the identity of the peer of a connected socket. The socket is asked for the rest as
    /// long as it is open.
    pub(super) fn of(socket: Weak<Held>, address: &Address) -> io::Result<Self> {
        let stream = socket.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let credentials = getsockopt(&stream, sockopt::PeerCredentials)?;
        // The kernel returns these values if it knows of no peer.
        if credentials.uid() == u32::MAX || credentials.gid() == u32::MAX {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the kernel does not know the peer's identity",
            ));
        }
        Ok(Self(Arc::new(Identity {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid: u32::try_from(credentials.pid()).ok().filter(|pid| *pid > 0),
            groups: OnceLock::new(),
            address: address.clone(),
            socket,
        })))
    }

    /// Returns its effective user id. See [`has_known_user`](Self::has_known_user).
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// Returns its effective group id.
    pub fn gid(&self) -> u32 {
        self.0.gid
    }

    /// Returns its process id, or `None` if it is in a PID namespace that this process cannot see.
    /// If the process has ended, another process may have its number now. Use
    /// [`pidfd`](Self::pidfd) to be certain.
    pub fn pid(&self) -> Option<u32> {
        self.0.pid
    }

    /// Returns its supplementary groups (getgroups(2)), in the kernel's order. The first call on a
    /// connection makes a system call.
    ///
    /// # Errors
    ///
    /// The errors of getsockopt(2), SO_PEERGROUPS. `NotConnected` once the connection has ended.
    pub fn groups(&self) -> io::Result<&[u32]> {
        if let Some(groups) = self.0.groups.get() {
            return Ok(groups);
        }
        let groups = sys::peer_groups(self.socket()?)?;
        Ok(self.0.groups.get_or_init(|| groups))
    }

    /// Returns a new descriptor of the process. It never refers to another process (pidfd_open(2)).
    ///
    /// # Errors
    ///
    /// The errors of getsockopt(2), SO_PEERPIDFD: `ENOPROTOOPT` before Linux 6.5, `EMFILE`, and on
    /// some kernels `ESRCH` or `EINVAL` once the process has ended. `NotConnected` once the
    /// connection has ended.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        Ok(getsockopt(&self.socket()?, sockopt::PeerPidfd)?)
    }

    /// Returns the address that it is connected to: the [`Listener`](crate::Listener)'s.
    pub fn local_addr(&self) -> &Address {
        &self.0.address
    }

    /// Returns whether the user is known in this process's user namespace. All others show as the
    /// same overflow user, by default 65534. Such a user may be anyone, even root of the host
    /// (user_namespaces(7)). The user "nobody" counts as unknown, since it has the same number.
    pub fn has_known_user(&self) -> bool {
        is_known_user(self.0.uid)
    }

    /// Returns the same as tonic's type. It is empty, as in tonic, if the socket cannot be asked.
    #[cfg(feature = "tonic-transport")]
    pub(super) fn uds_connect_info(&self) -> UdsConnectInfo {
        let ask = || {
            // tokio can only ask a socket of its own, so it gets a duplicate.
            let stream = tokio::net::UnixStream::from_std(
                std::os::fd::AsFd::as_fd(&self.socket()?).try_clone_to_owned()?.into(),
            )?;
            io::Result::Ok(stream.connect_info())
        };
        let unknown = |_| UdsConnectInfo { peer_addr: None, peer_cred: None };
        ask().unwrap_or_else(unknown)
    }

    /// Returns an identity for tests.
    #[cfg(test)]
    pub(crate) fn invented(uid: u32, gid: u32, groups: &[u32]) -> Self {
        let mut peer = Self::invented_without_groups(uid, gid);
        if let Some(identity) = Arc::get_mut(&mut peer.0) {
            identity.groups = OnceLock::from(groups.to_vec());
        }
        peer
    }

    #[cfg(test)]
    pub(crate) fn invented_without_groups(uid: u32, gid: u32) -> Self {
        Self(Arc::new(Identity {
            uid,
            gid,
            pid: None,
            groups: OnceLock::new(),
            address: Address::unix("/invented").unwrap(),
            socket: Weak::new(),
        }))
    }

    fn socket(&self) -> io::Result<Arc<Held>> {
        self.0.socket.upgrade().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerIdentity")
            .field("uid", &self.0.uid)
            .field("gid", &self.0.gid)
            .field("pid", &self.0.pid)
            .finish_non_exhaustive()
    }
}

/// The overflow ids, unless `/proc/sys/kernel` has others.
const OVERFLOW: u32 = 65_534;

static OVERFLOW_UID: LazyLock<u32> = LazyLock::new(|| overflow("/proc/sys/kernel/overflowuid"));
static OVERFLOW_GID: LazyLock<u32> = LazyLock::new(|| overflow("/proc/sys/kernel/overflowgid"));

fn overflow(file: &str) -> u32 {
    std::fs::read_to_string(file).ok().and_then(|id| id.trim().parse().ok()).unwrap_or(OVERFLOW)
}

/// Returns whether `uid` is certainly one user, and not the id that stands for all unknown ones.
pub(super) fn is_known_user(uid: u32) -> bool {
    is_known(uid, *OVERFLOW_UID)
}

/// Returns whether `gid` is certainly one group, and not the id that stands for all unknown ones.
pub(crate) fn is_known_group(gid: u32) -> bool {
    is_known(gid, *OVERFLOW_GID)
}

fn is_known(id: u32, overflow: u32) -> bool {
    id != OVERFLOW && id != overflow && id != u32::MAX
}

/// The other end of a TCP connection, as far as TCP knows it. Each request over TCP has it among
/// its extensions. Clones share the same value.
#[derive(Clone, Debug)]
pub struct TcpPeer(Arc<(SocketAddr, Address)>);

impl TcpPeer {
    pub(super) fn new(remote: SocketAddr, local: &Address) -> Self {
        Self(Arc::new((remote, local.clone())))
    }

    /// Returns the address that it connected from.
    pub fn remote_addr(&self) -> SocketAddr {
        self.0.0
    }

    /// Returns the address that it is connected to: the [`Listener`](crate::Listener)'s.
    pub fn local_addr(&self) -> &Address {
        &self.0.1
    }

    /// Returns the same as tonic's type.
    #[cfg(feature = "tonic-transport")]
    pub(super) fn tcp_connect_info(&self) -> TcpConnectInfo {
        let local_addr = match self.local_addr().kind() {
            Kind::Tcp(ip) => Some(*ip),
            _ => None,
        };
        TcpConnectInfo { local_addr, remote_addr: Some(self.remote_addr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::unix::unix_socket;

    #[test]
    fn an_identity_that_cannot_be_read_is_an_error_and_not_an_unknown_peer() {
        let address = Address::unix("/x").unwrap();
        let unconnected = Arc::new(Held::new(unix_socket().unwrap(), false));
        assert!(PeerIdentity::of(Arc::downgrade(&unconnected), &address).is_err());
        assert!(PeerIdentity::of(Weak::new(), &address).is_err());
    }
}
