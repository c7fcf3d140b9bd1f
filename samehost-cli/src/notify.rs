//! What `serve` tells a service manager such as systemd (sd_notify(3)). Where nobody listens
//! (`NOTIFY_SOCKET` is not set), nothing is told.

use std::future;
use std::time::Duration;

use sd_notify::NotifyState;

/// It serves. Who has taken over is the service's main process from now on, which its manager did not
/// start as such.
pub(crate) fn ready(has_taken_over: bool) {
    let ready = [NotifyState::Ready, NotifyState::MainPid(std::process::id())];
    tell(if has_taken_over { &ready } else { &ready[..1] });
}

/// It stops, and its successor is not on the way.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Gives a sign of life as often as the manager asks for (`WATCHDOG_USEC`): in half of its time. The
/// sign comes from the runtime that serves.
pub(crate) async fn watchdog() {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return future::pending().await };
    let mut ticks = tokio::time::interval((timeout / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // A manager that has gone changes nothing for those who are served.
    let _ = sd_notify::notify(states);
}
