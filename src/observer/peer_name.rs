//! [`PeerName`]: names a peer in the log.

use crate::socket::PeerIdentity;

/// A peer's user, group and process, as far as they are known.
#[derive(Debug)]
pub(crate) struct PeerName {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) pid: Option<u32>,
    /// The name that the process has given itself. Bytes that are not printable ASCII are escaped.
    /// It is only a hint: the process chooses its name, and another process may have its pid by
    /// now.
    pub(crate) command: Option<String>,
}

impl PeerName {
    /// Reads the command from `/proc/PID/comm` (proc_pid_comm(5)), which is only worth it for an
    /// event that is logged.
    pub(crate) fn of(peer: Option<&PeerIdentity>) -> Self {
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
