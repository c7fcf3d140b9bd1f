//! [`SocketFile`]: the life of a Unix socket's file, from the first check of its name to its
//! removal. This is the only place that creates or removes sockets, and it removes only what it
//! created.
//!
//! Two servers that bind the same path must never both believe they have it, a file that is not
//! ours must never be lost, and no client may meet a socket with a wider mode than the one asked
//! for. Hence the order of [`SocketFile::publish`], for which the caller holds the
//! [`Lock`](super::lock::Lock): look, make the socket under a temporary name, give it its mode,
//! listen, and only then publish it by a rename that cannot overwrite.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use rustix::net::SocketType;

use super::bind_error::{BindError, BindProblem};
use super::location::Location;
use super::unix::{by_descriptor, file_type, kind_name, new_socket, open_inode, probe, same_file};

/// How long a server that refuses connections may take to begin to listen. A server that has bound
/// but does not listen yet refuses connections, as a dead one does.
const STALE_RECHECK: Duration = Duration::from_millis(50);

/// How often the name is checked again if its file changes between the check and the rename.
const PUBLISH_ATTEMPTS: u32 = 10;

/// How the name of the control socket beside the socket file ends.
pub(super) const CONTROL: &str = "control";

/// A published socket file. Dropping it removes the file if it is still this one. The lock must be
/// held then.
#[derive(Debug)]
pub(super) struct SocketFile {
    location: Arc<Location>,
    name: OsString,
    /// The file's inode. It stays open, so that the kernel cannot give its number to another file.
    inode: Arc<OwnedFd>,
    /// Whether this process has to remove the file.
    armed: bool,
}

/// The attributes of a new socket file.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileOptions {
    pub(super) kind: SocketType,
    pub(super) mode: u32,
    pub(super) group: Option<Gid>,
    pub(super) backlog: i32,
}

impl SocketFile {
    /// Binds a socket to this name of the location and listens. Returns the file and the listening
    /// socket.
    pub(super) async fn publish(
        location: &Arc<Location>,
        name: &OsStr,
        options: FileOptions,
    ) -> Result<(Self, OwnedFd), BindError> {
        let mut occupant = look(location, name).await?;
        let (temporary, socket) = bind_temporary(location, options)?;
        for _ in 0..PUBLISH_ATTEMPTS {
            if publish(&temporary, name, &occupant)? {
                let inode = Arc::clone(&temporary.inode);
                drop(temporary);
                return Ok((Self::of(location, name, inode), socket));
            }
            occupant = look(location, name).await?;
        }
        Err(location.refuse(BindProblem::Contended))
    }

    /// Returns a file that this process has published, or that it was given.
    pub(super) fn of(location: &Arc<Location>, name: &OsStr, inode: Arc<OwnedFd>) -> Self {
        Self { location: Arc::clone(location), name: name.to_owned(), inode, armed: true }
    }

    pub(super) fn location(&self) -> &Arc<Location> {
        &self.location
    }

    /// Returns whether the file is still at its place in the directory.
    pub(super) fn is_at(&self, location: &Location) -> bool {
        is_named(location, &self.name, self.inode.as_fd()) == Ok(true)
    }

    /// Makes dropping it leave the file, which now belongs to another process.
    pub(super) fn disarm(&mut self) {
        self.armed = false;
    }

    pub(super) fn inode(&self) -> &Arc<OwnedFd> {
        &self.inode
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let removed = remove(&self.location, &self.name, self.inode.as_fd());
        if let Err(errno) = removed {
            tracing::warn!(name = ?self.name, error = %errno, "the socket file was not removed");
        }
    }
}

/// What has the name.
enum Occupant {
    Nothing,
    /// A socket that no process listens on. It stays open so that its inode number is not reused.
    Stale(OwnedFd),
}

/// Checks what has the name, without following a symbolic link. Only a socket that refuses
/// connections twice is stale. Everything else is an error.
async fn look(location: &Location, name: &OsStr) -> Result<Occupant, BindError> {
    let inode = match open_inode(&location.directory, name) {
        Ok(inode) => inode,
        Err(Errno::NOENT) => return Ok(Occupant::Nothing),
        Err(errno) => return Err(location.error("look at", name, errno)),
    };
    let stat = rustix::fs::fstat(&inode).map_err(|errno| location.error("look at", name, errno))?;
    if file_type(&stat) != FileType::Socket {
        let path = location.path(name);
        return Err(location.refuse(BindProblem::NotASocket { path, kind: kind_name(&stat) }));
    }
    for wait in [Some(STALE_RECHECK), None] {
        match probe(inode.as_fd()) {
            Err(Errno::CONNREFUSED) => {}
            // PROTOTYPE means a live socket of another type, such as a datagram socket.
            Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
                return Err(in_use(location, name));
            }
            Err(errno @ Errno::ACCESS) => {
                return Err(forbidden(location, name, &stat, "connect to", errno));
            }
            Err(errno) => {
                return Err(location.error("check whether a server listens on", name, errno));
            }
        }
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
    }
    Ok(Occupant::Stale(inode))
}

/// Returns the error for a name that has a socket in use. If it is the control socket's, and nothing
/// serves the address itself, only that file is in the way.
fn in_use(location: &Location, name: &OsStr) -> BindError {
    let is_served = || {
        let served =
            open_inode(&location.directory, &location.name).and_then(|inode| probe(inode.as_fd()));
        matches!(served, Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE))
    };
    if name == location.name || is_served() {
        return location.refuse(BindProblem::AlreadyServed);
    }
    location.refuse(BindProblem::ControlInUse { control: location.path(name) })
}

/// Returns the error for a socket that this process may not use, such as one that another user left in
/// `/tmp`.
fn forbidden(
    location: &Location,
    name: &OsStr,
    stat: &Stat,
    step: &'static str,
    errno: Errno,
) -> BindError {
    let (path, owner, source) = (location.path(name), stat.st_uid, errno.into());
    location.refuse(BindProblem::ForbiddenSocket { step, path, owner, source })
}

/// Removes sockets that a killed server left: those with temporary names, and its control socket.
/// The lock ensures that no other server is working on one. A socket that accepts connections is
/// not touched.
pub(super) fn sweep(location: &Location) -> Result<(), BindError> {
    let failed =
        |errno| BindError::file(&location.address, "list", location.directory_path(), errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = match rustix::fs::openat(&location.directory, ".", flags, Mode::empty()) {
        Ok(directory) => rustix::fs::Dir::new(directory).map_err(failed)?,
        // A directory may be writable but not readable. Then nothing can be found.
        Err(Errno::ACCESS) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    let control = location.beside(CONTROL);
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if (location.is_temporary(name) || *name == *control) && is_dead_socket(location, name) {
            let _ = rustix::fs::unlinkat(&location.directory, name, AtFlags::empty());
        }
    }
    Ok(())
}

fn is_dead_socket(location: &Location, name: &OsStr) -> bool {
    let Ok(inode) = open_inode(&location.directory, name) else { return false };
    rustix::fs::fstat(&inode).is_ok_and(|stat| file_type(&stat) == FileType::Socket)
        && probe(inode.as_fd()) == Err(Errno::CONNREFUSED)
}

/// Binds a socket under a temporary name, gives the file its group and mode, and listens. The file
/// is created with mode 0, so no client can connect before its mode is right.
fn bind_temporary(
    location: &Location,
    options: FileOptions,
) -> Result<(Temporary<'_>, OwnedFd), BindError> {
    let (socket, name) = loop {
        let name = location.beside(&format!("{:08x}", random() as u32));
        let failed = |step| {
            let name = &name;
            move |errno: Errno| location.error(step, name, errno)
        };
        let socket = new_socket(options.kind).map_err(failed("create a socket for"))?;
        // bind(2) gives the file the socket's own mode without the bits of the umask (unix(7)).
        rustix::fs::fchmod(&socket, Mode::empty()).map_err(failed("set the mode of"))?;
        let at = location.sun_path(&name).map_err(failed("name"))?;
        match rustix::net::bind(&socket, &at) {
            Ok(()) => break (socket, name),
            Err(Errno::ADDRINUSE) => {}
            Err(errno) => return Err(failed("bind a socket at")(errno)),
        }
    };
    let temporary = own(location, name)?;
    let failed = |step| {
        let name = &temporary.name;
        move |errno: Errno| location.error(step, name, errno)
    };
    if let Some(group) = options.group {
        set_group(temporary.inode.as_fd(), group).map_err(|errno| match errno {
            Errno::PERM => location.refuse(BindProblem::GroupRefused { group: group.as_raw() }),
            errno => failed("set the group of")(errno),
        })?;
    }
    set_mode(temporary.inode.as_fd(), options.mode).map_err(failed("set the mode of"))?;
    rustix::net::listen(&socket, options.backlog).map_err(failed("listen on"))?;
    Ok((temporary, socket))
}

/// Fails if a new socket file at this location cannot have these attributes. Nothing is left
/// behind.
pub(super) fn try_options(location: &Location, options: FileOptions) -> Result<(), BindError> {
    bind_temporary(location, options).map(drop)
}

/// Gives a file its group, by its inode.
pub(super) fn set_group(inode: BorrowedFd<'_>, group: Gid) -> rustix::io::Result<()> {
    rustix::fs::chownat(inode, "", None, Some(group), AtFlags::EMPTY_PATH)
}

/// Gives a file its mode, by its inode, so that no other process can redirect it in a shared
/// directory.
pub(super) fn set_mode(inode: BorrowedFd<'_>, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::chmod(by_descriptor(inode), Mode::from_raw_mode(mode))
}

/// Opens the socket file that was just made under a temporary name. In a shared directory another
/// process may have moved a different file there, which must not get our mode. Only a new socket of
/// ours has mode 0.
fn own(location: &Location, name: OsString) -> Result<Temporary<'_>, BindError> {
    let opened = open_inode(&location.directory, &name)
        .and_then(|inode| rustix::fs::fstat(&inode).map(|stat| (inode, stat)));
    let (inode, stat) = opened.map_err(|errno| {
        // There may be no file descriptor left, for example. Nothing may be left behind in that
        // case either.
        let here = rustix::fs::statat(&location.directory, &name, AtFlags::SYMLINK_NOFOLLOW);
        if here.is_ok_and(|stat| is_new(&stat)) {
            let _ = rustix::fs::unlinkat(&location.directory, &name, AtFlags::empty());
        }
        location.error("open", &name, errno)
    })?;
    if !is_new(&stat) {
        return Err(location.refuse(BindProblem::Contended));
    }
    Ok(Temporary { location, name, inode: Arc::new(inode) })
}

/// Gives the temporary file its final name. Returns false if the file that has the name is no
/// longer `occupant`; then nothing was changed.
fn publish(
    temporary: &Temporary<'_>,
    name: &OsStr,
    occupant: &Occupant,
) -> Result<bool, BindError> {
    let location = temporary.location;
    let rename = |flags| rename(location, &temporary.name, name, flags);
    let failed = |errno| location.error("publish the socket as", name, errno);
    let stale = match occupant {
        Occupant::Nothing => {
            return match rename(RenameFlags::NOREPLACE) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => Ok(false),
                Err(errno) => Err(failed(errno)),
            };
        }
        Occupant::Stale(stale) => stale,
    };
    let stale = rustix::fs::fstat(stale).map_err(|errno| location.error("look at", name, errno))?;
    match rename(RenameFlags::EXCHANGE) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(false),
        // A new name could be made here, so it is this file that may not be replaced.
        Err(errno @ Errno::PERM) => {
            return Err(forbidden(location, name, &stale, "replace", errno));
        }
        Err(errno) => return Err(failed(errno)),
    }
    let displaced =
        rustix::fs::statat(&location.directory, &temporary.name, AtFlags::SYMLINK_NOFOLLOW);
    match displaced {
        Ok(displaced) if same_file(&displaced, &stale) => {
            // The socket is published. The next sweep finds what cannot be removed now.
            let _ = rustix::fs::unlinkat(&location.directory, &temporary.name, AtFlags::empty());
            Ok(true)
        }
        // Another program put its own file there since the check. It gets its name back.
        _ => put_back(location, &temporary.name, name).map(|()| false),
    }
}

/// Undoes an exchange: the file now at `temporary` gets the socket's name again, even if the file
/// that replaced it was removed.
fn put_back(location: &Location, temporary: &OsStr, name: &OsStr) -> Result<(), BindError> {
    let renamed = match rename(location, temporary, name, RenameFlags::EXCHANGE) {
        Err(Errno::NOENT) => rename(location, temporary, name, RenameFlags::NOREPLACE),
        renamed => renamed,
    };
    renamed.map_err(|errno| {
        location.error("give back its name to the file that is now", temporary, errno)
    })
}

/// Renames a temporary name to the socket's (renameat2(2)).
fn rename(
    location: &Location,
    temporary: &OsStr,
    name: &OsStr,
    flags: RenameFlags,
) -> rustix::io::Result<()> {
    let directory = &location.directory;
    rustix::fs::renameat_with(directory, temporary, directory, name, flags)
}

/// The socket under its temporary name, until it is published. Dropping it removes the file if it
/// still has that name. Files that an interrupted exchange left there are not ours to remove.
struct Temporary<'a> {
    location: &'a Location,
    name: OsString,
    inode: Arc<OwnedFd>,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = remove(self.location, &self.name, self.inode.as_fd());
    }
}

/// Removes the file of that name if it is this inode. Otherwise it is another file, or gone.
fn remove(location: &Location, name: &OsStr, inode: BorrowedFd<'_>) -> rustix::io::Result<()> {
    if is_named(location, name, inode)? {
        rustix::fs::unlinkat(&location.directory, name, AtFlags::empty())?;
    }
    Ok(())
}

/// Returns whether the name leads to this inode.
pub(super) fn is_named(
    location: &Location,
    name: &OsStr,
    inode: BorrowedFd<'_>,
) -> rustix::io::Result<bool> {
    match rustix::fs::statat(&location.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        here => Ok(same_file(&here?, &rustix::fs::fstat(inode)?)),
    }
}

/// Returns whether it is a socket of ours that has no mode yet.
fn is_new(stat: &Stat) -> bool {
    file_type(stat) == FileType::Socket
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_mode & 0o7777 == 0
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::address::Address;
    use crate::socket::bind_error::BindErrorKind;

    const NAME: &str = "x";

    const OPTIONS: FileOptions =
        FileOptions { kind: SocketType::STREAM, mode: 0o600, group: None, backlog: 1 };

    fn location(directory: &Path) -> Location {
        let path = directory.join(NAME);
        Location::open(&Address::unix(&path).unwrap(), &path).unwrap()
    }

    /// Checks that what `make` puts at the name between the check and the rename stays as it is.
    async fn publish_after(look_at: impl Fn(&Path), make: impl Fn(&Path)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let location = location(directory.path());
        look_at(&path);
        let occupant = look(&location, NAME.as_ref()).await.unwrap();
        let (temporary, _socket) = bind_temporary(&location, OPTIONS).unwrap();
        make(&path);
        let before = path.symlink_metadata().ok();
        assert!(!publish(&temporary, NAME.as_ref(), &occupant).unwrap());
        let after = path.symlink_metadata().ok();
        use std::os::unix::fs::MetadataExt;
        assert_eq!(before.map(|file| file.ino()), after.map(|file| file.ino()));
        drop(temporary);
        let names = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(names, usize::from(path.exists()));
    }

    fn leave_stale(path: &Path) {
        drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    }

    #[tokio::test]
    async fn a_file_that_appears_before_the_rename_is_not_lost() {
        publish_after(|_| {}, |path| std::fs::write(path, "theirs").unwrap()).await;
    }

    #[tokio::test]
    async fn a_file_that_replaces_a_stale_socket_before_the_rename_is_not_lost() {
        let replace = |path: &Path| {
            std::fs::remove_file(path).unwrap();
            leave_stale(path);
        };
        publish_after(leave_stale, replace).await;
    }

    #[tokio::test]
    async fn a_stale_socket_that_goes_before_the_rename_is_noticed() {
        publish_after(leave_stale, |path| std::fs::remove_file(path).unwrap()).await;
    }

    #[test]
    fn what_has_taken_the_place_of_a_temporary_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let location = location(directory.path());
        let (temporary, _socket) = bind_temporary(&location, OPTIONS).unwrap();
        let path = directory.path().join(&temporary.name);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        drop(temporary);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "theirs");
    }

    #[test]
    fn a_displaced_file_gets_its_name_back_whether_or_not_it_is_taken() {
        for taken in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("x");
            std::fs::write(directory.path().join("temporary"), "theirs").unwrap();
            if taken {
                leave_stale(&path);
            }
            put_back(&location(directory.path()), "temporary".as_ref(), NAME.as_ref()).unwrap();
            assert_eq!(std::fs::read_to_string(path).unwrap(), "theirs");
        }
    }

    /// In a shared directory another process could move a different socket of ours there, and we
    /// would open it to others.
    #[test]
    fn only_a_new_socket_is_given_a_mode() {
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join("other");
        let _other = std::os::unix::net::UnixListener::bind(&other).unwrap();
        let location = location(directory.path());
        let refused = own(&location, "other".into()).err().unwrap();
        assert_eq!(refused.kind(), BindErrorKind::Contended);
        assert!(other.exists());
    }
}
