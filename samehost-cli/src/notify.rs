//! Notifies a service manager such as systemd of the state of `serve` (sd_notify(3)). Does nothing
//! without a manager (`NOTIFY_SOCKET` is not set).
//!
//! The crate `sd-notify` would take the name of an abstract socket for that of a file.

use std::ffi::{OsStr, OsString};
use std::future;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a message that is sent once is tried while the manager does not read.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the end of the server waits for messages that the manager has not taken.
const PATIENCE_AT_END: Duration = Duration::from_secs(1);

/// What the manager is told once. A task sends it in order, so that a manager that does not read
/// holds up neither calls nor signals.
pub(crate) struct Messages {
    queue: mpsc::UnboundedSender<String>,
    task: JoinHandle<()>,
}

impl Messages {
    /// Starts the task. It must be called on a tokio runtime.
    pub(crate) fn new() -> Self {
        let (queue, mut queued) = mpsc::unbounded_channel::<String>();
        let task = tokio::spawn(async move {
            while let Some(message) = queued.recv().await {
                let sent = timeout(PATIENCE, send(&message)).await;
                log_failure(sent.unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into())));
            }
        });
        Self { queue, task }
    }

    /// Reports that the server is ready. A server that may have taken over also reports that it is
    /// the service's main process: if it has, the manager did not start it as such.
    pub(crate) fn ready(&self, may_have_taken_over: bool) {
        self.tell(if may_have_taken_over {
            format!("READY=1\nMAINPID={}\n", std::process::id())
        } else {
            "READY=1\n".to_owned()
        });
    }

    /// Reports that the server stops and has no successor. Only the first call does.
    pub(crate) fn stopping(&self) {
        static IS_TOLD: AtomicBool = AtomicBool::new(false);
        if !IS_TOLD.swap(true, Ordering::Relaxed) {
            self.tell("STOPPING=1\n".to_owned());
        }
    }

    fn tell(&self, message: String) {
        // The task ends after `end` only.
        let _ = self.queue.send(message);
    }

    /// Waits until all has been sent, though not for long.
    pub(crate) async fn end(self) {
        drop(self.queue);
        if timeout(PATIENCE_AT_END, self.task).await.is_err() {
            log_failure(Err(io::ErrorKind::WouldBlock.into()));
        }
    }
}

/// Reports twice in each watchdog period of the manager (`WATCHDOG_USEC`) that the server is alive.
/// The reports come from the runtime that serves. The server has to be ready before. A report is left
/// out while the manager does not read.
pub(crate) async fn watchdog() {
    // A period of zero is none (sd_watchdog_enabled(3)).
    let period = sd_notify::watchdog_enabled().filter(|period| !period.is_zero());
    let Some(period) = period else { return future::pending().await };
    let mut ticks = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        log_failure(send_now("WATCHDOG=1\n"));
    }
}

/// Sends a message to the manager, and waits while its queue is full. Without a manager it does
/// nothing.
async fn send(message: &str) -> io::Result<()> {
    let Some(manager) = manager() else { return Ok(()) };
    let socket = tokio::net::UnixDatagram::from_std(connected(&manager)?)?;
    socket.send(message.as_bytes()).await.map(drop)
}

/// Does the same as `send`, but fails if the manager's queue is full.
fn send_now(message: &str) -> io::Result<()> {
    let Some(manager) = manager() else { return Ok(()) };
    connected(&manager)?.send(message.as_bytes()).map(drop)
}

/// Logs the first failure of all. The server goes on.
fn log_failure(sent: io::Result<()>) {
    static IS_LOGGED: AtomicBool = AtomicBool::new(false);
    let Err(error) = sent else { return };
    if IS_LOGGED.swap(true, Ordering::Relaxed) {
        return;
    }
    let error = match error.kind() {
        io::ErrorKind::WouldBlock => "it does not read, and its queue is full".to_owned(),
        _ => error.to_string(),
    };
    let socket = manager().unwrap_or_default();
    tracing::warn!(?socket, %error, "NOTIFY_SOCKET: the service manager is not told");
}

/// Returns the manager's socket.
fn manager() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|manager| !manager.is_empty())
}

/// Returns a socket that does not block and sends to the manager. Only a connected one is told when
/// there is room in the manager's queue again.
fn connected(manager: &OsStr) -> io::Result<UnixDatagram> {
    let address = match manager.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(manager)?,
        _ => {
            let text = "it is neither a path from / on nor @ and the name of an abstract socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}
