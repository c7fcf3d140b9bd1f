//! The choice among several addresses: a channel uses the first that has a server, and returns to
//! an earlier one later (gRPC's `pick_first`).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::builder::Target;
use super::channel::ChannelCore;
use super::connecting::LastFailure;
use super::link::Link;
use crate::address::Address;
use crate::backoff::{Backoff, jittered};
use crate::socket::ConnectError;

/// How long an address is tried before the next one is tried as well (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// The backoff between searches for a server that is preferred to the one in use.
const RETURN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

impl ChannelCore {
    /// Opens a connection to the first address that has a server.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Link, ConnectError> {
        let pings = self.too_many_pings.load(Ordering::Relaxed);
        match &self.config.target {
            Target::Addresses(addresses) => match &**addresses {
                [address] => self.config.open_address(address, 0, pings, &self.failure).await,
                addresses => self.open_first(addresses, pings).await,
            },
            Target::Connector(connect) => {
                self.config.open_stream(connect, pings, &self.failure).await
            }
            Target::Nowhere(error) => Err(error.clone()),
            // This is never reached: there is nothing to open.
            Target::Stream => Err(ConnectError::connector(std::io::ErrorKind::NotConnected.into())),
        }
    }

    /// Tries the addresses in their order, each with a head start before the next.
    async fn open_first(
        self: &Arc<Self>,
        addresses: &[Arc<Address>],
        pings: u32,
    ) -> Result<Link, ConnectError> {
        let mut attempts = JoinSet::new();
        let mut errors: Vec<Option<ConnectError>> = vec![None; addresses.len()];
        let mut rest = addresses.iter().enumerate();
        loop {
            let started = rest.next().map(|(preference, address)| {
                let (core, address) = (Arc::clone(self), Arc::clone(address));
                attempts.spawn(async move {
                    let (config, failure) = (&core.config, &core.failure);
                    let opened = config.open_address(&address, preference, pings, failure).await;
                    opened.map_err(|error| (preference, error))
                });
            });
            let head_start = async {
                match started {
                    Some(()) if rest.len() > 0 => sleep(HEAD_START).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = attempts.join_next() => match ended {
                    Some(Ok(Ok(link))) => return Ok(link),
                    Some(Ok(Err((preference, error)))) => errors[preference] = Some(error),
                    Some(Err(_)) => {}
                    None => return Err(ConnectError::all(errors.into_iter().flatten())),
                },
                () = head_start => {}
            }
        }
    }

    /// Sends calls to `link` from now on, and to a server that is preferred to it as soon as there
    /// is one.
    pub(super) fn use_link(self: &Arc<Self>, link: Link) -> Arc<Link> {
        let link = Arc::new(link);
        if link.preference > 0 {
            let mut search = JoinSet::new();
            search.spawn(search_preferred(Arc::downgrade(self), Arc::downgrade(&link)));
            link.keep_searching(search);
        }
        self.install(Arc::clone(&link));
        link
    }
}

/// Looks for a server that is preferred to that of `link`, as long as `link` is in use.
async fn search_preferred(channel: Weak<ChannelCore>, link: Weak<Link>) {
    let mut backoff = RETURN;
    loop {
        sleep(jittered(backoff.next())).await;
        let preference = link.upgrade().filter(|link| link.sender.is_open()).map(|l| l.preference);
        let (Some(shared), Some(preference)) = (channel.upgrade(), preference) else { return };
        let pings = shared.too_many_pings.load(Ordering::Relaxed);
        let config = Arc::clone(&shared.config);
        // A search does not keep the channel alive.
        drop(shared);
        let Target::Addresses(addresses) = &config.target else { return };
        let failure = LastFailure::default();
        for (better, address) in addresses[..preference].iter().enumerate() {
            if let Ok(found) = config.open_address(address, better, pings, &failure).await {
                tracing::debug!(%address, "returning to a preferred server");
                // This is the last step, because it may end this very task.
                if let Some(shared) = channel.upgrade() {
                    shared.use_link(found);
                }
                return;
            }
        }
    }
}
