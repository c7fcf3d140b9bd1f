//! [`Adoption`]: a published socket that another process made, and the checks before this process
//! serves it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, FlockOperation, Gid, OFlags, Stat, fcntl_getfl};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::geteuid;
use tokio::io::unix::AsyncFd;

use super::accept::ListeningSocket;
use super::bind_error::{BindError, BindProblem};
use super::file::{CONTROL, FileOptions, SocketFile, is_named, set_group, set_mode, try_options};
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
    /// would be too late to find that out. The kernel decides it by capabilities and user
    /// namespaces, so it is tried: on a new file, since this one is still the other server's.
    fn check_ownership(&self) -> Result<(), BindError> {
        let Self { location, settings, stat, inode, .. } = self;
        let group = self.new_group();
        if !self.has_new_mode() && group.is_none() {
            return Ok(());
        }
        let backlog = settings.backlog;
        let kind = SocketType::STREAM;
        try_options(location, FileOptions { kind, mode: settings.mode, group, backlog })?;
        if stat.st_uid == geteuid().as_raw() {
            return Ok(());
        }
        // Another user's file takes more than a new one. What it has already does not change it.
        if self.has_new_mode() {
            let mode = stat.st_mode & 0o7777;
            let owner = stat.st_uid;
            set_mode(inode.as_fd(), mode)
                .map_err(|_| location.refuse(BindProblem::ModeRefused { mode, owner }))?;
        }
        if let Some(group) = group {
            let present = Gid::from_raw(stat.st_gid);
            set_group(inode.as_fd(), present).map_err(|_| {
                location.refuse(BindProblem::GroupRefused { group: group.as_raw() })
            })?;
        }
        Ok(())
    }

    fn has_new_mode(&self) -> bool {
        self.settings.mode != self.stat.st_mode & 0o7777
    }

    /// Returns the group that the file is to get if it has another one.
    fn new_group(&self) -> Option<Gid> {
        self.settings.group.filter(|group| group.as_raw() != self.stat.st_gid)
    }

    /// Returns whether the socket and the lock are still where they were.
    pub(super) fn is_there(&self) -> bool {
        let lock = FlockOperation::NonBlockingLockExclusive;
        is_named(&self.location, &self.location.name, self.inode.as_fd()) == Ok(true)
            && is_lock_of(&self.location, self.lock.as_fd()) == Ok(true)
            && rustix::fs::flock(&self.lock, lock).is_ok()
    }

    /// Makes the socket this process's own, with its mode and group. What fails now is logged, and
    /// the socket is served all the same: no other process serves it any more.
    pub(super) fn take(self) -> (ListeningSocket, Published) {
        // Clients see the process that called listen(2) last (unix(7), SO_PEERCRED).
        if let Err(errno) = rustix::net::listen(&self.socket, self.settings.backlog) {
            self.log("listen on", errno);
        }
        if let Some((socket, _)) = &self.control
            && let Err(errno) = rustix::net::listen(socket, ControlSocket::BACKLOG)
        {
            self.log("listen on the control socket of", errno);
        }
        self.change_ownership();
        let Self { location, socket, lock, inode, control, settings, .. } = self;
        let lock = Lock::of_holder(lock, &location);
        let file = SocketFile::of(&location, &location.name, inode);
        let control = control.map(|(socket, inode)| {
            let name = location.beside(CONTROL);
            let file = SocketFile::of(&location, &name, inode);
            ControlSocket { file, socket: Arc::new(socket) }
        });
        if let Some(control) = &control {
            control.refuse_all();
        }
        lock.sign();
        // If no take-over is permitted, dropping the control socket removes it.
        let control = control.filter(|_| settings.allow_take_over);
        (socket, Published { offer: None, control, file, lock, location })
    }

    /// Gives the file its mode and group.
    fn change_ownership(&self) {
        let mut mode = self.settings.mode;
        if let Some(group) = self.new_group()
            && let Err(errno) = set_group(self.inode.as_fd(), group)
        {
            self.log("set the group of", errno);
            // What the mode permits is meant for the other group.
            mode &= !0o070;
        }
        if mode != self.stat.st_mode & 0o7777
            && let Err(errno) = set_mode(self.inode.as_fd(), mode)
        {
            self.log("set the mode of", errno);
        }
    }

    fn log(&self, step: &'static str, errno: Errno) {
        let error = self.location.error(step, &self.location.name, errno);
        tracing::warn!(%error, "the socket was taken over and is served, but not as it was asked for");
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    use samehost_test_support::{block_on, without_chown};

    use super::*;
    use crate::address::Address;

    /// The check before the commit cannot foresee everything.
    #[test]
    fn a_socket_whose_group_cannot_be_changed_after_the_commit_is_served_and_open_to_no_group() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let location = Location::open(&Address::unix(&path).unwrap(), &path).unwrap();
        let location = Arc::new(location);
        let mut settings = Settings::usual();
        without_chown(|| {
            block_on(async {
                let lock = Lock::acquire(&location).unwrap().unwrap();
                let (mut former, socket) =
                    Published::new(Arc::clone(&location), lock, &settings).await.unwrap();
                let inode = former.file.inode().try_clone().unwrap();
                let lock = former.lock.take_file().unwrap();
                former.leave();
                (settings.mode, settings.group) = (0o660, Some(Gid::from_raw(54_321)));
                let adoption = Adoption::new(&location, &settings, socket, lock, inode).unwrap();
                let (_socket, published) = adoption.take();
                assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
                UnixStream::connect(&path).unwrap();
                drop(published);
                assert!(!path.exists());
            });
        });
    }
}
