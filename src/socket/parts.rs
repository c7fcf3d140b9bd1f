//! [`ListenerParts`]: a listener taken apart, to be put together again in another process.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::adopt::Adoption;
use super::bind_error::{BindError, BindProblem};
use super::listener::Listener;
use super::location::Location;
use super::published::Settings;
use crate::address::{Address, Kind};

/// The parts of a [`Listener`]. Its descriptors may be given to another process, by inheritance or
/// SCM_RIGHTS (unix(7)). That process makes a listener of them again ([`Listener::from_parts`]).
///
/// The descriptors are close-on-exec. The address stays taken while any process has them open. Once
/// all are closed, the socket file is like that of a killed server: the next server replaces it. (A
/// task of the listener has the socket until the runtime runs its tasks the next time.)
pub struct ListenerParts {
    /// The listening socket.
    pub socket: OwnedFd,
    /// The address that it listens on.
    pub address: Address,
    /// The lock file, locked (flock(2)). `None` if the listener has no socket file of its own: TCP,
    /// abstract names, and sockets that another process has bound.
    pub lock: Option<OwnedFd>,
    /// The socket file's inode (`O_PATH`). `None` if there is no `lock`.
    pub inode: Option<OwnedFd>,
}

impl Listener {
    /// Takes the listener apart. Its socket goes on listening, and its file and its lock stay. A
    /// control socket for take-overs is removed.
    ///
    /// # Errors
    ///
    /// `EMFILE` if this process can have no more descriptors. Then the listener ends as if it were
    /// dropped. `NotConnected` if the socket was handed over to a successor.
    pub fn into_parts(mut self) -> io::Result<ListenerParts> {
        // From here on no other socket takes its place.
        let published = self.end();
        let socket = self.current()?.as_fd().try_clone_to_owned()?;
        let address = self.local_addr().clone();
        let (lock, inode) = match published {
            None => (None, None),
            Some(mut published) => {
                let inode = published.file.inode().as_fd().try_clone_to_owned()?;
                published.file.disarm();
                (published.lock.take_file(), Some(inode))
            }
        };
        // The listener's end must not close the socket to new connections.
        self.keep_open();
        Ok(ListenerParts { socket, address, lock, inode })
    }

    /// Makes a listener again from what [`into_parts`](Self::into_parts) returned. It calls
    /// listen(2) again, because the peers of a Unix socket see the process that did so last. The
    /// file keeps its mode and group, and is removed when the listener is dropped.
    ///
    /// # Errors
    ///
    /// A [`BindError`] if the socket does not listen, or if file and lock are no longer those of
    /// the address. Then nothing is changed, and the descriptors are closed.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO enabled.
    pub fn from_parts(parts: ListenerParts) -> Result<Self, BindError> {
        let ListenerParts { socket, address, lock, inode } = parts;
        let (Some(lock), Some(inode), Kind::Unix(path)) = (lock, inode, address.kind()) else {
            return Self::from_std(socket).map(|listener| listener.at(address.clone())).map_err(
                |error| BindError::new(&address, BindProblem::Parts { text: error.to_string() }),
            );
        };
        let location = Arc::new(Location::open(&address, path)?);
        let stat = rustix::fs::fstat(&inode)
            .map_err(|errno| location.error("look at", &location.name, errno))?;
        let settings = Settings {
            mode: stat.st_mode & 0o7777,
            group: None,
            backlog: i32::MAX,
            allow_shared_directory: true,
            allow_take_over: false,
            republish: false,
        };
        let adoption = Adoption::new(&location, &settings, socket, lock, inode)?;
        let (socket, published) = adoption.take();
        Ok(Self::published(address, socket, published, settings))
    }
}

impl fmt::Debug for ListenerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerParts").field("address", &self.address).finish_non_exhaustive()
    }
}
