//! samehost, with its own stubs of the Ping service.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use samehost::ping::{Ping, PingRequest, PingServiceClient, PingServiceServer};
use samehost::{Address, Channel, Listener, Server};

use crate::Caller;

pub async fn serve(path: &Path, ready: impl FnOnce()) -> Result<()> {
    let listener = Listener::bind(&Address::unix(path)?).await?;
    ready();
    let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
    Ok(server.serve(listener).await?)
}

pub async fn connect(path: &Path) -> Result<impl Caller> {
    Ok(PingServiceClient::new(Channel::connect(&Address::unix(path)?).await?))
}

impl Caller for PingServiceClient<Channel> {
    async fn call(&mut self, payload: Bytes) -> Result<Bytes> {
        let request = PingRequest { payload, ..PingRequest::ping() };
        Ok(self.ping(request).await?.into_inner().payload)
    }
}
