//! A channel to a server in the same process, without a socket.

use std::future::ready;
use std::sync::{Arc, LazyLock};

use super::gate::Gate;
use super::incoming::Accepted;
use super::serve::serve_one;
use super::{ServeError, Server};
use crate::client::Channel;

/// How many bytes that the other end has not read yet each direction can hold. It is more than the
/// largest frame.
const BUFFER: usize = 256 * 1024;

impl Channel {
    /// Returns a channel to a server in the same process, without a socket, for tests. Calls go
    /// through both ends in full, with the same limits, deadlines, layers and errors as on a
    /// socket. Only the bytes in between stay in memory, so that a paused clock
    /// (`tokio::time::pause`) shows the effect of deadlines.
    ///
    /// The server runs as long as the channel or a call exists. A handler finds no
    /// [`PeerIdentity`](crate::PeerIdentity) and no [`TcpPeer`](crate::TcpPeer). A server with a
    /// peer policy refuses the calls (PERMISSION_DENIED), since their peer is unknown. If two of its
    /// services have the same name, calls fail with UNAVAILABLE, and the status says so.
    ///
    /// ```
    /// # #[cfg(feature = "ping")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use samehost::ping::{Ping, PingRequest, PingServiceClient, PingServiceServer};
    /// use samehost::{Channel, Server};
    ///
    /// let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
    /// let mut client = PingServiceClient::new(Channel::to(server));
    /// assert_eq!(client.ping(PingRequest::ping()).await?.into_inner().message, "pong");
    /// # Ok(()) }
    /// # #[cfg(not(feature = "ping"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Panics
    ///
    /// Calls panic outside of a tokio runtime with time enabled.
    pub fn to(server: Server) -> Self {
        // All connections of the channel have one server. Layers may need a runtime, which the first
        // connection has.
        let served = LazyLock::new(move || {
            let (calls, options) = server.ready()?;
            Ok::<_, ServeError>((calls, Gate::new(options)))
        });
        Self::from_connector(move || {
            let (calls, gate) = match &*served {
                Ok((calls, gate)) => (calls.clone(), Arc::clone(gate)),
                Err(error) => return ready(Err(error.clone())),
            };
            let (ours, theirs) = tokio::io::duplex(BUFFER);
            let served = serve_one(calls, gate, Accepted::of_stream(theirs));
            tokio::spawn(async move {
                if let Err(error) = served.await {
                    tracing::debug!(%error, "a connection within the process failed");
                }
            });
            ready(Ok(ours))
        })
    }
}
