//! Which names a process has: what the kernel says of it is compared with the registrations.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use samehost::PeerIdentity;
use samehost::tonic::{Extensions, Status};

/// What a process has to be to have a name.
pub struct Registration {
    selector: Selector,
    name: String,
}

enum Selector {
    Uid(u32),
    Gid(u32),
    /// The program that it runs, by the path of its file.
    Exe(PathBuf),
}

impl FromStr for Registration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (selector, name) = text.rsplit_once('=')?;
            let selector = match selector.split_once(':')? {
                ("uid", uid) => Selector::Uid(uid.parse().ok()?),
                ("gid", gid) => Selector::Gid(gid.parse().ok()?),
                ("exe", path) => Selector::Exe(path.into()),
                _ => return None,
            };
            Some(Self { selector, name: name.into() })
        };
        parsed().ok_or(format!("{text:?}: write uid:1000=name, gid:1000=name or exe:/path=name"))
    }
}

/// Returns the names of the process that made a request with these extensions.
pub fn names(of: &Extensions, registered: &[Registration]) -> Result<Vec<String>, Status> {
    let peer = of.get::<PeerIdentity>();
    let peer = peer.ok_or_else(|| Status::permission_denied("ask over a Unix socket"))?;
    // A user whom this user namespace does not know shows as one that anybody may be.
    if !peer.has_known_user() {
        return Err(Status::permission_denied("the kernel does not tell who you are"));
    }
    let mut exe = None;
    if registered.iter().any(|one| matches!(one.selector, Selector::Exe(_))) {
        exe = program(peer)?;
    }
    let matches = |one: &&Registration| match &one.selector {
        Selector::Uid(uid) => *uid == peer.uid(),
        Selector::Gid(gid) => *gid == peer.gid() || peer.groups().is_ok_and(|g| g.contains(gid)),
        Selector::Exe(path) => exe.as_ref() == Some(path),
    };
    Ok(registered.iter().filter(matches).map(|one| one.name.clone()).collect())
}

/// Returns the file of the program that `peer` runs, if /proc tells.
///
/// A process id alone says nothing for certain: the process may have ended, and its number be
/// another's. The pidfd is of the process that connected (unix(7), SO_PEERPIDFD): if that one still
/// runs after the look at /proc, the number was its own all the while.
fn program(peer: &PeerIdentity) -> Result<Option<PathBuf>, Status> {
    let (Some(pid), Ok(pidfd)) = (peer.pid(), peer.pidfd()) else {
        return Ok(None);
    };
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
    // A pidfd is readable once its process has ended (pidfd_open(2)).
    let mut ended = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    match poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(0) => Ok(exe),
        _ => Err(Status::permission_denied("the process that connected has ended")),
    }
}
