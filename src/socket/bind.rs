//! [`BindOptions`]: how a listening socket is made. `file` has the rules of the socket file.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::fs::Gid;
use rustix::net::SocketAddrUnix;
use tokio::net::TcpSocket;
use tokio::time::sleep;

use super::accept::ListeningSocket;
use super::adopt::Adoption;
use super::bind_error::{BindError, BindErrorKind, BindProblem};
use super::connect::keep_failure;
use super::file::CONTROL;
use super::hand_over::{self, TakeOver};
use super::listener::Listener;
use super::location::{Location, place};
use super::lock::Lock;
use super::published::{Published, Settings};
use super::together::{Part, Together};
use super::unix::unix_socket;
use crate::address::{Address, AddressParseError, Kind};

/// The queue of connections that wait to be accepted. The kernel limits it to `net.core.somaxconn`
/// (listen(2)).
const BACKLOG: u32 = 4096;

/// How often a take-over is tried if the server ends meanwhile, or no process answers.
const TAKE_OVER_ATTEMPTS: u32 = 5;

/// How long a server that does not answer may take to end, or to begin to answer, before the next
/// attempt. A server removes its control socket before it gives up the lock.
const UNANSWERED: Duration = Duration::from_millis(20);

/// How a [`Listener`] is bound. The defaults are the safe ones: a Unix socket that only its owner
/// can connect to, in a directory that nobody else can write to, and TCP on loopback only.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use samehost::BindOptions;
///
/// let options = BindOptions::new().mode(0o660).group("app");
/// let listener = options.bind("unix:/run/app/app.sock").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct BindOptions {
    mode: u32,
    group: Option<Group>,
    backlog: i32,
    allow_shared_directory: bool,
    allow_remote: bool,
    republish: bool,
    take_over: bool,
    allow_take_over: bool,
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
            republish: false,
            take_over: false,
            allow_take_over: false,
        }
    }
}

impl BindOptions {
    /// Returns the defaults: mode 0600, a backlog of 4096, no group, and no unsafe option.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the permission bits of a Unix socket's file. Connecting needs write permission
    /// (unix(7)). The file never has a wider mode, and the process's umask is neither used nor
    /// changed. Default: 0600. It has no effect on TCP and abstract sockets.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the group of a Unix socket's file. The process must be a member of it or have the
    /// capability CAP_CHOWN, as root has it in most cases (chown(2)). Default: the group that the file
    /// system gives it, in most cases the process's own. It has no effect on TCP and abstract sockets.
    #[must_use]
    pub fn group(mut self, group: impl Into<Group>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Sets how many connections may wait to be accepted. The kernel limits it to
    /// `net.core.somaxconn`. Default: 4096.
    #[must_use]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = i32::try_from(connections).unwrap_or(i32::MAX);
        self
    }

    /// Allows a Unix socket in a directory that others can write to, or that another user owns. A
    /// process that can write there can take the name and pose as the server. Kubernetes'
    /// `emptyDir` is such a directory. It is not needed for a sticky directory such as `/tmp`, nor
    /// for one that only the socket's own group can write to. The check is of the directory's owner
    /// and mode, not of its parents or its ACLs. Default: false.
    #[must_use]
    pub fn allow_shared_directory(mut self, allow: bool) -> Self {
        self.allow_shared_directory = allow;
        self
    }

    /// Allows TCP on an address other than loopback. Everything is sent in plain text, and a TCP
    /// peer has no identity. Default: false.
    #[must_use]
    pub fn allow_remote(mut self, allow: bool) -> Self {
        self.allow_remote = allow;
        self
    }

    /// Publishes the socket again if its file is deleted or moved away while it is served, for
    /// example by a cleaner of `/tmp` or a restart of the kubelet, or if its directory is moved and
    /// there is a new one at its path. It is a new socket at the same address with the same mode and
    /// group. Clients that waited in the old one's queue are served first, and so are those that reach
    /// it by another name, such as a hard link or a bind mount, until there is a next one or a
    /// successor takes over: no older one is served. Without this the listener logs once (`tracing`,
    /// WARN) that no client can connect any more. The kernel reports the removal (inotify(7)); if it
    /// cannot, the file is checked every 5 s. Moves of directories further up are not noticed. A relative
    /// path stays that of the working directory in which it was bound. Default: false. It has no effect
    /// on TCP and abstract sockets.
    #[must_use]
    pub fn republish(mut self, republish: bool) -> Self {
        self.republish = republish;
        self
    }

    /// Takes the socket over if the address is being served, instead of failing. The server there
    /// hands over its listening socket, accepts no more connections and drains. Neither the file
    /// nor the queue of connections changes, and clients notice nothing. That server must permit it
    /// ([`allow_take_over`](Self::allow_take_over)) and run as this process's user. If no process
    /// serves the address, it is bound.
    ///
    /// Mode, group, policies and limits are the successor's: the file gets the mode asked for here.
    /// Call it when the process is ready to serve, because the other server has stopped accepting
    /// when it returns. With several addresses use [`bind_all`](Self::bind_all). Default: false. It has no effect
    /// on TCP and abstract sockets.
    #[must_use]
    pub fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// Permits a successor to take over the socket: a process of this process's own user, or of
    /// root, that can write to the directory. It connects to a control socket beside the socket
    /// file, `.NAME.control`, of mode 0600. Afterwards [`Listener::accept`] fails, and
    /// [`Server::serve`](crate::Server::serve) drains and returns. Leave it off where several
    /// users' processes run under one user id. Default: false. It has no effect on TCP and abstract
    /// sockets.
    #[must_use]
    pub fn allow_take_over(mut self, allow: bool) -> Self {
        self.allow_take_over = allow;
        self
    }

    /// Binds `address` and listens on it.
    ///
    /// If a killed server left a Unix socket, it is replaced. A socket that is served is never
    /// replaced. When this returns, the file has its final mode and group, and clients can connect.
    /// A lock file, `.NAME.lock`, stands beside the socket file and is removed with it. (In its
    /// name, a hash replaces a name of over 64 bytes.) If a host name has several addresses, the
    /// first that works is bound.
    ///
    /// # Errors
    ///
    /// A [`BindError`]. Then nothing is left behind.
    ///
    /// # Cancel safety
    ///
    /// If it is cancelled, nothing is left behind.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO and time enabled.
    pub async fn bind(
        &self,
        address: impl TryInto<Address, Error: Into<AddressParseError>>,
    ) -> Result<Listener, BindError> {
        let address = address.try_into().map_err(|error| BindError::invalid(&error.into()))?;
        self.bind_to(&address, &mut Together::new(1).part(0)).await
    }

    /// Binds several addresses, all or none: if one cannot be bound, the others are not, and no server
    /// has been taken over. The listeners are in the order of the addresses. If two successors come at
    /// the same time, one of them gets all that both want.
    ///
    /// # Errors
    ///
    /// The [`BindError`] of the first that failed. Then nothing is left behind, as with
    /// [`bind`](Self::bind). There is one exception: if a server that was ready to hand over ends
    /// otherwise at that very moment, and its address cannot be bound, others may have been taken over.
    ///
    /// # Cancel safety
    ///
    /// If it is cancelled, nothing is left behind. Of several take-overs, some may have happened.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO and time enabled.
    pub async fn bind_all<A>(
        &self,
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Vec<Listener>, BindError>
    where
        A: TryInto<Address, Error: Into<AddressParseError>>,
    {
        let addresses = addresses
            .into_iter()
            .map(|address| address.try_into().map_err(|error| BindError::invalid(&error.into())));
        let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        let together = Together::new(addresses.len());
        let positions = positions(&addresses);
        let bindings = addresses.iter().zip(positions).map(async |(address, position)| {
            let mut part = together.part(position);
            part.those_before().await;
            let listener = self.bind_to(address, &mut part).await?;
            part.ready().await;
            Ok(listener)
        });
        all_or_error(bindings.map(Box::pin).collect()).await
    }

    async fn bind_to(&self, address: &Address, part: &mut Part<'_>) -> Result<Listener, BindError> {
        match address.kind() {
            Kind::Unix(path) => self.bind_file(address, path, part).await,
            Kind::UnixAbstract(name) => {
                let socket = self.bind_abstract(address, name)?;
                Ok(Listener::new(address.clone(), register(address, socket, true)?))
            }
            Kind::Tcp(ip) => self.bind_tcp(address, &[*ip]).await,
            Kind::Host(host, port) => {
                let found = tokio::net::lookup_host((host.as_str(), *port))
                    .await
                    .map_err(|source| BindError::new(address, BindProblem::Resolve { source }))?;
                self.bind_tcp(address, &found.collect::<Vec<_>>()).await
            }
        }
    }

    async fn bind_file(
        &self,
        address: &Address,
        path: &Path,
        part: &mut Part<'_>,
    ) -> Result<Listener, BindError> {
        let settings = self.settings(address)?;
        let location = Arc::new(Location::open(address, path)?);
        if !settings.allow_shared_directory {
            location.check_directory(settings.group)?;
        }
        let mut ended = None;
        for attempt in 1..=TAKE_OVER_ATTEMPTS {
            let held = match Lock::acquire(&location)? {
                Ok(lock) => {
                    let published = Published::new(Arc::clone(&location), lock, &settings).await;
                    let (published, socket) =
                        published.map_err(|error| self.not_of_lock(&location, error))?;
                    let socket = register(address, socket, true)?;
                    return Ok(Listener::published(address.clone(), socket, published, settings));
                }
                Err(held) if self.take_over => held,
                Err(held) => return Err(held.refusal(&location)),
            };
            let prepare = |parts| Adoption::of_offer(&location, &settings, parts);
            let asked = hand_over::ask(
                &location,
                held.file().as_fd(),
                ended,
                prepare,
                part.ready(),
                Adoption::is_there,
                Adoption::take,
            );
            match asked.await {
                Ok(TakeOver::Taken((socket, published))) => {
                    return Ok(Listener::published(address.clone(), socket, published, settings));
                }
                Ok(TakeOver::Ended(pid)) => ended = ended.or(Some(pid)),
                Ok(TakeOver::Unanswered) => {
                    if let Some(error) = held.without_file(&location) {
                        return Err(error);
                    }
                    if attempt == TAKE_OVER_ATTEMPTS {
                        let control = location.path(&location.beside(CONTROL));
                        return Err(location.refuse(BindProblem::NoTakeOver { control }));
                    }
                    sleep(UNANSWERED).await;
                }
                // What it offers is refused, too, if its socket file is gone.
                Err(error) if error.kind() == BindErrorKind::TakeOver => {
                    return Err(held.without_file(&location).unwrap_or(error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(BindError::new(address, BindProblem::AlreadyServed))
    }

    /// Returns the error of a process that has the lock. If it was to take over a server, that the lock was
    /// free is the reason why it cannot.
    fn not_of_lock(&self, location: &Location, error: BindError) -> BindError {
        if self.take_over && error.is_already_served() {
            let lock = location.path(&location.beside("lock"));
            return location.refuse(BindProblem::NotOfLock { lock });
        }
        error
    }

    fn settings(&self, address: &Address) -> Result<Settings, BindError> {
        let group = self.group.as_ref().map(|group| group_id(address, group)).transpose()?;
        if self.mode & !0o777 != 0 {
            return Err(BindError::new(address, BindProblem::InvalidMode { mode: self.mode }));
        }
        Ok(Settings {
            mode: self.mode,
            group,
            backlog: self.backlog,
            allow_shared_directory: self.allow_shared_directory,
            allow_take_over: self.allow_take_over,
            republish: self.republish,
        })
    }

    fn bind_abstract(&self, address: &Address, name: &[u8]) -> Result<OwnedFd, BindError> {
        let failed = |step| move |errno: rustix::io::Errno| BindError::io(address, step, errno);
        let name = SocketAddrUnix::new_abstract_name(name).map_err(failed("name the socket"))?;
        let socket = unix_socket().map_err(failed("create the socket"))?;
        rustix::net::bind(&socket, &name).map_err(|errno| match errno {
            rustix::io::Errno::ADDRINUSE => BindError::new(address, BindProblem::AlreadyServed),
            errno => failed("bind the socket")(errno),
        })?;
        rustix::net::listen(&socket, self.backlog).map_err(failed("listen"))?;
        Ok(socket)
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
            return Err(BindError::new(address, BindProblem::NotLoopback { resolved: *remote }));
        }
        let mut failure = None;
        let bound = candidates.iter().find_map(|ip| match self.listen_tcp(*ip) {
            Ok(bound) => Some(bound),
            Err(error) => {
                keep_failure(&mut failure, error);
                None
            }
        });
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let (socket, bound) = bound.ok_or_else(|| match failure.unwrap_or_else(none) {
            source if source.kind() == io::ErrorKind::AddrInUse => {
                BindError::new(address, BindProblem::PortInUse)
            }
            source => BindError::new(address, BindProblem::Port { source }),
        })?;
        Ok(Listener::new(Address::from(bound), register(address, socket, false)?))
    }

    /// Returns the socket and its address, which says what port 0 became.
    fn listen_tcp(&self, ip: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
        let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // After a restart it need not wait for the TIME_WAIT of the last connections (socket(7)).
        socket.set_reuseaddr(true)?;
        socket.bind(ip)?;
        let listener = socket.listen(self.backlog.cast_unsigned())?;
        let bound = listener.local_addr()?;
        Ok((listener.into_std()?.into(), bound))
    }
}

impl Listener {
    /// Binds `address` with the defaults of [`BindOptions`].
    ///
    /// # Errors
    ///
    /// See [`BindOptions::bind`], which also describes cancellation and panics.
    pub async fn bind(
        address: impl TryInto<Address, Error: Into<AddressParseError>>,
    ) -> Result<Self, BindError> {
        BindOptions::new().bind(address).await
    }
}

/// Returns the position of each address in the order in which they are bound. Those without a file come
/// first, and the others in the order of their directories' inodes and their names: in the same one for
/// each process, whatever the order and the paths that it was given.
fn positions(addresses: &[Address]) -> Vec<usize> {
    let places: Vec<_> = addresses.iter().map(|address| address.as_path().map(place)).collect();
    let mut order: Vec<usize> = (0..addresses.len()).collect();
    order.sort_by_key(|&index| &places[index]);
    let mut positions = vec![0; addresses.len()];
    for (position, index) in order.into_iter().enumerate() {
        positions[index] = position;
    }
    positions
}

/// Completes when all futures have, or one has failed.
async fn all_or_error<T, E>(
    mut futures: Vec<Pin<Box<impl Future<Output = Result<T, E>>>>>,
) -> Result<Vec<T>, E> {
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(result) = future.as_mut().poll(cx)
            {
                *output = Some(result?);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await?;
    Ok(outputs.into_iter().flatten().collect())
}

fn register(
    address: &Address,
    socket: OwnedFd,
    is_unix: bool,
) -> Result<ListeningSocket, BindError> {
    ListeningSocket::new(socket, is_unix)
        .map_err(|error| BindError::io(address, "register the socket with the runtime", error))
}

fn group_id(address: &Address, group: &Group) -> Result<Gid, BindError> {
    let none = |name: String| BindError::new(address, BindProblem::NoSuchGroup { name });
    let id = match group {
        Group::Id(id) => *id,
        Group::Name(name) => match nix::unistd::Group::from_name(name) {
            Ok(Some(group)) => group.gid.as_raw(),
            Ok(None) => return Err(none(name.clone())),
            Err(errno) => {
                let source = io::Error::from_raw_os_error(errno as i32);
                return Err(BindError::io(address, "look up the group", source));
            }
        },
    };
    // chown(2) takes this id to mean "leave the group as it is".
    if id == u32::MAX {
        return Err(none(id.to_string()));
    }
    Ok(Gid::from_raw(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As of `localhost` where IPv6 is switched off.
    #[tokio::test]
    async fn a_port_in_use_is_told_though_another_address_of_the_name_is_not_there() {
        let taken = Listener::bind("127.0.0.1:0").await.unwrap();
        let Kind::Tcp(taken) = *taken.local_addr().kind() else { unreachable!() };
        // No host has this address (RFC 5737).
        let absent = SocketAddr::from(([192, 0, 2, 1], taken.port()));
        let options = BindOptions::new().allow_remote(true);
        let address = "localhost:1".parse().unwrap();
        let failure = options.bind_tcp(&address, &[taken, absent]).await.unwrap_err();
        assert_eq!(failure.kind(), BindErrorKind::PortInUse, "{failure}");
    }
}
