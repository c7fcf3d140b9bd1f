//! [`Published`]: what a listener has on disk, from the lock to the socket file.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::Gid;
use rustix::net::SocketType;

use super::bind_error::BindError;
use super::file::{FileOptions, SocketFile, sweep};
use super::location::Location;
use super::lock::Lock;

/// How a socket file is made.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) mode: u32,
    pub(super) group: Option<Gid>,
    pub(super) backlog: i32,
    pub(super) allow_shared_directory: bool,
    pub(super) republish: bool,
}

/// A published socket. Dropping it removes the socket file, then the lock file, and releases the
/// lock.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) location: Arc<Location>,
    /// Dropped before the lock, so that the removal races with no successor.
    pub(super) file: SocketFile,
    pub(super) lock: Lock,
}

impl Published {
    /// Publishes a new socket under a lock that was taken. Returns it with the listening socket.
    pub(super) async fn new(
        location: Arc<Location>,
        lock: Lock,
        settings: &Settings,
    ) -> Result<(Self, OwnedFd), BindError> {
        let (file, socket) = Self::socket_file(&location, settings).await?;
        lock.sign();
        Ok((Self { location, file, lock }, socket))
    }

    /// Publishes a new socket at the location, for which the lock is held.
    pub(super) async fn socket_file(
        location: &Arc<Location>,
        settings: &Settings,
    ) -> Result<(SocketFile, OwnedFd), BindError> {
        sweep(location)?;
        let options = FileOptions {
            kind: SocketType::STREAM,
            mode: settings.mode,
            group: settings.group,
            backlog: settings.backlog,
        };
        SocketFile::publish(location, &location.name, options).await
    }

    /// Takes a new file in place of one that is gone, and a new lock where there is one.
    pub(super) fn renew(&mut self, location: Arc<Location>, file: SocketFile, lock: Option<Lock>) {
        self.location = location;
        self.file = file;
        if let Some(lock) = lock {
            self.lock = lock;
        }
        self.lock.sign();
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Before the file goes: who finds the process id and no file is told that it was deleted.
        let _ = self.lock.clear();
    }
}
