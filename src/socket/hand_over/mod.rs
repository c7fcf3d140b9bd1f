//! How a listening socket passes from one process to its successor, so that there is always a
//! process that listens. Nothing on disk changes: the socket file's inode stays, and so does the
//! lock.
//!
//! The server that permits it answers on a control socket beside the socket file. A lock of flock(2)
//! belongs to the open file description, so it passes with its descriptor (unix(7), SCM_RIGHTS).
//!
//! ```text
//!  successor                                predecessor
//!  request, with the lock file opened
//!  for writing           ---------------->  checks the user, and that the descriptor is its lock file
//!                        <----------------  offer: a nonce and the descriptors
//!  checks them, and whether it
//!  can serve with them
//!  acknowledgement: the nonce ----------->  accepts no more connections, keeps its files as they are,
//!  listens again, serves                    does not unlock, drains
//! ```
//!
//! The acknowledgement is the commit. Whether it was sent decides for both ends. If a predecessor
//! runs out of patience, or is told to stop, it first makes the successor's send fail
//! (shutdown(2)). Then it looks for an acknowledgement that came before. So exactly one of the two
//! is responsible at each moment. If one is killed before the commit, the other one serves. After
//! the commit, a crash of the successor is like any crash.

mod message;
mod offer;
mod predecessor;
mod successor;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Signal, geteuid, getpid, kill_process};

use super::identity::is_known_user;

pub(super) use message::Parts;
pub(super) use offer::{ControlSocket, Offer};
pub(super) use predecessor::answer;
pub(super) use successor::{TakeOver, ask};

/// How long each end waits for the other one's next message.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns whether the process at the other end may take part in a hand-over: its user is this
/// process's own, or root. If this process's namespace does not know a user, it shows as "nobody".
/// Such a user is never trusted, even if this process itself runs as "nobody" (user_namespaces(7)).
fn is_trusted(uid: u32) -> bool {
    is_own_or_root(uid, geteuid().as_raw())
}

fn is_own_or_root(uid: u32, own: u32) -> bool {
    is_known_user(uid) && (uid == own || uid == 0)
}

/// Marks a step at which a test may stop the process, to kill it or its peer there. The variable
/// `SAMEHOST_STOP_AT` has the steps in their order. It does nothing in release builds.
pub(super) fn step(name: &str) {
    static STOPS: AtomicUsize = AtomicUsize::new(0);
    if cfg!(debug_assertions)
        && let Ok(steps) = std::env::var("SAMEHOST_STOP_AT")
        && steps.split(',').nth(STOPS.load(Ordering::Relaxed)) == Some(name)
    {
        STOPS.fetch_add(1, Ordering::Relaxed);
        let _ = kill_process(getpid(), Signal::STOP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_and_root_have_a_part_and_an_unknown_one_never() {
        assert!(is_own_or_root(1000, 1000));
        assert!(is_own_or_root(0, 1000));
        assert!(!is_own_or_root(1001, 1000));
        assert!(!is_own_or_root(1000, 0));
        assert!(!is_own_or_root(65_534, 65_534));
        assert!(!is_own_or_root(u32::MAX, u32::MAX));
    }
}
