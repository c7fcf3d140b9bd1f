//! [`Published`]: what a listener has on disk, from the lock to the socket file.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::Gid;
use rustix::net::SocketType;

use super::bind_error::BindError;
use super::file::{CONTROL, FileOptions, SocketFile, sweep};
use super::hand_over::{ControlSocket, Offer};
use super::location::Location;
use super::lock::Lock;
use crate::runtime::asynchronous;

/// The options of a socket file.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) mode: u32,
    pub(super) group: Option<Gid>,
    pub(super) backlog: i32,
    pub(super) allow_shared_directory: bool,
    pub(super) allow_take_over: bool,
    pub(super) republish: bool,
}

#[cfg(test)]
impl Settings {
    /// Returns the settings of tests: the owner's socket, and nothing that has to be asked for.
    pub(super) fn usual() -> Self {
        Self {
            mode: 0o600,
            group: None,
            backlog: 1,
            allow_shared_directory: false,
            allow_take_over: false,
            republish: false,
        }
    }
}

/// A published socket. Dropping it removes the control socket, the socket file and the lock file, and
/// releases the lock.
#[derive(Debug)]
pub(super) struct Published {
    /// The offer to a successor that is not answered yet.
    pub(super) offer: Option<Offer>,
    /// Set if a take-over is permitted.
    pub(super) control: Option<ControlSocket>,
    pub(super) file: SocketFile,
    /// Dropped after the files, so that removing them cannot affect a successor's.
    pub(super) lock: Lock,
    pub(super) location: Arc<Location>,
}

impl Published {
    /// Publishes a new socket under a lock that the caller took. Returns it with the listening
    /// socket.
    pub(super) async fn new(
        location: Arc<Location>,
        lock: Lock,
        settings: &Settings,
    ) -> Result<(Self, OwnedFd), BindError> {
        let (control, file, socket) = files(&location, settings, false).await?;
        lock.sign();
        Ok((Self { offer: None, control, file, lock, location }, socket))
    }

    /// Replaces files that are gone, and the lock if there is a new one. A successor that was
    /// offered the old ones cannot get them any more.
    pub(super) fn renew(
        &mut self,
        location: Arc<Location>,
        control: Option<ControlSocket>,
        file: SocketFile,
        lock: Option<Lock>,
    ) {
        self.location = location;
        self.file = file;
        if control.is_some() {
            self.control = control;
        }
        if let Some(lock) = lock {
            self.lock = lock;
        }
        self.lock.sign();
    }

    /// Leaves files and lock as they are, because they belong to a successor.
    pub(super) fn leave(mut self) {
        self.file.disarm();
        if let Some(control) = &mut self.control {
            control.file.disarm();
        }
        self.lock.take_file();
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // The process id goes before the file: a process that finds the id but no file reports that
        // the file was deleted.
        let _ = self.lock.clear();
    }
}

/// Publishes a new socket at the location, after a control socket if a take-over is permitted and
/// there is none yet. The caller holds the lock.
pub(super) async fn files(
    location: &Arc<Location>,
    settings: &Settings,
    has_control: bool,
) -> Result<(Option<ControlSocket>, SocketFile, OwnedFd), BindError> {
    // A process that sees the socket must also see the control socket.
    let control = if has_control { None } else { control(location, settings).await? };
    let (file, socket) = socket_file(location, settings).await?;
    Ok((control, file, socket))
}

async fn socket_file(
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

async fn control(
    location: &Arc<Location>,
    settings: &Settings,
) -> Result<Option<ControlSocket>, BindError> {
    if !settings.allow_take_over {
        return Ok(None);
    }
    let options = FileOptions {
        kind: SocketType::SEQPACKET,
        mode: 0o600,
        group: None,
        backlog: ControlSocket::BACKLOG,
    };
    let name = location.beside(CONTROL);
    let (file, socket) = SocketFile::publish(location, &name, options).await?;
    let socket = asynchronous(socket).map_err(|error| {
        BindError::io(&location.address, "register the control socket with the runtime", error)
    })?;
    Ok(Some(ControlSocket { file, socket: Arc::new(socket) }))
}
