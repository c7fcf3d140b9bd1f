//! Checks the file at the path of a socket: whether it is a socket, whether this user may connect
//! to it, and who holds its lock.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::path::{kind, owner, this_user};
use super::{Broken, End, Steps, broken};
use crate::process;

const STEP: &str = "socket file";

pub(super) fn look(path: &Path, steps: &mut Steps) -> Result<(), End> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| missing(path, &error))?;
    if !metadata.file_type().is_socket() {
        return Err(broken(
            STEP,
            format!("{shown} is {}, not a socket", kind(&metadata)),
            "check the address, or move it away and start the server",
        )
        .into());
    }
    let owner = owner(&metadata);
    // connect(2) needs permission to write.
    if accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_err() {
        return Err(broken(
            STEP,
            format!("{shown} may not be written to by {} ({owner})", this_user()),
            "serve it with a wider mode or another group (samehost serve --mode 0660 --group \
             NAME), or run as another user",
        )
        .into());
    }
    let link = std::fs::read_link(path)
        .map_or(String::new(), |target| format!(", a link to {}", target.display()));
    steps.good(STEP, format!("{shown}{link} ({owner})"))?;
    match lock_holder(path) {
        Some(pid) => steps.good("lock", format!("held by {}", process::described(pid)))?,
        None => steps.unknown("lock", "none is held, so it is not samehost that serves")?,
    }
    Ok(())
}

fn missing(path: &Path, error: &io::Error) -> Broken {
    let shown = path.display();
    if let (Ok(target), io::ErrorKind::NotFound) = (std::fs::read_link(path), error.kind()) {
        return broken(
            STEP,
            format!("{shown} is a link to {}, which does not exist", target.display()),
            "start the server, or mend the link",
        );
    }
    match (error.kind(), lock_holder(path)) {
        (io::ErrorKind::NotFound, Some(pid)) => broken(
            STEP,
            format!(
                "{shown} does not exist, but {} holds its lock: somebody removed the socket of a \
                 live server",
                process::described(pid)
            ),
            "restart that server",
        ),
        (io::ErrorKind::NotFound, None) => broken(
            STEP,
            format!("{shown} does not exist"),
            "start the server, or check the address",
        ),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            broken(STEP, format!("{shown} is a link that leads back to itself"), "mend the link")
        }
        _ => broken(STEP, format!("{shown}: {error}"), "check the address"),
    }
}

/// Returns the process that holds the lock of a socket file, by proc_locks(5). It does not try to
/// lock the file: a server that starts at that moment would believe that another server has the
/// lock.
fn lock_holder(path: &Path) -> Option<u32> {
    let lock = std::fs::metadata(lock_path(path)?).ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    holder(&locks, &lock)
}

/// Returns the lock file `.NAME.lock` beside the socket, or `None` for a long name, whose lock file
/// has a hashed name.
fn lock_path(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    (name.len() <= 64).then(|| path.with_file_name(format!(".{name}.lock")))
}

fn holder(locks: &str, file: &Metadata) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let id = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let fields = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut holders = fields.filter_map(|fields| {
        let is_it = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&id.as_str());
        is_it.then(|| fields.get(4)?.parse().ok())?
    });
    holders.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_found_by_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let lock = std::fs::File::create(lock_path(&path).unwrap()).unwrap();
        assert_eq!(lock_holder(&path), None);
        lock.lock().unwrap();
        assert_eq!(lock_holder(&path), Some(std::process::id()));
        lock.unlock().unwrap();
        assert_eq!(lock_holder(&path), None);
    }
}
