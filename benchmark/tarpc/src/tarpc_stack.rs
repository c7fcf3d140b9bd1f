//! tarpc, with bincode, on its own transport.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};

use crate::Caller;

#[tarpc::service]
trait Echo {
    async fn echo(message: String, payload: Bytes, sequence: u64) -> (String, Bytes, u64);
}

#[derive(Clone)]
struct Service;

/// What the Ping service does, too.
impl Echo for Service {
    async fn echo(
        self,
        _: context::Context,
        message: String,
        payload: Bytes,
        sequence: u64,
    ) -> (String, Bytes, u64) {
        let answer = if message == "ping" { "pong".to_owned() } else { message };
        (answer, payload, sequence)
    }
}

pub async fn serve(path: &Path, ready: impl FnOnce()) -> Result<()> {
    let mut incoming = serde_transport::unix::listen(path, Bincode::default).await?;
    ready();
    while let Some(transport) = incoming.next().await {
        let calls = BaseChannel::with_defaults(transport?).execute(Service.serve());
        tokio::spawn(calls.for_each(|call| async {
            tokio::spawn(call);
        }));
    }
    Ok(())
}

pub async fn connect(path: &Path) -> Result<impl Caller> {
    let transport = serde_transport::unix::connect(path, Bincode::default).await?;
    Ok(EchoClient::new(client::Config::default(), transport).spawn())
}

impl Caller for EchoClient {
    async fn call(&mut self, payload: Bytes) -> Result<Bytes> {
        Ok(self.echo(context::current(), "ping".to_owned(), payload, 0).await?.1)
    }
}
