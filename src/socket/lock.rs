//! [`Lock`]: the lock file beside a socket file. The process that holds it may publish the socket
//! and remove it.
//!
//! The file is removed together with the socket. That is safe because each process checks, once it
//! has the lock, whether the name still leads to the inode that it locked. If not, it starts over:
//! only the lock on the file that has the name counts.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::bind_error::{BindError, BindProblem};
use super::location::Location;
use super::unix::{file_type, kind_name, same_file};

/// How often the file may be removed between its opening and its lock. Each time, another server
/// has ended at that moment.
const ATTEMPTS: u32 = 1_000;

/// The lock on a socket's name. Dropping it removes the lock file and releases the lock.
pub(super) struct Lock {
    /// `None` once it was handed over.
    file: Option<OwnedFd>,
    location: Arc<Location>,
}

/// A lock file whose lock another process holds.
#[derive(Debug)]
pub(super) struct HeldLock(OwnedFd);

impl Lock {
    /// Takes the lock, unless another process holds it. The kernel releases the lock when its
    /// holder ends for any reason (flock(2)).
    pub(super) fn acquire(location: &Arc<Location>) -> Result<Result<Self, HeldLock>, BindError> {
        let name = location.beside("lock");
        for _ in 0..ATTEMPTS {
            let file = open(location)?;
            let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            if let Err(errno) = locked
                && errno != Errno::WOULDBLOCK
            {
                give_up(location, file);
                return Err(location.error("lock", &name, errno));
            }
            // The holder removes the file before it releases the lock.
            match is_lock_of(location, file.as_fd()) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(errno) => {
                    give_up(location, file);
                    return Err(location.error("look at", &name, errno));
                }
            }
            if locked.is_err() {
                return Ok(Err(HeldLock(file)));
            }
            let lock = Self { file: Some(file), location: Arc::clone(location) };
            // The file may still have the process id of a killed server.
            lock.clear().map_err(|errno| location.error("empty the lock file", &name, errno))?;
            return Ok(Ok(lock));
        }
        Err(location.refuse(BindProblem::Contended))
    }

    /// Returns whether this is the lock of that location: its lock file was not replaced.
    pub(super) fn is_of(&self, location: &Location) -> bool {
        self.file.as_ref().is_some_and(|file| is_lock_of(location, file.as_fd()) == Ok(true))
    }

    /// Returns a lock that another process handed over together with its file.
    pub(super) fn of_holder(file: OwnedFd, location: &Arc<Location>) -> Self {
        Self { file: Some(file), location: Arc::clone(location) }
    }

    pub(super) fn file(&self) -> Option<&OwnedFd> {
        self.file.as_ref()
    }

    /// Returns the locked file and leaves it as it is. It stays locked as long as any process has
    /// it open.
    pub(super) fn take_file(&mut self) -> Option<OwnedFd> {
        self.file.take()
    }

    /// Writes this process's id to the file when its socket is published. Only messages depend on
    /// it.
    pub(super) fn sign(&self) {
        let _ = self.clear();
        let id = format!("{}\n", std::process::id());
        let _ = self.file.as_ref().map(|file| rustix::io::pwrite(file, id.as_bytes(), 0));
    }

    /// Removes the process id again, before the socket is removed.
    pub(super) fn clear(&self) -> rustix::io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| rustix::fs::ftruncate(file, 0))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        if is_lock_of(&self.location, file.as_fd()) == Ok(true) {
            let name = self.location.beside("lock");
            let _ = rustix::fs::unlinkat(&self.location.directory, name, AtFlags::empty());
        }
        // Closing is not enough: a child between fork and exec shares the descriptor for a moment.
        let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lock").field(&self.file).finish()
    }
}

impl HeldLock {
    pub(super) fn file(&self) -> &OwnedFd {
        &self.0
    }

    /// Returns why the address cannot be bound: a server has it, with or without a file.
    pub(super) fn refusal(&self, location: &Location) -> BindError {
        self.without_file(location).unwrap_or_else(|| location.refuse(BindProblem::AlreadyServed))
    }

    /// Returns the reason for a server that has no file.
    pub(super) fn without_file(&self, location: &Location) -> Option<BindError> {
        let pid = self.server_without_file(location)?;
        Some(location.refuse(BindProblem::SocketFileGone { pid }))
    }

    /// Checks whether a server holds the lock although its socket file is gone. Returns its process
    /// id if that is known. A server's id is in the lock file from after the socket is published
    /// until before it is removed. So if the id is there before and after a check that finds no
    /// socket file, another process removed the file.
    fn server_without_file(&self, location: &Location) -> Option<Option<u32>> {
        let before = self.signature()?;
        let look =
            rustix::fs::statat(&location.directory, &location.name, AtFlags::SYMLINK_NOFOLLOW);
        if look.err() != Some(Errno::NOENT) || self.signature() != Some(before) {
            return None;
        }
        Some(self.is_open_in(before).then_some(before))
    }

    /// Returns the process id in the file.
    fn signature(&self) -> Option<u32> {
        contents(&self.0).ok()?.parse().ok()
    }

    /// Returns whether the process has this lock file open. The number may be of another PID
    /// namespace, or have become another process's (pid_namespaces(7)).
    fn is_open_in(&self, pid: u32) -> bool {
        let Ok(ours) = rustix::fs::fstat(&self.0) else { return false };
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors.flatten().any(|entry| {
            std::fs::metadata(entry.path())
                .is_ok_and(|file| (file.dev(), file.ino()) == (ours.st_dev, ours.st_ino))
        })
    }
}

/// Opens or creates the lock file. It fails if something else has the name.
fn open(location: &Arc<Location>) -> Result<OwnedFd, BindError> {
    let name = location.beside("lock");
    let path = || location.path(&name);
    let not_a_file = |stat: &Stat| {
        let problem = format!("is {}", kind_name(stat));
        location.refuse(BindProblem::LockFile { path: path(), problem })
    };
    let foreign = |stat: &Stat| {
        location.refuse(BindProblem::ForeignLockFile { path: path(), owner: stat.st_uid })
    };
    let foreign_contents = || location.refuse(BindProblem::NotALockFile { path: path() });
    // NONBLOCK, because a FIFO with that name must not block the open.
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::openat(&location.directory, &name, flags, mode).map_err(|errno| {
        let there = rustix::fs::statat(&location.directory, &name, AtFlags::SYMLINK_NOFOLLOW);
        match there {
            Ok(stat) if file_type(&stat) != FileType::RegularFile => not_a_file(&stat),
            Ok(stat) if errno == Errno::ACCESS && is_ours(&stat) => {
                let mode = stat.st_mode & 0o7777;
                location.refuse(BindProblem::ClosedLockFile { path: path(), mode })
            }
            Ok(stat) if errno == Errno::ACCESS => foreign(&stat),
            _ => location.error("create the lock file", &name, errno),
        }
    })?;
    let looked = rustix::fs::fstat(&file).and_then(|stat| {
        let is_file = file_type(&stat) == FileType::RegularFile;
        Ok((stat, is_file && has_own_contents(&file, &stat)?))
    });
    match looked {
        Ok((stat, _)) if file_type(&stat) != FileType::RegularFile => {
            return Err(not_a_file(&stat));
        }
        Ok((stat, _)) if !is_trusted(stat.st_uid) => return Err(foreign(&stat)),
        Ok((_, false)) => return Err(foreign_contents()),
        Ok((stat, _)) if is_ours(&stat) && !Mode::from_raw_mode(stat.st_mode).contains(mode) => {
            // The umask has taken bits away, and without them no successor could open the file.
            if let Err(errno) = rustix::fs::fchmod(&file, mode) {
                give_up(location, file);
                return Err(location.error("set the mode of", &name, errno));
            }
        }
        Ok(_) => {}
        Err(errno) => {
            give_up(location, file);
            return Err(location.error("look at", &name, errno));
        }
    }
    Ok(file)
}

/// Returns the beginning of a lock file, which is more than a process id can have.
fn contents(file: &OwnedFd) -> rustix::io::Result<String> {
    let mut text = [0; 16];
    let length = rustix::io::pread(file, &mut text, 0)?;
    Ok(String::from_utf8_lossy(&text[..length]).trim_end().to_owned())
}

/// Returns whether a file holds what a lock file does: nothing, or a process id.
fn has_own_contents(file: &OwnedFd, stat: &Stat) -> rustix::io::Result<bool> {
    if stat.st_size >= 16 {
        return Ok(false);
    }
    let text = contents(file)?;
    Ok(text.is_empty() || text.parse::<u32>().is_ok())
}

/// Removes a lock file that this process opened and does not use, if no process holds its lock.
fn give_up(location: &Arc<Location>, file: OwnedFd) {
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        drop(Lock { file: Some(file), location: Arc::clone(location) });
    }
}

/// Returns whether the owner of a lock file is trusted: this process's user or root. Root trusts no other
/// user, since the owner of the lock file could put another server in the place of root's.
fn is_trusted(owner: u32) -> bool {
    owner == rustix::process::geteuid().as_raw() || owner == 0
}

fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Returns whether the lock file's name leads to this file.
pub(super) fn is_lock_of(location: &Location, file: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let name = location.beside("lock");
    match rustix::fs::statat(&location.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        here => Ok(same_file(&here?, &rustix::fs::fstat(file)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::socket::bind_error::BindErrorKind;

    fn location(directory: &std::path::Path) -> Arc<Location> {
        let path = directory.join("x");
        Arc::new(Location::open(&Address::unix(&path).unwrap(), &path).unwrap())
    }

    fn names(directory: &std::path::Path) -> usize {
        std::fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn the_lock_is_released_and_its_file_removed_though_a_copy_of_its_descriptor_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let location = location(directory.path());
        let lock = Lock::acquire(&location).unwrap().unwrap();
        let copy = lock.file.as_ref().unwrap().try_clone().unwrap();
        Lock::acquire(&location).unwrap().unwrap_err();
        drop(lock);
        assert_eq!(names(directory.path()), 0);
        // The copy's lock would be on a file that has no name any more.
        drop(Lock::acquire(&location).unwrap().unwrap());
        drop(copy);
        assert_eq!(names(directory.path()), 0);
    }

    #[test]
    fn another_users_lock_file_is_refused_also_to_root() {
        let directory = tempfile::tempdir().unwrap();
        let location = location(directory.path());
        let file = directory.path().join(".x.lock");
        std::fs::write(&file, "").unwrap();
        if std::os::unix::fs::chown(&file, Some(54_321), None).is_err() {
            // This test needs root.
            return;
        }
        let refused = Lock::acquire(&location).unwrap_err();
        assert_eq!(refused.kind(), BindErrorKind::LockFile);
        let text = refused.to_string();
        assert!(text.contains(" is owned by uid 54321: run this process as that user"), "{text}");
        assert!(file.exists());
    }

    #[test]
    fn a_lock_on_a_file_that_lost_its_name_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let location = location(directory.path());
        let removed = Lock::acquire(&location).unwrap().unwrap();
        std::fs::remove_file(directory.path().join(".x.lock")).unwrap();
        let held = Lock::acquire(&location).unwrap().unwrap();
        // It removes only its own file.
        drop(removed);
        Lock::acquire(&location).unwrap().unwrap_err();
        drop(held);
        assert_eq!(names(directory.path()), 0);
    }

    #[test]
    fn of_many_that_lock_and_release_no_two_hold_the_lock_at_a_time() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let directory = tempfile::tempdir().unwrap();
        let location = location(directory.path());
        let holders = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let Ok(lock) = Lock::acquire(&location).unwrap() else { continue };
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        holders.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(names(directory.path()), 0);
    }

    #[test]
    fn the_refusal_tells_a_server_whose_file_is_gone_from_one_that_starts() {
        let directory = tempfile::tempdir().unwrap();
        let location = location(directory.path());
        let lock = Lock::acquire(&location).unwrap().unwrap();
        let refusal = || Lock::acquire(&location).unwrap().unwrap_err().refusal(&location);
        assert_eq!(refusal().kind(), BindErrorKind::AlreadyServed);
        lock.sign();
        let gone = refusal();
        assert_eq!(gone.kind(), BindErrorKind::SocketFileGone);
        let says =
            format!(": pid {} holds the lock but its socket file is gone", std::process::id());
        assert!(gone.to_string().contains(&says), "{gone}");
        std::fs::write(directory.path().join("x"), "").unwrap();
        assert_eq!(refusal().kind(), BindErrorKind::AlreadyServed);
        std::fs::remove_file(directory.path().join("x")).unwrap();
        // A number of another process, or of none.
        std::fs::write(directory.path().join(".x.lock"), "1\n").unwrap();
        assert!(refusal().to_string().contains(": another process holds"), "{}", refusal());
        lock.clear().unwrap();
        assert_eq!(refusal().kind(), BindErrorKind::AlreadyServed);
    }
}
