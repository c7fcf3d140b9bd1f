//! How the stacks that speak gRPC connect. See [`Dial`].

use samehost::{Address, BusyPoll, Channel};

use super::rpc::MESSAGE_MAX;
use super::stubs::{Dial, Stub, samehost_client, tonic_client};
use super::worker::Problem;

/// Our own [`Channel`] and stubs.
#[derive(Clone)]
pub(super) struct Samehost {
    pub(super) address: Address,
    pub(super) busy_poll: BusyPoll,
    /// How many descriptors may travel with a call.
    pub(super) descriptors: u8,
}

impl Samehost {
    async fn connect(&self) -> Result<Channel, Problem> {
        let builder =
            Channel::builder(&self.address).busy_poll(self.busy_poll).descriptors(self.descriptors);
        builder.connect().await.map_err(|error| Problem::Other(error.to_string()))
    }
}

impl Dial for Samehost {
    async fn dial(&self) -> Result<impl Stub, Problem> {
        Ok(samehost_client(self.connect().await?, MESSAGE_MAX))
    }
}

/// Our own [`Channel`], and tonic's stubs.
#[derive(Clone)]
pub(super) struct WithTonicStubs(pub(super) Samehost);

impl Dial for WithTonicStubs {
    async fn dial(&self) -> Result<impl Stub, Problem> {
        Ok(tonic_client(self.0.connect().await?, MESSAGE_MAX))
    }
}

/// tonic's channel and stubs, over our connector.
#[derive(Clone)]
pub(super) struct Tonic(pub(super) samehost::Connector);

impl Dial for Tonic {
    async fn dial(&self) -> Result<impl Stub, Problem> {
        let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(self.0.clone()).await.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            Problem::Other(cause.to_string())
        })?;
        Ok(tonic_client(channel, MESSAGE_MAX))
    }
}
