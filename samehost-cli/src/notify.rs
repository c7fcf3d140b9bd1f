//! Notifies a service manager such as systemd of the state of `serve` (sd_notify(3)). Does nothing
//! without a manager (`NOTIFY_SOCKET` is not set).
//!
//! The crate `sd-notify` would take the name of an abstract socket for that of a file.

use std::ffi::OsStr;
use std::future;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Reports that the server is ready. A server that may have taken over also reports that it is the
/// service's main process: if it has, the manager did not start it as such.
pub(crate) fn ready(may_have_taken_over: bool) {
    if may_have_taken_over {
        tell(&format!("READY=1\nMAINPID={}\n", std::process::id()));
    } else {
        tell("READY=1\n");
    }
}

/// Reports that the server stops and has no successor. Only the first call does.
pub(crate) fn stopping() {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if !IS_TOLD.swap(true, Ordering::Relaxed) {
        tell("STOPPING=1\n");
    }
}

/// Reports twice in each watchdog period of the manager (`WATCHDOG_USEC`) that the server is alive.
/// The reports come from the runtime that serves. The server has to be ready before.
pub(crate) async fn watchdog() {
    // A period of zero is none (sd_watchdog_enabled(3)).
    let period = sd_notify::watchdog_enabled().filter(|period| !period.is_zero());
    let Some(period) = period else { return future::pending().await };
    let mut ticks = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        tell("WATCHDOG=1\n");
    }
}

/// Sends a message to the manager. If that fails, the server goes on, and the first failure is
/// logged.
fn tell(message: &str) {
    static IS_LOGGED: AtomicBool = AtomicBool::new(false);
    let manager = std::env::var_os("NOTIFY_SOCKET").filter(|manager| !manager.is_empty());
    let Some(manager) = manager else { return };
    if let Err(error) = send(&manager, message)
        && !IS_LOGGED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(socket = ?manager, %error, "NOTIFY_SOCKET: the service manager is not told");
    }
}

fn send(manager: &OsStr, message: &str) -> io::Result<()> {
    let address = match manager.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(manager)?,
        _ => {
            let text = "it is neither a path from / on nor @ and the name of an abstract socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(drop)
}
