//! Adapters between connectrpc's conformance suite and this library, as a server and as a client. The
//! suite starts either and speaks to it on standard input and output.

mod client;
mod convert;
mod fields;
mod server;

use anyhow::bail;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Generated.
#[allow(clippy::enum_variant_names)]
mod pb {
    samehost::include_proto!("connectrpc.conformance.v1");

    /// What details of a status are.
    pub mod rpc {
        samehost::include_proto!("google.rpc");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("server") => server::run().await,
        Some("client") => client::run().await,
        other => bail!("{other:?}: server or client"),
    }
}

/// Reads a message of the suite: four bytes of length, then as many. `None` at the end.
async fn read<M: Message + Default>() -> anyhow::Result<Option<M>> {
    let mut input = tokio::io::stdin();
    let length = match input.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut message = vec![0; length as usize];
    input.read_exact(&mut message).await?;
    Ok(Some(M::decode(&*message)?))
}

/// Writes a message for the suite.
async fn write(message: &impl Message) -> anyhow::Result<()> {
    let encoded = message.encode_to_vec();
    let mut output = tokio::io::stdout();
    output.write_u32(encoded.len() as u32).await?;
    output.write_all(&encoded).await?;
    output.flush().await?;
    Ok(())
}
