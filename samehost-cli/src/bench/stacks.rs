//! How the stacks that speak gRPC connect: see [`Dial`].

use samehost::{Address, BusyPoll, Channel};

use super::rpc::Dial;
use super::worker::Problem;

/// Our own [`Channel`].
#[derive(Clone)]
pub(super) struct Samehost {
    pub(super) address: Address,
    pub(super) busy_poll: BusyPoll,
}

impl Dial for Samehost {
    type Channel = Channel;

    async fn dial(&self) -> Result<Channel, Problem> {
        let builder = Channel::builder(&self.address).busy_poll(self.busy_poll);
        builder.connect().await.map_err(|error| Problem::Other(error.to_string()))
    }
}

/// tonic's channel, over our connector.
#[derive(Clone)]
pub(super) struct Tonic(pub(super) samehost::Connector);

impl Dial for Tonic {
    type Channel = tonic::transport::Channel;

    async fn dial(&self) -> Result<Self::Channel, Problem> {
        let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
        endpoint.connect_with_connector(self.0.clone()).await.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            Problem::Other(cause.to_string())
        })
    }
}
