//! Notifies a service manager such as systemd of the state of `serve` (sd_notify(3)). Does nothing
//! without a manager (`NOTIFY_SOCKET` is not set).

use std::future;
use std::time::Duration;

use sd_notify::NotifyState;

/// Reports that the server is ready. A server that may have taken over also reports that it is the
/// service's main process: if it has, the manager did not start it as such.
pub(crate) fn ready(may_have_taken_over: bool) {
    let ready = [NotifyState::Ready, NotifyState::MainPid(std::process::id())];
    tell(if may_have_taken_over { &ready } else { &ready[..1] });
}

/// Reports that the server stops and has no successor.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Reports twice in each watchdog period of the manager (`WATCHDOG_USEC`) that the server is alive.
/// The reports come from the runtime that serves.
pub(crate) async fn watchdog() {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return future::pending().await };
    let mut ticks = tokio::time::interval((timeout / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // If the manager is gone, the server goes on.
    let _ = sd_notify::notify(states);
}
