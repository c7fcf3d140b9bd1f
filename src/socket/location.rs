//! [`Location`]: the place of a socket file, and the names of the files beside it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, fstat, statat};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use super::bind_error::{BindError, BindProblem};
use super::unix::{by_descriptor, same_file};
use crate::address::Address;

/// The longest path that fits a `sockaddr_un` with its closing NUL (unix(7)).
const SUN_PATH_MAX: usize = 107;

/// If a socket's file name has more bytes than this, the files beside it are named by its hash.
const STEM_MAX: usize = 64;

/// The open directory of a socket file, and the file's name in it.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) address: Address,
    /// The directory's path, for messages, short addresses and to look whether it still leads there.
    directory_path: PathBuf,
    pub(super) directory: OwnedFd,
    pub(super) name: OsString,
    /// The common part of the names of the lock file and of temporary files.
    stem: OsString,
}

impl Location {
    pub(super) fn open(address: &Address, path: &Path) -> Result<Self, BindError> {
        let last = path.as_os_str().as_bytes().rsplit(|&b| b == b'/').next();
        let name = match path.file_name() {
            // `Path` ignores a trailing slash or dot, but the kernel does not.
            Some(name) if Some(name.as_bytes()) == last => name.to_owned(),
            _ => return Err(BindError::new(address, BindProblem::NoFileName)),
        };
        let directory_path = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::openat(CWD, &directory_path, flags, Mode::empty()).map_err(|errno| {
                match errno {
                    Errno::NOENT => {
                        BindError::new(address, BindProblem::NoDirectory(directory_path.clone()))
                    }
                    errno => BindError::file(address, "open the directory", &directory_path, errno),
                }
            })?;
        let directory_path = absolute(directory_path, &directory);
        let stem = stem(&name);
        Ok(Self { address: address.clone(), directory_path, directory, name, stem })
    }

    /// Opens the same location again: its path may lead to another directory by now.
    pub(super) fn reopen(&self) -> Result<Self, BindError> {
        Self::open(&self.address, &self.path(&self.name))
    }

    /// Returns whether its path still leads to the directory. Without permission to look, it counts
    /// as if it does.
    pub(super) fn is_current(&self) -> bool {
        match statat(CWD, &self.directory_path, AtFlags::empty()) {
            Ok(there) => fstat(&self.directory).is_ok_and(|ours| same_file(&there, &ours)),
            Err(Errno::NOENT | Errno::NOTDIR) => false,
            Err(_) => true,
        }
    }

    /// Returns whether the directory is no longer where its parent has its name. It looks from the directory
    /// itself, since the process may have changed what its paths mean (chroot(2)). A path that leads
    /// through a symbolic link looks moved.
    pub(super) fn is_moved(&self) -> bool {
        let Some(name) = self.directory_path.file_name() else { return false };
        let look = |path: &Path| statat(&self.directory, path, AtFlags::empty());
        let (Ok(own), Ok(parent)) = (fstat(&self.directory), look(Path::new(".."))) else {
            return false;
        };
        // The process's root is its own parent.
        if same_file(&own, &parent) {
            return false;
        }
        match look(&Path::new("..").join(name)) {
            Ok(there) => !same_file(&there, &own),
            Err(errno) => matches!(errno, Errno::NOENT | Errno::NOTDIR),
        }
    }

    /// Fails if another user could replace a socket in the directory.
    pub(super) fn check_directory(&self, group: Option<Gid>) -> Result<(), BindError> {
        let stat = fstat(&self.directory).map_err(|errno| {
            BindError::file(&self.address, "look at", &self.directory_path, errno)
        })?;
        let refused = |problem| Err(BindError::new(&self.address, problem));
        let directory = self.directory_path.clone();
        let us = rustix::process::geteuid().as_raw();
        if stat.st_uid != us && stat.st_uid != 0 {
            return refused(BindProblem::ForeignDirectory { directory, owner: stat.st_uid });
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
            return refused(BindProblem::SharedDirectory {
                directory,
                mode: stat.st_mode & 0o7777,
                remedy: if by_group { "go-w" } else { "o-w" },
            });
        }
        Ok(())
    }

    /// Returns the path of a name in the directory.
    pub(super) fn path(&self, name: &OsStr) -> PathBuf {
        self.directory_path.join(name)
    }

    pub(super) fn directory_path(&self) -> &Path {
        &self.directory_path
    }

    /// Returns the name of a file that belongs to this socket: hidden, in the same directory.
    pub(super) fn beside(&self, suffix: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.stem);
        name.push(".");
        name.push(suffix);
        name
    }

    /// Returns whether it is a temporary name of a socket of this location.
    pub(super) fn is_temporary(&self, name: &OsStr) -> bool {
        let suffix = name
            .as_bytes()
            .strip_prefix(b".")
            .and_then(|rest| rest.strip_prefix(self.stem.as_bytes()))
            .and_then(|rest| rest.strip_prefix(b"."));
        suffix.is_some_and(|suffix| suffix.len() == 8 && suffix.iter().all(u8::is_ascii_hexdigit))
    }

    /// Returns the socket address of a name in the directory: its path if that fits, otherwise a
    /// path through the open directory.
    pub(super) fn sun_path(&self, name: &OsStr) -> rustix::io::Result<SocketAddrUnix> {
        let path = self.path(name);
        if path.as_os_str().len() <= SUN_PATH_MAX {
            SocketAddrUnix::new(path)
        } else {
            SocketAddrUnix::new(by_descriptor(self.directory.as_fd()).join(name))
        }
    }

    /// Returns the error of a system call on the file of this name.
    pub(super) fn error(&self, step: &'static str, name: &OsStr, errno: Errno) -> BindError {
        // A directory that was removed can still be opened by a name such as `.`, and no file can be made
        // in it (rmdir(2)).
        let removed = || fstat(&self.directory).is_ok_and(|stat| stat.st_nlink == 0);
        if errno == Errno::NOENT && removed() {
            return self.refuse(BindProblem::DirectoryRemoved(self.directory_path.clone()));
        }
        BindError::file(&self.address, step, &self.path(name), errno)
    }

    pub(super) fn refuse(&self, problem: BindProblem) -> BindError {
        BindError::new(&self.address, problem)
    }
}

/// Returns what is the same for all paths of a socket file: its directory's device and inode, as far as
/// the directory is found, and its name.
pub(super) fn place(path: &Path) -> (Option<(u64, u64)>, &OsStr) {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = statat(CWD, parent.unwrap_or(Path::new(".")), AtFlags::empty());
    let inode = directory.ok().map(|stat| (stat.st_dev, stat.st_ino));
    (inode, path.file_name().unwrap_or_default())
}

/// Returns the absolute path of a directory, which stays the same if the process changes its working
/// directory (chdir(2)). If that path does not lead to the directory, the given one is returned: the
/// process may not be allowed to enter the directories above.
fn absolute(path: PathBuf, directory: &OwnedFd) -> PathBuf {
    if path.is_absolute() {
        return path;
    }
    let Ok(absolute) = std::path::absolute(&path) else { return path };
    let there = statat(CWD, &absolute, AtFlags::empty());
    match (there, fstat(directory)) {
        (Ok(there), Ok(ours)) if same_file(&there, &ours) => absolute,
        _ => path,
    }
}

/// Returns a file name, or its hash if the name is long (64-bit FNV-1a in hexadecimal). So the
/// names made from it stay within the 255 bytes of a file name and the 107 of a socket address.
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
