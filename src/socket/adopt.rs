//! [`Adoption`]: a published socket that another process made, and the checks before this process
//! serves it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, FlockOperation, OFlags, Stat, fcntl_getfl};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{getegid, geteuid, getgroups};
use tokio::io::unix::AsyncFd;

use super::accept::ListeningSocket;
use super::bind_error::{BindError, BindProblem};
use super::file::{CONTROL, SocketFile, is_named, set_group, set_mode};
use super::hand_over::{ControlSocket, Parts};
use super::location::Location;
use super::lock::{Lock, is_lock_of};
use super::published::{Published, Settings};
use super::unix::{file_type, is_listener};
use crate::runtime::asynchronous;

/// A socket that was handed over, checked and registered with the runtime. Dropping it changes
/// nothing: the file and the lock belong to the other process.
pub(super) struct Adoption {
    location: Arc<Location>,
    socket: ListeningSocket,
    lock: OwnedFd,
    inode: Arc<OwnedFd>,
    control: Option<(AsyncFd<OwnedFd>, Arc<OwnedFd>)>,
    settings: Settings,
    /// The attributes of the socket file.
    stat: Stat,
}

impl Adoption {
    /// Checks what a server offers.
    pub(super) fn of_offer(
        location: &Arc<Location>,
        settings: &Settings,
        parts: Parts,
    ) -> Result<Self, BindError> {
        let Parts { socket, lock, inode, control, control_inode } = parts;
        let refuse = |what| Err(location.refuse(BindProblem::Adopt { what }));
        let name = location.beside(CONTROL);
        if !is_unix_listener(&control, SocketType::SEQPACKET) {
            return refuse("its control socket does not listen");
        }
        if !is_inode(&control_inode) || is_named(location, &name, control_inode.as_fd()) != Ok(true)
        {
            return refuse("its control socket is no longer in its place");
        }
        let control = asynchronous(control).map_err(|error| {
            BindError::io(&location.address, "register the control socket", error)
        })?;
        let mut adoption = Self::new(location, settings, socket, lock, inode)?;
        adoption.control = Some((control, Arc::new(control_inode)));
        adoption.check_ownership()?;
        Ok(adoption)
    }

    /// Checks a socket, its lock and its inode. Mode and group stay as they are.
    pub(super) fn new(
        location: &Arc<Location>,
        settings: &Settings,
        socket: OwnedFd,
        lock: OwnedFd,
        inode: OwnedFd,
    ) -> Result<Self, BindError> {
        let refuse = |what| Err(location.refuse(BindProblem::Adopt { what }));
        if !is_unix_listener(&socket, SocketType::STREAM) {
            return refuse("its socket does not listen");
        }
        // flock(2) succeeds at once if this open file description has the lock already.
        if is_lock_of(location, lock.as_fd()) != Ok(true)
            || rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
        {
            return refuse("its lock is not that of this address");
        }
        let stat = rustix::fs::fstat(&inode)
            .map_err(|errno| location.error("look at", &location.name, errno))?;
        if !is_inode(&inode) || is_named(location, &location.name, inode.as_fd()) != Ok(true) {
            return refuse("its socket file is no longer in its place");
        }
        let socket = ListeningSocket::new(socket, true).map_err(|error| {
            BindError::io(&location.address, "register the socket with the runtime", error)
        })?;
        Ok(Self {
            location: Arc::clone(location),
            socket,
            lock,
            inode: Arc::new(inode),
            control: None,
            settings: settings.clone(),
            stat,
        })
    }

    /// Fails if the file cannot get the mode and group that were asked for. After the commit it
    /// would be too late to find that out.
    fn check_ownership(&self) -> Result<(), BindError> {
        let us = geteuid();
        let is_owner = us.is_root() || us.as_raw() == self.stat.st_uid;
        let mode = self.stat.st_mode & 0o7777;
        if mode != self.settings.mode && !is_owner {
            let owner = self.stat.st_uid;
            return Err(self.location.refuse(BindProblem::ModeRefused { mode, owner }));
        }
        if let Some(group) = self.settings.group
            && group.as_raw() != self.stat.st_gid
        {
            let is_member =
                || getegid() == group || getgroups().is_ok_and(|groups| groups.contains(&group));
            if !(us.is_root() || is_owner && is_member()) {
                let group = group.as_raw();
                return Err(self.location.refuse(BindProblem::GroupRefused { group }));
            }
        }
        Ok(())
    }

    /// Returns whether the socket and the lock are still where they were.
    pub(super) fn is_there(&self) -> bool {
        let lock = FlockOperation::NonBlockingLockExclusive;
        is_named(&self.location, &self.location.name, self.inode.as_fd()) == Ok(true)
            && is_lock_of(&self.location, self.lock.as_fd()) == Ok(true)
            && rustix::fs::flock(&self.lock, lock).is_ok()
    }

    /// Makes the socket this process's own, with its mode and group. If that fails, the socket is
    /// removed, as when a server fails while it serves.
    pub(super) fn take(self) -> Result<(ListeningSocket, Published), BindError> {
        let Self { location, socket, lock, inode, control, settings, stat } = self;
        let lock = Lock::of_holder(lock, &location);
        let file = SocketFile::of(&location, &location.name, inode);
        let failed = |step| {
            let location = &location;
            move |errno| location.error(step, &location.name, errno)
        };
        // Clients see the process that called listen(2) last (unix(7), SO_PEERCRED).
        rustix::net::listen(&socket, settings.backlog).map_err(failed("listen on"))?;
        let control = control.map(|(socket, inode)| {
            let name = location.beside(CONTROL);
            let file = SocketFile::of(&location, &name, inode);
            ControlSocket { file, socket: Arc::new(socket) }
        });
        if let Some(control) = &control {
            rustix::net::listen(&control.socket, ControlSocket::BACKLOG)
                .map_err(failed("listen on"))?;
            control.turn_all_away();
        }
        if let Some(group) = settings.group
            && group.as_raw() != stat.st_gid
        {
            set_group(&location, file.inode().as_fd(), group, failed("set the group of"))?;
        }
        if settings.mode != stat.st_mode & 0o7777 {
            set_mode(file.inode().as_fd(), settings.mode).map_err(failed("set the mode of"))?;
        }
        lock.sign();
        // If no take-over is permitted, dropping the control socket removes it.
        let control = control.filter(|_| settings.allow_take_over);
        Ok((socket, Published { offer: None, control, file, lock, location }))
    }
}

/// Returns whether it is a Unix socket of this type that listens.
fn is_unix_listener(socket: &OwnedFd, kind: SocketType) -> bool {
    is_listener(socket, kind) && sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
}

/// Returns whether it refers to a socket's file (`O_PATH`).
fn is_inode(inode: &OwnedFd) -> bool {
    fcntl_getfl(inode).is_ok_and(|flags| flags.contains(OFlags::PATH))
        && rustix::fs::fstat(inode).is_ok_and(|stat| file_type(&stat) == FileType::Socket)
}
