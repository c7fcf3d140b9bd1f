//! [`ChannelState`]: what a channel's connection is doing.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::channel::{Channel, ChannelCore};
use crate::driver::Phase;

/// What a channel's connection is doing ("gRPC Connectivity Semantics and API" of the gRPC project).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChannelState {
    /// There is no connection. The next call opens one.
    Idle,
    /// A connection is being opened.
    Connecting,
    /// There is a connection, and the server's SETTINGS have come.
    Ready,
    /// The last attempt to connect failed. The next call makes another attempt. Calls that wait for
    /// a server go on trying.
    TransientFailure,
    /// The stream that the channel was made from has ended. No call can succeed any more.
    Shutdown,
}

/// gRPC's names, such as `TRANSIENT_FAILURE`.
impl fmt::Display for ChannelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "IDLE",
            Self::Connecting => "CONNECTING",
            Self::Ready => "READY",
            Self::TransientFailure => "TRANSIENT_FAILURE",
            Self::Shutdown => "SHUTDOWN",
        })
    }
}

impl Channel {
    /// Returns what the channel's connection is doing.
    ///
    /// A state is no promise: the server may end right after. Make the call, and set
    /// [`wait_for_ready`](crate::ChannelBuilder::wait_for_ready) if it should wait.
    pub fn state(&self) -> ChannelState {
        self.0.state()
    }

    /// Waits until the state differs from the state at this call, and returns the new one. It may
    /// miss states that last only a moment.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// use samehost::{Channel, ChannelState};
    ///
    /// let channel = Channel::connect("unix:/run/app/ping.sock").await?;
    /// loop {
    ///     // Made before the state is looked at, so that no change is missed in between.
    ///     let changed = channel.state_changed();
    ///     if channel.state() != ChannelState::Ready {
    ///         break;
    ///     }
    ///     changed.await;
    /// }
    /// println!("the server has gone");
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing. It keeps the channel alive, and opens no connection.
    pub fn state_changed(&self) -> impl Future<Output = ChannelState> + Send + use<> {
        let shared = Arc::clone(&self.0);
        let before = shared.state();
        let mut changes = shared.changes.subscribe();
        async move {
            loop {
                let now = shared.state();
                if now != before {
                    return now;
                }
                let link = shared.link();
                let phase = link.as_ref().map(|link| link.sender.phase());
                let of_link = async {
                    match (&link, phase) {
                        (Some(link), Some(phase)) => link.sender.phase_after(phase).await,
                        _ => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = changes.changed() => {}
                    _ = of_link => {}
                }
            }
        }
    }
}

impl ChannelCore {
    pub(super) fn state(&self) -> ChannelState {
        let given = self.is_of_stream();
        let phase = self.link().map(|link| link.sender.phase());
        match (phase, *self.changes.borrow()) {
            (Some(Phase::Ready), _) => ChannelState::Ready,
            (Some(Phase::Handshake), _) if given => ChannelState::Connecting,
            (_, _) if given => ChannelState::Shutdown,
            // The channel was ready, and its connection has ended since.
            (_, ChannelState::Ready) => ChannelState::Idle,
            (_, state) => state,
        }
    }
}
