//! [`Connection`]: how one connection of a server is served, from its acceptance to its end.

use std::future::{Future, pending};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Extensions;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::Instrument;

use super::calls::Calls;
use super::incoming::Accepted;
use super::life::Life;
use super::options::{Options, SCARCE_HANDSHAKE_TIMEOUT};
use crate::address::Address;
use crate::driver::{self, Lost, Memory, Socket};
use crate::grpc::Grpc;
use crate::http2::Config;
use crate::observer::{GoAwayReason, Observers};
use crate::socket::PeerIdentity;

/// What a connection is served with.
pub(super) struct Connection {
    pub(super) calls: Calls,
    pub(super) memory: Arc<Memory>,
    pub(super) observers: Option<Observers>,
    pub(super) address: Option<Address>,
    /// Its handshake has to be quick.
    pub(super) scarce: bool,
    /// It is closed soon after its last call.
    pub(super) idle_timeout: Option<Duration>,
}

impl Connection {
    /// Serves it until the client closes it, until its calls have ended after `stopped`, or until it is
    /// too old. `None`: [`Server::on_connect`](crate::Server::on_connect) panicked.
    pub(super) fn serve<T, S>(
        self,
        accepted: Accepted<T>,
        options: &Options,
        stopped: S,
    ) -> Option<impl Future<Output = Result<(), Lost>> + use<T, S>>
    where
        T: Socket,
        S: Future<Output = ()>,
    {
        let Accepted { mut io, peer, any_authority } = accepted;
        let mut extensions = Extensions::new();
        if let Some(on_connect) = &options.on_connect {
            extensions = catch_unwind(AssertUnwindSafe(|| on_connect(&peer)))
                .inspect_err(|_| tracing::error!("on_connect panicked: a connection is closed"))
                .ok()?;
        }
        peer.add_to(&mut extensions);
        let life = Life::begin(self.observers.as_ref(), self.address.as_ref(), &peer);
        let handler = Grpc::new(self.calls, extensions, options.timeout, life.calls());
        let mut http2 = Config { any_authority, ..options.driver.http2 };
        let uid = peer.identity().map(PeerIdentity::uid);
        let takes_descriptors = options
            .descriptors
            .as_ref()
            .is_some_and(|quotas| io.take_descriptors(quotas.of_user(uid)));
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
        let driver = driver::Options { http2, ..options.driver };
        let age = options.max_connection_age.map(jittered);
        let grace = options.max_connection_age_grace;
        let memory = self.memory;
        let span = life.span();
        let stopped = life.announced(GoAwayReason::Shutdown, stopped);
        // Made here and not in the future below, which would hold all of it a second time.
        let serving = match age {
            None => Serving::Ageless(Box::pin(driver::serve(io, handler, driver, memory, stopped))),
            Some(age) => {
                let aged = life.announced(GoAwayReason::MaxAge, sleep(age));
                Serving::Aging(Box::pin(async move {
                    let old = Notify::new();
                    let ended = async {
                        tokio::select! {
                            () = stopped => {}
                            () = aged => old.notify_one(),
                        }
                    };
                    let cut_off = async {
                        old.notified().await;
                        match grace {
                            Some(grace) => sleep(grace).await,
                            None => pending().await,
                        }
                    };
                    tokio::select! {
                        served = driver::serve(io, handler, driver, memory, ended) => served,
                        () = cut_off => {
                            tracing::debug!(?grace, "an old connection's calls were cut off");
                            Ok(())
                        }
                    }
                }))
            }
        };
        let served = async move { life.end(serving.await) };
        Some(served.instrument(span))
    }
}

/// A connection that is served, with an age that ends it or without.
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

/// ±10 %, so that connections that were made together do not end together (gRFC A9).
fn jittered(age: Duration) -> Duration {
    const STEPS: u64 = 2_001;
    // Its keys are random for each.
    let random = RandomState::new().hash_one(()) % STEPS;
    let factor = 0.9 + 0.2 * random as f64 / (STEPS - 1) as f64;
    Duration::try_from_secs_f64(age.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let age = Duration::from_secs(100);
        let ages: Vec<_> = (0..1_000).map(|_| jittered(age).as_millis()).collect();
        assert!(ages.iter().all(|age| (90_000..=110_000).contains(age)), "{ages:?}");
        assert!(ages.iter().any(|age| *age < 92_000) && ages.iter().any(|age| *age > 108_000));
        assert!(jittered(Duration::MAX) >= Duration::MAX / 10 * 8);
    }
}
