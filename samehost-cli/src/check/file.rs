//! Checks the file at the path of a socket: whether it is a socket, whether this user may connect
//! to it, and who holds its lock.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::lock::Lock;
use super::path::{kind, owner, this_user};
use super::{Broken, End, Steps, broken};

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
    let lock = Lock::of(path);
    match (lock.holder(), lock) {
        (Some(holder), _) => steps.good("lock", format!("held by {holder}"))?,
        (None, Lock::Unseen(why)) => steps.unknown("lock", why)?,
        (None, _) => steps.unknown(
            "lock",
            "there is no lock file, so another program bound the socket, such as systemd",
        )?,
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
    match (error.kind(), Lock::of(path).holder()) {
        (io::ErrorKind::NotFound, Some(holder)) => broken(
            STEP,
            format!(
                "{shown} does not exist, but {holder} holds its lock: somebody removed the socket of a \
                 live server"
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
