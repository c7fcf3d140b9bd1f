//! [`Who`]: a peer as the log names it.

use crate::socket::PeerIdentity;

/// A peer's user, group and process, as far as they are known.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) pid: Option<u32>,
    /// The name that the process has given itself, with what is no printable ASCII escaped. It is a hint
    /// alone: the process may choose it, and its number may be another process's by now.
    pub(super) command: Option<String>,
}

impl Who {
    /// Looks the command up (`/proc/PID/comm`, proc_pid_comm(5)): for events that are logged.
    pub(super) fn of(peer: Option<&PeerIdentity>) -> Self {
        let pid = peer.and_then(PeerIdentity::pid);
        let command = pid.and_then(|pid| std::fs::read(format!("/proc/{pid}/comm")).ok());
        Self {
            uid: peer.map(PeerIdentity::uid),
            gid: peer.map(PeerIdentity::gid),
            pid,
            command: command.map(|name| name.trim_ascii_end().escape_ascii().to_string()),
        }
    }
}
