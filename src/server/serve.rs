//! The accept loops: from listeners to connections, and from the shutdown signal to the end of
//! the last connection.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Extensions;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::calls::Calls;
use super::limits::{Limits, Place};
use super::{Options, driver};
use crate::driver::Memory;
use crate::grpc::Grpc;
use crate::http2::Config;
use crate::policy::Throttle;
use crate::socket::{ACCEPT_BACKOFF, Conn, Listener, PeerIdentity};

/// How many connections are accepted after the shutdown signal, at most: as many as can wait in the
/// queue by default. New TCP clients could go on coming.
const QUEUE_MAX: u32 = 4096;

/// Refused connections that are logged in a second.
const REFUSALS_LOGGED: u32 = 100;

/// A drain without a deadline has one as far away as this.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Serves all listeners until `shutdown` completes and then drains.
pub(super) async fn serve(
    calls: Calls,
    options: Options,
    listeners: Vec<Listener>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = watch::channel(false);
    let gate = Arc::new(Gate {
        limits: Limits::new(options.max_connections, options.max_connections_per_uid),
        memory: Memory::new(options.max_buffered),
        failures: Throttle::new(1),
        full: Throttle::new(1),
        refusals: Throttle::new(REFUSALS_LOGGED),
        options,
    });
    let mut loops = JoinSet::new();
    for listener in listeners {
        let (calls, gate, stopped) = (calls.clone(), Arc::clone(&gate), stopped.clone());
        let connections = JoinSet::new();
        loops.spawn(Acceptor { calls, gate, stopped, connections }.run(listener));
    }
    shutdown.await;
    stop.send_replace(true);
    while loops.join_next().await.is_some() {}
}

/// Waits for the shutdown signal, and knows one that came before.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the server.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// What a server's listeners share.
struct Gate {
    options: Options,
    limits: Arc<Limits>,
    memory: Arc<Memory>,
    /// Of accept.
    failures: Throttle,
    full: Throttle,
    refusals: Throttle,
}

impl Gate {
    /// Whether the policy lets the connection in. One of an unknown peer it never does.
    fn lets_in(&self, conn: &Conn, listener: &Listener) -> bool {
        let Some(policy) = &self.options.policy else { return true };
        let peer = conn.peer_identity();
        let allowed = peer.is_some_and(|peer| policy.allows(peer));
        if !allowed && let Some(unlogged) = self.refusals.pass(now()) {
            let (uid, gid, pid) = numbers(peer);
            let address = listener.local_addr();
            tracing::warn!(%address, uid, gid, pid, unlogged, "a connection was refused by policy");
        }
        allowed
    }

    fn log_full(&self, why: &'static str, conn: &Conn, listener: &Listener) {
        if let Some(unlogged) = self.full.pass(now()) {
            let (uid, gid, pid) = numbers(conn.peer_identity());
            let address = listener.local_addr();
            tracing::warn!(%address, uid, gid, pid, unlogged, "a connection was turned away: {why}");
        }
    }

    fn log_failure(&self, error: &io::Error, listener: &Listener) {
        if let Some(unlogged) = self.failures.pass(now()) {
            tracing::warn!(address = %listener.local_addr(), %error, unlogged, "accept failed");
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// A peer's user, group and process for the log.
fn numbers(peer: Option<&PeerIdentity>) -> (Option<u32>, Option<u32>, Option<u32>) {
    (peer.map(PeerIdentity::uid), peer.map(PeerIdentity::gid), peer.and_then(PeerIdentity::pid))
}

struct Acceptor {
    calls: Calls,
    gate: Arc<Gate>,
    stopped: watch::Receiver<bool>,
    connections: JoinSet<()>,
}

impl Acceptor {
    async fn run(mut self, mut listener: Listener) {
        let mut backoff = ACCEPT_BACKOFF;
        loop {
            tokio::select! {
                biased;
                () = told_to_stop(&mut self.stopped) => break,
                Some(_) = self.connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok(conn) => {
                        backoff.reset();
                        self.welcome(conn, &listener).await;
                    }
                    Err(error) => {
                        self.gate.log_failure(&error, &listener);
                        tokio::select! {
                            () = told_to_stop(&mut self.stopped) => break,
                            () = sleep(backoff.next()) => {}
                        }
                    }
                },
            }
        }
        let drain = self.gate.options.drain_timeout.min(FAR);
        let deadline = Instant::now() + drain;
        listener.unpublish();
        for _ in 0..QUEUE_MAX {
            match listener.accept_queued() {
                Ok(Some(conn)) => self.welcome(conn, &listener).await,
                Ok(None) => break,
                Err(error) => {
                    self.gate.log_failure(&error, &listener);
                    break;
                }
            }
        }
        let address = listener.local_addr().clone();
        drop(listener);
        let Self { mut connections, .. } = self;
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout_at(deadline, drained).await.is_err() {
            let connections = connections.len();
            tracing::warn!(%address, connections, "cut off at the drain deadline");
        }
    }

    /// Serves a connection that may come in and for which there is a place.
    async fn welcome(&mut self, conn: Conn, listener: &Listener) {
        if !self.gate.lets_in(&conn, listener) {
            return;
        }
        match self.gate.limits.place(conn.peer_identity().map(PeerIdentity::uid)) {
            Ok(place) => self.spawn(conn, place),
            Err(why) => {
                self.gate.log_full(why, &conn, listener);
                driver::turn_away(conn, why).await;
            }
        }
    }

    fn spawn(&mut self, conn: Conn, place: Place) {
        let mut extensions = Extensions::new();
        if let Some(peer) = conn.peer() {
            peer.add_to(&mut extensions);
        }
        let handler = Grpc::new(self.calls.clone(), extensions);
        let driver = self.gate.options.driver;
        let http2 = Config { any_authority: conn.is_unix(), ..driver.http2 };
        let options = driver::Options { http2, ..driver };
        let memory = Arc::clone(&self.gate.memory);
        let mut stopped = self.stopped.clone();
        let stopped = async move { told_to_stop(&mut stopped).await };
        let served = driver::serve(conn, handler, options, memory, stopped);
        self.connections.spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection failed");
            }
            drop(place);
        });
    }
}
