//! The choice among several addresses: a channel uses the first that has a server, and returns to
//! an earlier one later (gRPC's `pick_first`).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::builder::{ChannelBuilder, Target};
use super::channel::ChannelCore;
use super::connecting::{LastFailure, WAITING};
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
                addresses => open_first(&self.config, addresses, pings, &self.failure).await,
            },
            Target::Connector(connect) => {
                self.config.open_stream(connect, pings, &self.failure).await
            }
            Target::Nowhere(error) => Err(error.clone()),
            // This is never reached: there is nothing to open.
            Target::Stream => Err(ConnectError::connector(std::io::ErrorKind::NotConnected.into())),
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

/// Tries the addresses in their order, each with a head start before the next. One that has failed is
/// tried again as long as another may still answer: that may take as long as the connect timeout.
async fn open_first(
    config: &Arc<ChannelBuilder>,
    addresses: &[Arc<Address>],
    pings: u32,
    failure: &Arc<LastFailure>,
) -> Result<Link, ConnectError> {
    let open = |preference: usize, wait: Duration| {
        let (config, failure) = (Arc::clone(config), Arc::clone(failure));
        let address = Arc::clone(&addresses[preference]);
        async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            let opened = config.open_address(&address, preference, pings, &failure).await;
            opened.map_err(|error| (preference, error))
        }
    };
    let mut attempts = JoinSet::new();
    let mut errors: Vec<Option<ConnectError>> = vec![None; addresses.len()];
    let mut backoffs = vec![WAITING; addresses.len()];
    let mut begun = 0;
    loop {
        if begun < addresses.len() {
            attempts.spawn(open(begun, Duration::ZERO));
            begun += 1;
        }
        let head_start = Instant::now() + HEAD_START;
        while begun == addresses.len() || errors[begun - 1].is_none() {
            let ended = tokio::select! {
                ended = attempts.join_next() => ended,
                () = sleep_until(head_start), if begun < addresses.len() => break,
            };
            match ended {
                Some(Ok(Ok(link))) => return Ok(link),
                Some(Ok(Err((preference, error)))) => {
                    let again = !error.kind().is_permanent();
                    errors[preference] = Some(error);
                    if errors.iter().all(Option::is_some) {
                        return Err(ConnectError::all(errors.into_iter().flatten()));
                    }
                    if again {
                        attempts.spawn(open(preference, jittered(backoffs[preference].next())));
                    }
                }
                Some(Err(_)) => {}
                None => return Err(ConnectError::all(errors.into_iter().flatten())),
            }
        }
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
        let failure = Arc::default();
        if let Ok(found) = open_first(&config, &addresses[..preference], pings, &failure).await {
            tracing::debug!(address = ?found.address, "returning to a preferred server");
            // This is the last step, because it may end this very task.
            if let Some(shared) = channel.upgrade() {
                shared.use_link(found);
            }
            return;
        }
    }
}
