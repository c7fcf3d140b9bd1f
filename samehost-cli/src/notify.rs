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
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// How long a message that is sent once is tried while the manager does not read.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the end of the server waits for messages that the manager has not taken.
const PATIENCE_AT_END: Duration = Duration::from_secs(1);

/// A task tells the manager, so that one that does not read holds up neither calls nor signals.
pub(crate) struct Manager {
    /// What it is told once, in order.
    messages: mpsc::UnboundedSender<String>,
    task: JoinHandle<()>,
}

/// Reports that the server is ready, and from then on that it is alive. A server that may have taken
/// over also reports that it is the service's main process: if it has, the manager did not start it
/// as such.
pub(crate) async fn ready(may_have_taken_over: bool) -> Manager {
    let (messages, queue) = mpsc::unbounded_channel();
    let manager = Manager { messages, task: tokio::spawn(tell_all(queue)) };
    manager.tell(if may_have_taken_over {
        format!("READY=1\nMAINPID={}\n", std::process::id())
    } else {
        "READY=1\n".to_owned()
    });
    // On one thread the task runs now: a server that was taken over may exit soon.
    tokio::task::yield_now().await;
    manager
}

impl Manager {
    /// Reports that the server stops and has no successor. Only the first call does.
    pub(crate) fn stopping(&self) {
        static IS_TOLD: AtomicBool = AtomicBool::new(false);
        if !IS_TOLD.swap(true, Ordering::Relaxed) {
            self.tell("STOPPING=1\n".to_owned());
        }
    }

    fn tell(&self, message: String) {
        // The task ends after `end` only.
        let _ = self.messages.send(message);
    }

    /// Waits until all has been sent, though not for long.
    pub(crate) async fn end(self) {
        drop(self.messages);
        if timeout(PATIENCE_AT_END, self.task).await.is_err() {
            log_failure(Err(io::ErrorKind::WouldBlock.into()));
        }
    }
}

/// Sends the messages. After the first one it also reports twice in each watchdog period of the
/// manager that the server is alive. Such a report is left out while the manager does not read. All
/// comes from the runtime that serves.
async fn tell_all(mut queue: mpsc::UnboundedReceiver<String>) {
    let mut ticks = None;
    loop {
        let message = tokio::select! {
            biased;
            message = queue.recv() => message,
            () = next_tick(&mut ticks) => {
                log_failure(send_now("WATCHDOG=1\n"));
                continue;
            }
        };
        let Some(message) = message else { return };
        let sent = timeout(PATIENCE, send(&message)).await;
        log_failure(sent.unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into())));
        ticks = ticks.or_else(watchdog);
    }
}

async fn next_tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => future::pending().await,
    }
}

/// Returns a timer with half of the manager's watchdog period (`WATCHDOG_USEC`).
fn watchdog() -> Option<Interval> {
    // A period of zero is none (sd_watchdog_enabled(3)).
    let period = sd_notify::watchdog_enabled().filter(|period| !period.is_zero())?;
    let mut ticks = interval((period / 2).max(Duration::from_millis(1)));
    // Reports that are late are not sent one after the other.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(ticks)
}

/// Sends a message to the manager, and waits while its queue is full.
async fn send(message: &str) -> io::Result<()> {
    match send_now(message) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        sent => return sent,
    }
    let Some(manager) = socket_name() else { return Ok(()) };
    let socket = tokio::net::UnixDatagram::from_std(connected(&manager)?)?;
    socket.send(message.as_bytes()).await.map(drop)
}

/// Sends a message to the manager, and fails if its queue is full. Without a manager it does nothing.
fn send_now(message: &str) -> io::Result<()> {
    let Some(manager) = socket_name() else { return Ok(()) };
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
    let socket = socket_name().unwrap_or_default();
    tracing::warn!(?socket, %error, "NOTIFY_SOCKET: the service manager is not told");
}

/// Returns the name of the manager's socket.
fn socket_name() -> Option<OsString> {
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
