//! Finds out who holds the lock of a socket file. It does not try to lock the file: a server that starts
//! at that moment would believe that another server has the lock.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::process;

/// What is known about the lock of a socket file.
#[derive(Debug, PartialEq)]
pub(super) enum Lock {
    /// A process holds it: this one, if it is known.
    Held(Option<u32>),
    /// There is no lock file.
    None,
    /// Whether a process holds it cannot be seen, for this reason.
    Unseen(String),
}

/// A longer name has a hash in the name of its lock file.
const NAME_MAX: usize = 64;

impl Lock {
    /// Looks at the lock of the socket file at a path, which may not exist.
    pub(super) fn of(path: &Path) -> Self {
        // The lock file is beside the socket itself, not beside a link to it.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let Some(lock_path) = lock_path(&path) else {
            return Self::Unseen(format!(
                "not looked for, since the name is longer than {NAME_MAX} bytes"
            ));
        };
        let shown = lock_path.display();
        let file = match fs::symlink_metadata(&lock_path) {
            Ok(file) if file.is_file() => file,
            Ok(_) => return Self::Unseen(format!("{shown} is no regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::None,
            Err(error) => return Self::Unseen(format!("{shown}: {error}")),
        };
        let listed = listed(&fs::read_to_string("/proc/locks").unwrap_or_default(), &file);
        // The number in the file may be of another PID namespace, and /proc/locks has the process that took
        // the lock first, which may have handed it over and ended (proc_locks(5)).
        let signed = signature(&lock_path).filter(|pid| has_open(*pid, &file) == Some(true));
        let holder = signed.or(listed.filter(|pid| has_open(*pid, &file) != Some(false)));
        match (holder, listed) {
            (None, None) => Self::Unseen(format!(
                "{shown} is there, but whether a process holds it is not visible from here: one of another \
                 PID namespace may"
            )),
            _ => Self::Held(holder),
        }
    }

    /// Returns the holder in words, or `None` if nothing is known of one.
    pub(super) fn holder(&self) -> Option<String> {
        match self {
            Self::Held(Some(pid)) => Some(process::described(*pid)),
            Self::Held(None) => Some("a process that is not visible from here".to_owned()),
            Self::None | Self::Unseen(_) => None,
        }
    }
}

/// Returns the lock file `.NAME.lock` beside the socket, or `None` for a name that is too long.
fn lock_path(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    let mut lock_name = OsString::from(".");
    lock_name.push(name);
    lock_name.push(".lock");
    (name.len() <= NAME_MAX).then(|| path.with_file_name(lock_name))
}

/// Returns the process that took the lock of a file, by the lines of proc_locks(5).
fn listed(locks: &str, file: &Metadata) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let id = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let fields = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut holders = fields.filter_map(|fields| {
        let is_it = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&id.as_str());
        is_it.then(|| fields.get(4)?.parse().ok())?
    });
    holders.next()
}

/// Returns the process id that a server of samehost writes to its lock file.
fn signature(lock_path: &Path) -> Option<u32> {
    let mut text = String::new();
    fs::File::open(lock_path).ok()?.take(16).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

/// Returns whether a process has a file open, or `None` if this user may not know.
fn has_open(pid: u32, file: &Metadata) -> Option<bool> {
    let descriptors = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(descriptors) => descriptors,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(false),
        Err(_) => return None,
    };
    let is_it = |open: Metadata| (open.dev(), open.ino()) == (file.dev(), file.ino());
    Some(descriptors.flatten().any(|it| fs::metadata(it.path()).is_ok_and(is_it)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn a_lock_is_found_by_its_file() {
        let directory = tempfile::tempdir().unwrap();
        for name in [&b"app.sock"[..], b"\xff.sock"] {
            let path = directory.path().join(std::ffi::OsStr::from_bytes(name));
            assert_eq!(Lock::of(&path), Lock::None);
            let lock = fs::File::create(lock_path(&path).unwrap()).unwrap();
            assert!(matches!(Lock::of(&path), Lock::Unseen(_)));
            flock(&lock, FlockOperation::LockExclusive).unwrap();
            assert_eq!(Lock::of(&path), Lock::Held(Some(std::process::id())));
            flock(&lock, FlockOperation::Unlock).unwrap();
            assert!(matches!(Lock::of(&path), Lock::Unseen(_)));
        }
        let Lock::Unseen(why) = Lock::of(&directory.path().join("x".repeat(65))) else { panic!() };
        assert!(why.contains("longer than 64 bytes"), "{why}");
    }

    #[test]
    fn a_lock_beside_what_a_link_leads_to_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("app.sock"), directory.path().join("link"));
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let lock = fs::File::create(lock_path(&path).unwrap()).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert_eq!(Lock::of(&link), Lock::Held(Some(std::process::id())));
    }

    /// The first process that has locked it has ended, and its lock is another one's now.
    #[test]
    fn the_process_that_has_the_lock_now_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let lock_path = lock_path(&path).unwrap();
        let lock = fs::File::create(&lock_path).unwrap();
        let mut locker = std::process::Command::new("flock");
        // flock(1) locks the open file that it inherits, which stays locked.
        locker.arg("0").stdin(lock.try_clone().unwrap());
        assert!(locker.status().unwrap().success());
        assert_eq!(Lock::of(&path).holder().is_some(), is_shown(&lock_path));
        // Nobody has this id.
        fs::write(&lock_path, "4194305\n").unwrap();
        assert_eq!(Lock::of(&path).holder().is_some(), is_shown(&lock_path));
        fs::write(&lock_path, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(Lock::of(&path), Lock::Held(Some(std::process::id())));
    }

    /// Returns whether /proc/locks shows the lock of a process that has ended: it does not in a PID
    /// namespace.
    fn is_shown(lock_path: &Path) -> bool {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        listed(&locks, &fs::metadata(lock_path).unwrap()).is_some()
    }
}
