//! [`SocketFile`]: the life of a Unix socket's file, from the lock beside it to its removal. The
//! only place that creates or removes files, and it removes only what it created.
//!
//! Two servers that bind the same path must never both believe they have it, a file that is not
//! ours must never be lost, and no client may meet a socket with a wider mode than the one asked
//! for. Hence the order of [`SocketFile::bind`]: lock, look, make the socket under a temporary
//! name, give it its mode, listen, and only then publish it by a rename that cannot overwrite.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use super::bind::{BindError, BindOptions, Group, unix_socket};
use crate::address::Address;

/// A server that has bound but does not listen yet refuses connections, as a dead one does; this
/// is how long it is given.
const STALE_RECHECK: Duration = Duration::from_millis(50);

/// How often the name is looked at again when it changed hands between look and rename.
const PUBLISH_ATTEMPTS: u32 = 10;

/// The longest path that fits a `sockaddr_un` with its closing NUL (unix(7)).
const SUN_PATH_MAX: usize = 107;

/// File names longer than this are replaced by their hash in the names of the files beside them.
const STEM_MAX: usize = 64;

/// A published socket file. Dropping it removes the file if it is still this one.
#[derive(Debug)]
pub(crate) struct SocketFile {
    directory: OwnedFd,
    name: OsString,
    /// The file's inode. Open, so that the kernel cannot give its number to another file.
    inode: Arc<OwnedFd>,
    /// Held until the file is gone, so that removal races with no successor. Dropped after it:
    /// `Drop::drop` runs before the fields are dropped.
    _lock: Lock,
}

impl SocketFile {
    /// Binds `path` and listens, by the steps in the module's documentation. Returns the file and
    /// the listening socket.
    pub(super) async fn bind(
        address: &Address,
        path: &Path,
        options: &BindOptions,
    ) -> Result<(Self, OwnedFd), BindError> {
        let group = options.group.as_ref().map(|group| group_id(address, group)).transpose()?;
        if options.mode & !0o777 != 0 {
            return Err(BindError::InvalidMode { address: address.clone(), mode: options.mode });
        }
        let place = Place::open(address, path)?;
        if !options.allow_shared_directory {
            place.check_directory(group)?;
        }
        let lock = place.lock()?;
        let mut occupant = place.look().await?;
        place.sweep()?;
        let (temporary, socket) = place.bind_temporary(group, options)?;
        for _ in 0..PUBLISH_ATTEMPTS {
            if place.publish(&temporary, &occupant)? {
                let inode = Arc::clone(&temporary.inode);
                drop(temporary);
                let Place { directory, name, .. } = place;
                return Ok((Self { directory, name, inode, _lock: lock }, socket));
            }
            occupant = place.look().await?;
        }
        Err(BindError::Contended { address: address.clone() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let removed = remove(self.directory.as_fd(), &self.name, self.inode.as_fd());
        if let Err(errno) = removed {
            tracing::warn!(name = ?self.name, error = %errno, "the socket file was not removed");
        }
    }
}

/// The lock on a socket's name, released when dropped.
#[derive(Debug)]
struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child between fork and exec shares the descriptor for a moment.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Where a socket file is to be: the open directory and the name in it.
struct Place<'a> {
    address: &'a Address,
    /// The directory as it was given, for messages and short addresses.
    directory_path: PathBuf,
    directory: OwnedFd,
    name: OsString,
    /// What the names of the lock file and of temporary files are made of.
    stem: OsString,
}

/// What stands at the name.
enum Occupant {
    Nothing,
    /// A socket that nobody listens on, kept open so that its inode number stays its own.
    Stale(OwnedFd),
}

impl<'a> Place<'a> {
    fn open(address: &'a Address, path: &Path) -> Result<Self, BindError> {
        let last = path.as_os_str().as_bytes().rsplit(|&b| b == b'/').next();
        let name = match path.file_name() {
            // `Path` overlooks a trailing slash or dot; the kernel doesn't.
            Some(name) if Some(name.as_bytes()) == last => name.to_owned(),
            _ => return Err(BindError::NoFileName { address: address.clone() }),
        };
        let directory_path = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::openat(CWD, &directory_path, flags, Mode::empty()).map_err(|errno| {
                match errno {
                    Errno::NOENT => BindError::NoDirectory {
                        address: address.clone(),
                        directory: directory_path.clone(),
                    },
                    errno => BindError::file(address, "open the directory", &directory_path, errno),
                }
            })?;
        let stem = stem(&name);
        Ok(Self { address, directory_path, directory, name, stem })
    }

    /// Refuses a directory in which another user could replace the socket.
    fn check_directory(&self, group: Option<Gid>) -> Result<(), BindError> {
        let stat = rustix::fs::fstat(&self.directory)
            .map_err(|errno| self.error("look at", &self.directory_path, errno))?;
        let address = || self.address.clone();
        let directory = || self.directory_path.clone();
        let us = rustix::process::geteuid().as_raw();
        if stat.st_uid != us && stat.st_uid != 0 {
            return Err(BindError::ForeignDirectory {
                address: address(),
                directory: directory(),
                owner: stat.st_uid,
            });
        }
        let mode = Mode::from_raw_mode(stat.st_mode);
        // In a sticky directory only a file's owner can rename or remove it (unlink(2)).
        if mode.contains(Mode::SVTX) {
            return Ok(());
        }
        let own_group = group.unwrap_or_else(rustix::process::getegid).as_raw();
        let by_others = mode.contains(Mode::WOTH);
        let by_group = mode.contains(Mode::WGRP) && stat.st_gid != own_group;
        if by_others || by_group {
            return Err(BindError::SharedDirectory {
                address: address(),
                directory: directory(),
                mode: stat.st_mode & 0o7777,
                remedy: if by_group { "go-w" } else { "o-w" },
            });
        }
        Ok(())
    }

    /// Takes the lock beside the socket. It is held until the file descriptor is closed, so a
    /// killed server leaves none (flock(2)).
    fn lock(&self) -> Result<Lock, BindError> {
        let name = self.beside("lock");
        let path = self.directory_path.join(&name);
        let unusable = |problem: String| BindError::LockFile {
            address: self.address.clone(),
            path: path.clone(),
            problem,
        };
        // NONBLOCK: a FIFO in its place must not block the open.
        let flags =
            OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| {
                let there = rustix::fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW);
                match there {
                    Ok(stat) if file_type(&stat) != FileType::RegularFile => {
                        unusable(format!("is {}", kind_name(&stat)))
                    }
                    Ok(stat) if errno == Errno::ACCESS => {
                        unusable(format!("is owned by uid {}", stat.st_uid))
                    }
                    _ => self.error("create the lock file", &path, errno),
                }
            })?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| self.error("look at", &path, errno))?;
        if file_type(&stat) != FileType::RegularFile {
            return Err(unusable(format!("is {}", kind_name(&stat))));
        }
        if stat.st_uid != rustix::process::geteuid().as_raw() && stat.st_uid != 0 {
            return Err(unusable(format!("is owned by uid {}", stat.st_uid)));
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file)),
            Err(Errno::WOULDBLOCK) => {
                Err(BindError::AlreadyServed { address: self.address.clone() })
            }
            Err(errno) => Err(self.error("lock", &path, errno)),
        }
    }

    /// Looks at what stands at the name, without following a symbolic link. Only a socket that
    /// refuses connections twice is stale; everything else but nothing is refused.
    async fn look(&self) -> Result<Occupant, BindError> {
        let path = self.directory_path.join(&self.name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inode = match rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty()) {
            Ok(inode) => inode,
            Err(Errno::NOENT) => return Ok(Occupant::Nothing),
            Err(errno) => return Err(self.error("look at", &path, errno)),
        };
        let stat =
            rustix::fs::fstat(&inode).map_err(|errno| self.error("look at", &path, errno))?;
        if file_type(&stat) != FileType::Socket {
            return Err(BindError::NotASocket {
                address: self.address.clone(),
                kind: kind_name(&stat),
            });
        }
        for pause in [Some(STALE_RECHECK), None] {
            match probe(inode.as_fd()) {
                Err(Errno::CONNREFUSED) => {}
                // PROTOTYPE: a live socket of another type, such as a datagram one.
                Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
                    return Err(BindError::AlreadyServed { address: self.address.clone() });
                }
                Err(errno) => {
                    return Err(self.error("check whether a server listens on", &path, errno));
                }
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(Occupant::Stale(inode))
    }

    /// Removes sockets that a killed server left under their temporary names. The lock says that
    /// no other server is at work on one; what accepts connections all the same is not touched.
    fn sweep(&self) -> Result<(), BindError> {
        let failed = |errno| self.error("list", &self.directory_path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let entries = match rustix::fs::openat(&self.directory, ".", flags, Mode::empty()) {
            Ok(directory) => rustix::fs::Dir::new(directory).map_err(failed)?,
            // A directory may be writable and not readable; then there is nothing to see.
            Err(Errno::ACCESS) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if self.is_temporary(name) && self.is_dead_socket(name) {
                let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
            }
        }
        Ok(())
    }

    fn is_dead_socket(&self, name: &OsStr) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(inode) = rustix::fs::openat(&self.directory, name, flags, Mode::empty()) else {
            return false;
        };
        rustix::fs::fstat(&inode).is_ok_and(|stat| file_type(&stat) == FileType::Socket)
            && probe(inode.as_fd()) == Err(Errno::CONNREFUSED)
    }

    /// Binds a socket under a temporary name, gives the file its group and mode, and listens. The
    /// file is created with mode 0, so nobody can connect before its mode is right.
    fn bind_temporary(
        &self,
        group: Option<Gid>,
        options: &BindOptions,
    ) -> Result<(Temporary<'_>, OwnedFd), BindError> {
        let (socket, name) = loop {
            let name = self.beside(&format!("{:08x}", random() as u32));
            let path = self.directory_path.join(&name);
            let failed = |step| {
                let path = &path;
                move |errno: Errno| self.error(step, path, errno)
            };
            let socket = unix_socket().map_err(failed("create a socket for"))?;
            // bind gives the file the socket's own mode, less the umask (unix(7)).
            rustix::fs::fchmod(&socket, Mode::empty()).map_err(failed("set the mode of"))?;
            let place = self.sun_path(&name).map_err(failed("name"))?;
            match rustix::net::bind(&socket, &place) {
                Ok(()) => break (socket, name),
                Err(Errno::ADDRINUSE) => {}
                Err(errno) => return Err(failed("bind a socket at")(errno)),
            }
        };
        let path = self.directory_path.join(&name);
        let failed = |step| {
            let path = &path;
            move |errno: Errno| self.error(step, path, errno)
        };
        let temporary = self.own(name)?;
        let inode = &temporary.inode;
        if let Some(group) = group {
            rustix::fs::chownat(&**inode, "", None, Some(group), AtFlags::EMPTY_PATH).map_err(
                |errno| match errno {
                    Errno::PERM => BindError::GroupRefused {
                        address: self.address.clone(),
                        group: group.as_raw(),
                    },
                    errno => failed("set the group of")(errno),
                },
            )?;
        }
        // By descriptor, so that a shared directory gives nobody a chance to redirect it.
        rustix::fs::chmod(by_descriptor(inode.as_fd()), Mode::from_raw_mode(options.mode))
            .map_err(failed("set the mode of"))?;
        rustix::net::listen(&socket, options.backlog).map_err(failed("listen on"))?;
        Ok((temporary, socket))
    }

    /// Opens the socket file that was just made under a temporary name. In a shared directory
    /// another file may have been moved there since, which must not be given our mode: only a new
    /// socket of ours has mode 0.
    fn own(&self, name: OsString) -> Result<Temporary<'_>, BindError> {
        let path = self.directory_path.join(&name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.directory, &name, flags, Mode::empty())
            .and_then(|inode| rustix::fs::fstat(&inode).map(|stat| (inode, stat)));
        let (inode, stat) = opened.map_err(|errno| {
            // For want of file descriptors, say: nothing is to be left behind all the same.
            let here = rustix::fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW);
            if here.is_ok_and(|stat| is_new(&stat)) {
                let _ = rustix::fs::unlinkat(&self.directory, &name, AtFlags::empty());
            }
            self.error("open", &path, errno)
        })?;
        if !is_new(&stat) {
            return Err(BindError::Contended { address: self.address.clone() });
        }
        Ok(Temporary { directory: self.directory.as_fd(), name, inode: Arc::new(inode) })
    }

    /// Gives the temporary file its name. False: what stands at the name is no longer `occupant`,
    /// and nothing was changed.
    fn publish(&self, temporary: &Temporary<'_>, occupant: &Occupant) -> Result<bool, BindError> {
        let path = self.directory_path.join(&self.name);
        let rename = |flags| self.rename(&temporary.name, flags);
        let stale = match occupant {
            Occupant::Nothing => {
                return match rename(RenameFlags::NOREPLACE) {
                    Ok(()) => Ok(true),
                    Err(Errno::EXIST) => Ok(false),
                    Err(errno) => Err(self.error("publish the socket as", &path, errno)),
                };
            }
            Occupant::Stale(stale) => stale,
        };
        match rename(RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(self.error("publish the socket as", &path, errno)),
        }
        let displaced =
            rustix::fs::statat(&self.directory, &temporary.name, AtFlags::SYMLINK_NOFOLLOW);
        match (displaced, rustix::fs::fstat(stale)) {
            (Ok(displaced), Ok(stale)) if same_file(&displaced, &stale) => {
                // The socket is published: what can't be removed now, the next sweep finds.
                let _ = rustix::fs::unlinkat(&self.directory, &temporary.name, AtFlags::empty());
                Ok(true)
            }
            // Another program put its own file there since the look: give it back its name.
            _ => self.put_back(&temporary.name).map(|()| false),
        }
    }

    /// Undoes an exchange: the file now at `temporary` gets the socket's name again, even where
    /// somebody has removed what stood there in its place.
    fn put_back(&self, temporary: &OsStr) -> Result<(), BindError> {
        let renamed = match self.rename(temporary, RenameFlags::EXCHANGE) {
            Err(Errno::NOENT) => self.rename(temporary, RenameFlags::NOREPLACE),
            renamed => renamed,
        };
        renamed.map_err(|errno| {
            let path = self.directory_path.join(temporary);
            self.error("give back its name to the file that is now", &path, errno)
        })
    }

    /// Renames a temporary name to the socket's (renameat2(2)).
    fn rename(&self, temporary: &OsStr, flags: RenameFlags) -> rustix::io::Result<()> {
        let directory = &self.directory;
        rustix::fs::renameat_with(directory, temporary, directory, &self.name, flags)
    }

    /// The name of a file that belongs to this socket: hidden, in the same directory.
    fn beside(&self, suffix: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.stem);
        name.push(".");
        name.push(suffix);
        name
    }

    fn is_temporary(&self, name: &OsStr) -> bool {
        let suffix = name
            .as_bytes()
            .strip_prefix(b".")
            .and_then(|rest| rest.strip_prefix(self.stem.as_bytes()))
            .and_then(|rest| rest.strip_prefix(b"."));
        suffix.is_some_and(|suffix| suffix.len() == 8 && suffix.iter().all(u8::is_ascii_hexdigit))
    }

    /// The socket address of a name in the directory: its path where that fits, else the same by
    /// way of the open directory.
    fn sun_path(&self, name: &OsStr) -> rustix::io::Result<SocketAddrUnix> {
        let path = self.directory_path.join(name);
        if path.as_os_str().len() <= SUN_PATH_MAX {
            SocketAddrUnix::new(path)
        } else {
            SocketAddrUnix::new(by_descriptor(self.directory.as_fd()).join(name))
        }
    }

    fn error(&self, step: &'static str, path: &Path, errno: Errno) -> BindError {
        BindError::file(self.address, step, path, errno)
    }
}

/// The socket under its temporary name, until it is published. Dropping it removes the file if it
/// still has that name: what an interrupted exchange left there is not ours to remove.
struct Temporary<'a> {
    directory: BorrowedFd<'a>,
    name: OsString,
    inode: Arc<OwnedFd>,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = remove(self.directory, &self.name, self.inode.as_fd());
    }
}

/// Removes the file of that name if it is this inode; else it is somebody else's, or gone.
fn remove(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    inode: BorrowedFd<'_>,
) -> rustix::io::Result<()> {
    let here = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        here => here?,
    };
    if same_file(&here, &rustix::fs::fstat(inode)?) {
        rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
    }
    Ok(())
}

/// Asks whether somebody listens on a socket file, given its inode.
fn probe(inode: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let address = SocketAddrUnix::new(by_descriptor(inode))?;
    rustix::net::connect(unix_socket()?, &address)
}

/// A path that leads to what the descriptor has open, however long its own path is (proc(5)).
pub(super) fn by_descriptor(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A file name, or where it is long its hash (64-bit FNV-1a in hexadecimal), so that what is added
/// to it keeps within the 255 bytes of a file name and the 107 of a socket address.
fn stem(name: &OsStr) -> OsString {
    let bytes = name.as_bytes();
    if bytes.len() <= STEM_MAX {
        return OsString::from_vec(bytes.to_vec());
    }
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    OsString::from(format!("{hash:016x}"))
}

/// A socket of ours that has been given no mode yet.
fn is_new(stat: &Stat) -> bool {
    file_type(stat) == FileType::Socket
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_mode & 0o7777 == 0
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(super) fn kind_name(stat: &Stat) -> &'static str {
    match file_type(stat) {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "something unknown",
    }
}

fn group_id(address: &Address, group: &Group) -> Result<Gid, BindError> {
    let id = match group {
        Group::Id(id) => *id,
        Group::Name(name) => match nix::unistd::Group::from_name(name) {
            Ok(Some(group)) => group.gid.as_raw(),
            Ok(None) => {
                return Err(BindError::NoSuchGroup {
                    address: address.clone(),
                    name: name.clone(),
                });
            }
            Err(errno) => {
                return Err(BindError::Io {
                    address: address.clone(),
                    step: "look up the group",
                    source: io::Error::from_raw_os_error(errno as i32),
                });
            }
        },
    };
    // chown(2) takes this one for "leave it as it is".
    if id == u32::MAX {
        return Err(BindError::NoSuchGroup { address: address.clone(), name: id.to_string() });
    }
    Ok(Gid::from_raw(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place<'a>(address: &'a Address) -> Place<'a> {
        Place::open(address, address.as_path().unwrap()).unwrap()
    }

    /// What `make` puts at the name between the look and the rename stays as it is.
    async fn publish_after(look_at: impl Fn(&Path), make: impl Fn(&Path)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let address = Address::unix(&path).unwrap();
        let place = place(&address);
        look_at(&path);
        let occupant = place.look().await.unwrap();
        let (temporary, _socket) = place.bind_temporary(None, &BindOptions::new()).unwrap();
        make(&path);
        let before = path.symlink_metadata().ok();
        assert!(!place.publish(&temporary, &occupant).unwrap());
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
        let address = Address::unix(directory.path().join("x")).unwrap();
        let place = place(&address);
        let (temporary, _socket) = place.bind_temporary(None, &BindOptions::new()).unwrap();
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
            let address = Address::unix(&path).unwrap();
            std::fs::write(directory.path().join("temporary"), "theirs").unwrap();
            if taken {
                leave_stale(&path);
            }
            place(&address).put_back(OsStr::new("temporary")).unwrap();
            assert_eq!(std::fs::read_to_string(path).unwrap(), "theirs");
        }
    }

    /// In a shared directory somebody could move another socket of ours there, for us to open it
    /// to others.
    #[test]
    fn only_a_new_socket_is_given_a_mode() {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::unix(directory.path().join("x")).unwrap();
        let other = directory.path().join("other");
        let _other = std::os::unix::net::UnixListener::bind(&other).unwrap();
        let place = place(&address);
        let owned = place.own("other".into());
        assert!(matches!(owned, Err(BindError::Contended { .. })));
        assert!(other.exists());
    }

    #[test]
    fn the_lock_is_released_though_a_copy_of_its_descriptor_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::unix(directory.path().join("x")).unwrap();
        let place = place(&address);
        let lock = place.lock().unwrap();
        let copy = lock.0.try_clone().unwrap();
        assert!(matches!(place.lock(), Err(BindError::AlreadyServed { .. })));
        drop(lock);
        place.lock().unwrap();
        drop(copy);
    }
}
