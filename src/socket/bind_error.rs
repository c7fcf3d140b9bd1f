//! [`BindError`]: why an address could not be bound, and what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::address::{Address, AddressParseError, shown_path};

/// Why an address could not be bound. The message names the address and the remedy. `Debug` prints
/// the same text, so that a `main` that returns the error is readable.
#[derive(Clone)]
pub struct BindError(Arc<(Option<Address>, BindProblem)>);

/// What kind of [`BindError`] it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindErrorKind {
    /// What the caller gave is not an address.
    InvalidAddress,
    /// Another process serves this address.
    AlreadyServed,
    /// Another process serves this address, and its socket file was deleted or moved away.
    SocketFileGone,
    /// The server at the address could not be taken over.
    TakeOver,
    /// Another process has this TCP port.
    PortInUse,
    /// Something other than a socket stands at the path. It was not touched.
    NotASocket,
    /// The path names no file: it ends in `/`, `.` or `..`.
    NoFileName,
    /// The socket's directory does not exist.
    NoDirectory,
    /// Others can write to the socket's directory, so they could replace the socket.
    SharedDirectory,
    /// The socket's directory belongs to another user, who could replace the socket.
    ForeignDirectory,
    /// The file at the lock file's name cannot be used as one.
    LockFile,
    /// Other files kept appearing at the path while it was being bound.
    Contended,
    /// There is no such group.
    NoSuchGroup,
    /// The file may not be given to this group.
    GroupRefused,
    /// The mode has bits other than the permission bits 0777.
    InvalidMode,
    /// The address is reachable from other hosts.
    NotLoopback,
    /// The host name could not be resolved.
    Resolve,
    /// This process may not use the directory, a file in it or the port: see
    /// [`BindError::io_error`].
    PermissionDenied,
    /// The path is not valid: it is too long, leads through a file or goes round in a circle.
    InvalidPath,
    /// Another system call failed: see [`BindError::io_error`].
    Io,
}

impl BindError {
    pub(super) fn new(address: &Address, problem: BindProblem) -> Self {
        Self(Arc::new((Some(address.clone()), problem)))
    }

    /// Returns the error for a caller's value that is not an address.
    pub(super) fn invalid(error: &AddressParseError) -> Self {
        Self(Arc::new((None, BindProblem::InvalidAddress { text: error.to_string() })))
    }

    /// Returns the error of a system call that concerns a file.
    pub(super) fn file(
        address: &Address,
        step: &'static str,
        path: &Path,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::new(address, BindProblem::File { step, path: path.to_owned(), source: source.into() })
    }

    /// Returns the error of a system call that concerns no file.
    pub(super) fn io(address: &Address, step: &'static str, source: impl Into<io::Error>) -> Self {
        Self::new(address, BindProblem::Io { step, source: source.into() })
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> BindErrorKind {
        use BindErrorKind as K;
        match self.0.1 {
            BindProblem::InvalidAddress { .. } => K::InvalidAddress,
            BindProblem::AlreadyServed
            | BindProblem::NotOfLock { .. }
            | BindProblem::NoTakeOver { .. }
            | BindProblem::TakenByAnother
            | BindProblem::ControlInUse { .. } => K::AlreadyServed,
            BindProblem::TakeOver { .. }
            | BindProblem::TakeOverForbidden { .. }
            | BindProblem::ForeignServer { .. }
            | BindProblem::ModeRefused { .. }
            | BindProblem::Parts { .. }
            | BindProblem::Adopt { .. } => K::TakeOver,
            BindProblem::SocketFileGone { .. } => K::SocketFileGone,
            BindProblem::PortInUse => K::PortInUse,
            BindProblem::NotASocket { .. } => K::NotASocket,
            BindProblem::ForbiddenSocket { .. } => K::PermissionDenied,
            BindProblem::NoFileName => K::NoFileName,
            BindProblem::NoDirectory { .. } | BindProblem::DirectoryRemoved { .. } => {
                K::NoDirectory
            }
            BindProblem::SharedDirectory { .. } => K::SharedDirectory,
            BindProblem::ForeignDirectory { .. } => K::ForeignDirectory,
            BindProblem::LockFile { .. }
            | BindProblem::NotALockFile { .. }
            | BindProblem::ForeignLockFile { .. }
            | BindProblem::ClosedLockFile { .. } => K::LockFile,
            BindProblem::Contended => K::Contended,
            BindProblem::NoSuchGroup { .. } => K::NoSuchGroup,
            BindProblem::GroupRefused { .. } => K::GroupRefused,
            BindProblem::InvalidMode { .. } => K::InvalidMode,
            BindProblem::NotLoopback { .. } => K::NotLoopback,
            BindProblem::Resolve { .. } => K::Resolve,
            BindProblem::File { ref source, .. } => match Errno::from_io_error(source) {
                Some(Errno::NAMETOOLONG | Errno::NOTDIR | Errno::LOOP) => K::InvalidPath,
                _ => Self::kind_of(source),
            },
            BindProblem::Io { ref source, .. } | BindProblem::Port { ref source } => {
                Self::kind_of(source)
            }
        }
    }

    /// Returns whether a process listens at the address, and nothing more is known of it.
    pub(super) fn is_already_served(&self) -> bool {
        matches!(self.0.1, BindProblem::AlreadyServed)
    }

    /// Returns the kind of any system call's error.
    fn kind_of(error: &io::Error) -> BindErrorKind {
        match error.kind() {
            io::ErrorKind::PermissionDenied => BindErrorKind::PermissionDenied,
            _ => BindErrorKind::Io,
        }
    }

    /// Returns the address that was to be bound, or `None` if what the caller gave is not an
    /// address.
    pub fn address(&self) -> Option<&Address> {
        self.0.0.as_ref()
    }

    /// Returns the system's error if one is the cause. The message includes its text.
    pub fn io_error(&self) -> Option<&io::Error> {
        match &self.0.1 {
            BindProblem::TakeOver { error: source }
            | BindProblem::Resolve { source }
            | BindProblem::ForbiddenSocket { source, .. }
            | BindProblem::File { source, .. }
            | BindProblem::Io { source, .. }
            | BindProblem::Port { source } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, problem) = &*self.0;
        match address {
            Some(address) => write!(f, "{address}{problem}"),
            None => write!(f, "{problem}"),
        }
    }
}

impl fmt::Debug for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for BindError {
    /// Returns the source of [`io_error`](BindError::io_error), which the message includes already.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.io_error()?.source()
    }
}

/// The text that follows the address in the message.
#[derive(thiserror::Error, Debug)]
pub(super) enum BindProblem {
    #[error("{text}")]
    InvalidAddress { text: String },
    #[error(" is already being served: stop that server or choose another address")]
    AlreadyServed,
    #[error(
        ": {} holds the lock but its socket file is gone: stop it, or let it publish the socket \
         again (BindOptions::republish), or choose another address",
        holder(*.pid)
    )]
    SocketFileGone { pid: Option<u32> },
    #[error(
        " is already being served, by a process that does not hold the lock file {}: that file was \
         removed, or the process is another program, so it cannot be taken over: stop it or choose \
         another address",
        shown_path(lock)
    )]
    NotOfLock { lock: PathBuf },
    #[error(
        " is already being served, and no process listens on the control socket {}: that server permits \
         no take-over (BindOptions::allow_take_over), or the file was removed: stop that server or choose \
         another address",
        shown_path(control)
    )]
    NoTakeOver { control: PathBuf },
    #[error(
        ": another process listens on {}, where the control socket of this address belongs: stop it or \
         choose another address",
        shown_path(control)
    )]
    ControlInUse { control: PathBuf },
    #[error(
        " is already being served: another process is taking that server over, or just has: try again \
         if it should be replaced, too"
    )]
    TakenByAnother,
    #[error(": the server there could not be taken over: {error}: stop that server")]
    TakeOver { error: io::Error },
    #[error(": the server there, pid {pid}, refuses to be taken over: {why}")]
    TakeOverForbidden { pid: i32, why: &'static str },
    #[error(
        ": the server there runs as uid {uid}, neither this process's user nor root: only a server of \
         the same user can be taken over"
    )]
    ForeignServer { uid: u32 },
    #[error(
        ": the socket has mode {mode:04o} and belongs to uid {owner}, who alone could change that: \
         ask for this mode (BindOptions::mode)"
    )]
    ModeRefused { mode: u32, owner: u32 },
    #[error(": a server's socket cannot be taken over: {what}")]
    Adopt { what: &'static str },
    #[error(": {text}")]
    Parts { text: String },
    #[error(": the port is in use: stop that server or choose another port")]
    PortInUse,
    #[error(": there is {kind} at {}: move it away or choose another path", shown_path(path))]
    NotASocket { path: PathBuf, kind: &'static str },
    #[error(
        ": {} is a socket of uid {owner} that this process may not {step} ({source}): choose another \
         path, or have it removed",
        shown_path(path)
    )]
    ForbiddenSocket { step: &'static str, path: PathBuf, owner: u32, source: io::Error },
    #[error(": the path must end in a file name, such as app.sock")]
    NoFileName,
    #[error(": the directory {} does not exist: create it first", shown_path(.0))]
    NoDirectory(PathBuf),
    #[error(
        ": the directory {} was removed: create it again and enter it, or choose another path",
        shown_path(.0)
    )]
    DirectoryRemoved(PathBuf),
    #[error(
        ": others can write to the directory {} (mode {mode:04o}): run `chmod {remedy} {}` or set \
         BindOptions::allow_shared_directory",
        shown_path(directory),
        shown_path(directory)
    )]
    SharedDirectory { directory: PathBuf, mode: u32, remedy: &'static str },
    #[error(
        ": the directory {} is owned by uid {owner}, neither this process's user nor root: use a \
         directory of your own or set BindOptions::allow_shared_directory",
        shown_path(directory)
    )]
    ForeignDirectory { directory: PathBuf, owner: u32 },
    #[error(
        ": the lock file {} {problem}: remove it if no server of that address is running",
        shown_path(path)
    )]
    LockFile { path: PathBuf, problem: String },
    #[error(
        ": {} is where the lock file of this address belongs, and it is another file, since it \
         holds something else than a process id: move it away or choose another address",
        shown_path(path)
    )]
    NotALockFile { path: PathBuf },
    #[error(
        ": the lock file {} is owned by uid {owner}: run this process as that user, also to take over \
         from its server; or remove the file if no server of that address is running",
        shown_path(path)
    )]
    ForeignLockFile { path: PathBuf, owner: u32 },
    #[error(
        ": the lock file {} has mode {mode:04o}, so that its owner, this process's user, cannot open \
         it: run `chmod 0600 {}`, or remove the file if no server of that address is running",
        shown_path(path),
        shown_path(path)
    )]
    ClosedLockFile { path: PathBuf, mode: u32 },
    #[error(": another program keeps replacing this file: stop it or choose another path")]
    Contended,
    #[error(": there is no group {name:?}: create it or give its number")]
    NoSuchGroup { name: String },
    #[error(
        ": the socket cannot be given to group {group}: run as a member of it, or with the capability \
         CAP_CHOWN, as root has it in most cases"
    )]
    GroupRefused { group: u32 },
    #[error(": mode {mode:o} is no permission mode: give one from 0 to 0777, such as 0660")]
    InvalidMode { mode: u32 },
    #[error(
        ": other hosts may reach {resolved}, and it is in plain text: bind 127.0.0.1, or set \
         BindOptions::allow_remote"
    )]
    NotLoopback { resolved: SocketAddr },
    #[error(": the host name cannot be resolved ({source}): check it or give an IP address")]
    Resolve { source: io::Error },
    #[error(": could not {step} {}: {source}{}", shown_path(path), file_remedy(source))]
    File { step: &'static str, path: PathBuf, source: io::Error },
    #[error(": could not {step}: {source}{}", remedy(source))]
    Io { step: &'static str, source: io::Error },
    #[error(": could not bind the port: {source}{}", port_remedy(source))]
    Port { source: io::Error },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"))
}

/// Returns the remedy for an error of a system call that concerns a file.
fn file_remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind as K;
    match error.kind() {
        K::PermissionDenied => ": use a directory that this process may write to",
        K::NotFound => ": use a directory where files can be made, and mount /proc",
        K::ReadOnlyFilesystem => ": choose a path on a file system that can be written to",
        K::StorageFull | K::QuotaExceeded => ": free some space or choose another file system",
        K::NotADirectory => ": part of the path is a file; choose another path",
        _ if Errno::from_io_error(error) == Some(Errno::LOOP) => {
            ": symbolic links lead round in a circle; choose another path"
        }
        K::InvalidFilename => ": choose a shorter path",
        _ => remedy(error),
    }
}

/// Returns the remedy for an error of binding a TCP port.
fn port_remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind as K;
    match error.kind() {
        // ip(7), ip_unprivileged_port_start.
        K::PermissionDenied => {
            ": a port below 1024 takes root or the capability CAP_NET_BIND_SERVICE; choose a higher port"
        }
        K::AddrNotAvailable => ": this host has no such address; use 127.0.0.1",
        _ => remedy(error),
    }
}

/// Returns the remedy for an error that any system call may have.
fn remedy(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            ": allow this process more file descriptors (ulimit -n) or close some"
        }
        Some(Errno::NFILE) => ": the host is out of file descriptors; raise fs.file-max",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_the_message_and_a_cause_in_the_message_is_no_source() {
        let address: Address = "127.0.0.1:80".parse().unwrap();
        let source = io::Error::from_raw_os_error(13);
        let error = BindError::new(&address, BindProblem::Port { source });
        let text = error.to_string();
        assert_eq!(format!("{error:?}"), text);
        assert!(text.starts_with("127.0.0.1:80: could not bind the port: Permission denied"));
        assert!(text.contains("below 1024") && !text.contains("directory"), "{text}");
        assert_eq!(error.kind(), BindErrorKind::PermissionDenied);
        assert_eq!(error.io_error().unwrap().raw_os_error(), Some(13));
        assert!(error.source().is_none());
    }

    #[test]
    fn the_kind_follows_from_the_systems_error() {
        use BindErrorKind as K;
        let address: Address = "unix:/run/app.sock".parse().unwrap();
        for (errno, kind) in [
            (Errno::ACCESS, K::PermissionDenied),
            (Errno::PERM, K::PermissionDenied),
            (Errno::NAMETOOLONG, K::InvalidPath),
            (Errno::NOTDIR, K::InvalidPath),
            (Errno::LOOP, K::InvalidPath),
            (Errno::ROFS, K::Io),
        ] {
            let error = BindError::file(&address, "open", Path::new("/run"), errno);
            assert_eq!(error.kind(), kind, "{error}");
            assert_eq!(error.io_error().and_then(Errno::from_io_error), Some(errno));
        }
        let denied = BindError::io(&address, "listen", Errno::ACCESS);
        assert_eq!(denied.kind(), K::PermissionDenied);
    }
}
