//! [`ListenerParts`]: a listener taken apart, to be put together again in another process.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::adopt::Adoption;
use super::bind_error::{BindError, Problem};
use super::listener::Listener;
use super::location::Location;
use super::published::Settings;
use crate::address::{Address, Kind};

/// What a [`Listener`] is made of. Its descriptors may be given to another process, by inheritance or
/// SCM_RIGHTS (unix(7)), which makes a listener of them again ([`Listener::from_parts`]).
///
/// The descriptors are close-on-exec. While they are open anywhere the address stays taken; once all
/// are closed, the socket file is what a killed server leaves: the next server replaces it.
pub struct ListenerParts {
    /// The listening socket.
    pub socket: OwnedFd,
    /// What it listens on.
    pub address: Address,
    /// The lock file, locked (flock(2)). `None` where the listener has no socket file of its own: TCP,
    /// abstract names, and sockets that somebody else has bound.
    pub lock: Option<OwnedFd>,
    /// The socket file's inode (`O_PATH`); `None` where there is no `lock`.
    pub inode: Option<OwnedFd>,
}

impl Listener {
    /// Takes the listener apart. Its socket goes on listening, its file and its lock stay; a control
    /// socket for take-overs is removed.
    ///
    /// # Errors
    ///
    /// `EMFILE`, where this process can have no more descriptors; then the listener ends as if it were
    /// dropped.
    pub fn into_parts(mut self) -> io::Result<ListenerParts> {
        let socket = self.as_fd().try_clone_to_owned()?;
        let address = self.local_addr().clone();
        let (lock, inode) = match self.end() {
            None => (None, None),
            Some(mut published) => {
                let inode = published.file.inode().as_fd().try_clone_to_owned()?;
                published.file.disarm();
                (published.lock.take_file(), Some(inode))
            }
        };
        // Its end must not close the socket to new connections.
        self.keep_open();
        Ok(ListenerParts { socket, address, lock, inode })
    }

    /// Puts a listener together again, as [`into_parts`](Self::into_parts) took it apart. It is told
    /// to listen once more, since the peers of a Unix socket see who did so last. The file keeps its
    /// mode and group, and is removed when the listener is dropped.
    ///
    /// # Errors
    ///
    /// A [`BindError`] where the socket does not listen, or file and lock are no longer those of the
    /// address. Then nothing is changed, and the descriptors are closed.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO enabled.
    pub fn from_parts(parts: ListenerParts) -> Result<Self, BindError> {
        let ListenerParts { socket, address, lock, inode } = parts;
        let (Some(lock), Some(inode), Kind::Unix(path)) = (lock, inode, address.kind()) else {
            return Self::from_std(socket).map(|listener| listener.at(address.clone())).map_err(
                |error| BindError::new(&address, Problem::Parts { text: error.to_string() }),
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
        let (socket, published) = adoption.take()?;
        Ok(Self::published(address, socket, published, settings))
    }
}

impl fmt::Debug for ListenerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerParts").field("address", &self.address).finish_non_exhaustive()
    }
}
