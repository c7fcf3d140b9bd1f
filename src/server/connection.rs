//! [`ServedConnection`]: serves one connection from its acceptance to its end.

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Extensions;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::Instrument;

use super::calls::Calls;
use super::incoming::Accepted;
use super::lifecycle::Lifecycle;
use super::notices::Notices;
use super::options::{SCARCE_HANDSHAKE_TIMEOUT, ServerConfig};
use crate::address::Address;
use crate::backoff::varied;
use crate::driver::{self, CloseReason, Ended, LiveHandler, Memory, Owner, Socket};
use crate::grpc::Grpc;
use crate::http2::{Config, Notice};
use crate::observer::Observers;
use crate::socket::{Peer, PeerIdentity};

/// The parts that a connection is served with.
pub(super) struct ServedConnection {
    pub(super) calls: Calls,
    pub(super) memory: Arc<Memory>,
    pub(super) observers: Option<Observers>,
    pub(super) live: LiveHandler,
    pub(super) address: Option<Address>,
    /// Whether few permits are left, so that the handshake must be quick.
    pub(super) scarce: bool,
    /// The longest idle timeout that the connection may have.
    pub(super) idle_timeout: Option<Duration>,
}

impl ServedConnection {
    /// Serves a connection until the client closes it, until its calls have ended after `stopped`,
    /// or until it has reached its maximum age. Returns `None` if
    /// [`Server::on_connect`](crate::Server::on_connect) panicked.
    pub(super) fn serve<T, S>(
        self,
        accepted: Accepted<T>,
        options: &ServerConfig,
        stopped: S,
    ) -> Option<impl Future<Output = Result<(), CloseReason>> + use<T, S>>
    where
        T: Socket,
        S: Future<Output = Notice>,
    {
        let Accepted { mut io, peer, any_authority } = accepted;
        let extensions = extensions(options, &peer)?;
        let uid = peer.identity().map(PeerIdentity::uid);
        let takes_descriptors = options
            .descriptors
            .as_ref()
            .is_some_and(|quotas| io.take_descriptors(quotas.of_connection(uid)));
        let driver = self.driver_options(options, any_authority, takes_descriptors);
        let lifecycle = Lifecycle::begin(self.observers.as_ref(), self.address.as_ref(), &peer);
        let handler = Grpc::new(self.calls, extensions, options.timeout, lifecycle.calls());
        let age = options.max_connection_age.map(varied_age);
        let grace = options.max_connection_age_grace;
        let (user, live) = (self.memory.user(owner(&peer)), self.live);
        let span = lifecycle.span();
        // It is boxed because each future that it is passed on to has room for it twice.
        let (stopped, observer) = (Box::pin(stopped), lifecycle.calls());
        // The futures are made here and not in the future below, which would have room for them
        // twice.
        let serving = match age {
            None => {
                let notices = Notices::without_age(stopped, observer);
                Serving::Ageless(Box::pin(driver::serve(io, handler, driver, user, live, notices)))
            }
            Some(age) => Serving::Aging(Box::pin(async move {
                let old = Notify::new();
                let aged = pin!(async {
                    sleep(age).await;
                    old.notify_one();
                    notice_of_age(grace)
                });
                let notices = Notices::new(stopped, aged, observer);
                tokio::select! {
                    served = driver::serve(io, handler, driver, user, live, notices) => served,
                    () = grace_has_passed(&old, grace) => {
                        tracing::debug!(?grace, "an old connection's calls were cut off");
                        Ok(Ended::Closed)
                    }
                }
            })),
        };
        let served = async move { lifecycle.end(serving.await) };
        Some(served.instrument(span))
    }

    fn driver_options(
        &self,
        options: &ServerConfig,
        any_authority: bool,
        takes_descriptors: bool,
    ) -> driver::Options {
        let mut http2 = Config { any_authority, ..options.driver.http2 };
        if !takes_descriptors {
            http2.descriptors = 0;
        }
        if self.scarce {
            http2.handshake_timeout = http2.handshake_timeout.min(SCARCE_HANDSHAKE_TIMEOUT);
        }
        if let Some(timeout) = self.idle_timeout {
            let earlier = http2.idle_timeout.unwrap_or(timeout);
            http2.idle_timeout = Some(earlier.min(timeout));
        }
        driver::Options { http2, ..options.driver }
    }
}

/// Returns the extensions of a connection's requests, or `None` if `on_connect` panicked.
fn extensions(options: &ServerConfig, peer: &Peer) -> Option<Extensions> {
    let mut extensions = Extensions::new();
    if let Some(on_connect) = &options.on_connect {
        extensions = catch_unwind(AssertUnwindSafe(|| on_connect(peer)))
            .inspect_err(|_| tracing::error!("on_connect panicked: a connection is closed"))
            .ok()?;
    }
    peer.add_to(&mut extensions);
    Some(extensions)
}

/// Returns how much time a client without calls has to see that an old connection ends. Nobody waits for
/// that, but it has to be before the grace is over.
fn notice_of_age(grace: Option<Duration>) -> Notice {
    if grace.is_some_and(|grace| grace <= Notice::LONG) { Notice::Short } else { Notice::Long }
}

/// Completes `grace` after a connection has reached its maximum age.
async fn grace_has_passed(old: &Notify, grace: Option<Duration>) {
    old.notified().await;
    match grace {
        Some(grace) => sleep(grace).await,
        None => pending().await,
    }
}

/// The future that serves a connection, with a maximum age or without.
enum Serving<A, B> {
    Ageless(Pin<Box<A>>),
    Aging(Pin<Box<B>>),
}

impl<A, B> Future for Serving<A, B>
where
    A: Future,
    B: Future<Output = A::Output>,
{
    type Output = A::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<A::Output> {
        match &mut *self {
            Self::Ageless(serving) => serving.as_mut().poll(cx),
            Self::Aging(serving) => serving.as_mut().poll(cx),
        }
    }
}

/// Varies an age by ±10 %, so that connections that began together do not end together (gRFC A9).
fn varied_age(age: Duration) -> Duration {
    varied(age, 0.1)
}

/// Returns the user on whose behalf a connection holds memory.
pub(super) fn owner(peer: &Peer) -> Owner {
    match peer {
        Peer::Unix(identity) => Owner::Uid(identity.uid()),
        Peer::Tcp(_) => Owner::Tcp,
        Peer::Unknown => Owner::Server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let age = Duration::from_secs(100);
        let ages: Vec<_> = (0..1_000).map(|_| varied_age(age).as_millis()).collect();
        assert!(ages.iter().all(|age| (90_000..=110_000).contains(age)), "{ages:?}");
        assert!(ages.iter().any(|age| *age < 92_000) && ages.iter().any(|age| *age > 108_000));
        assert!(varied_age(Duration::MAX) >= Duration::MAX / 10 * 8);
    }
}
