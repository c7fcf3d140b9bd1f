//! A client of containerd: asks for its version, makes a namespace, writes a blob into it, reads it
//! back, and removes both. All four kinds of what containerd's API asks of a channel are in it.
//!
//! ```sh
//! example-containerd unix:/run/containerd/containerd.sock
//! ```

use std::collections::HashMap;
use std::error::Error;

use samehost::tonic::{Request, Status};
use samehost::{Address, Channel, PeerPolicy};
use sha2::{Digest, Sha256};
use tokio_stream::StreamExt;

mod version {
    samehost::include_proto!("containerd.services.version.v1");
}
mod namespaces {
    samehost::include_proto!("containerd.services.namespaces.v1");
}
mod content {
    samehost::include_proto!("containerd.services.content.v1");
}

use content::content_client::ContentClient;
use content::*;
use namespaces::namespaces_client::NamespacesClient;
use namespaces::*;
use version::version_client::VersionClient;

const NAMESPACE: &str = "samehost-example";

/// How much of a blob goes with one message, in bytes.
const PIECE: usize = 1 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or("unix:/run/containerd/containerd.sock".into());
    let address: Address = address.parse()?;
    // containerd runs as root: a socket that anybody else listens on is not its own.
    let channel = Channel::builder(&address).require_server(PeerPolicy::root()).connect().await?;

    let version = VersionClient::new(channel.clone()).version(()).await?.into_inner();
    println!("containerd {}", version.version);

    let mut namespaces = NamespacesClient::new(channel.clone());
    let namespace = Namespace { name: NAMESPACE.into(), labels: Default::default() };
    namespaces.create(in_namespace(CreateNamespaceRequest { namespace: Some(namespace) })).await?;
    let list = namespaces.list(ListNamespacesRequest {}).await?.into_inner().namespaces;
    println!("namespaces: {:?}", list.iter().map(|namespace| &*namespace.name).collect::<Vec<_>>());

    let mut content = ContentClient::new(channel);
    let blob: Vec<u8> = (0..3_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let digest = write(&mut content, "samehost-example", &blob).await?;
    println!("wrote {digest}");
    for info in list_blobs(&mut content).await? {
        println!("stored {} of {} bytes", info.digest, info.size);
    }
    let back = read(&mut content, &digest).await?;
    println!("read {} bytes, {}", back.len(), if back == blob { "the same" } else { "DIFFERENT" });

    content.delete(in_namespace(DeleteContentRequest { digest })).await?;
    namespaces.delete(in_namespace(DeleteNamespaceRequest { name: NAMESPACE.into() })).await?;
    Ok(())
}

/// A blob with this label stays. Nothing refers to this one, and containerd's garbage collection would remove
/// it.
const GC_ROOT: &str = "containerd.io/gc.root";

/// Writes `blob` under the name `reference` and returns its digest.
async fn write(
    content: &mut ContentClient<Channel>,
    reference: &str,
    blob: &[u8],
) -> Result<String, Box<dyn Error>> {
    let digest = Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let digest = format!("sha256:{digest}");
    let message = |action: WriteAction, offset: usize, data: &[u8]| WriteContentRequest {
        action: action.into(),
        r#ref: reference.into(),
        total: blob.len() as i64,
        expected: digest.clone(),
        offset: offset as i64,
        data: data.into(),
        labels: HashMap::from([(GC_ROOT.to_owned(), "example".to_owned())]),
    };
    let pieces = blob.chunks(PIECE).enumerate();
    let mut messages: Vec<_> =
        pieces.map(|(i, data)| message(WriteAction::Write, i * PIECE, data)).collect();
    messages.push(message(WriteAction::Commit, blob.len(), &[]));

    let requests = in_namespace(tokio_stream::iter(messages));
    let mut responses = content.write(requests).await?.into_inner();
    let mut written = None;
    while let Some(response) = responses.next().await {
        written = Some(response?);
    }
    match written {
        Some(last) if last.action() == WriteAction::Commit => Ok(last.digest),
        _ => Err("containerd has not committed the blob".into()),
    }
}

async fn list_blobs(content: &mut ContentClient<Channel>) -> Result<Vec<Info>, Status> {
    let request = in_namespace(ListContentRequest { filters: vec![] });
    let mut pages = content.list(request).await?.into_inner();
    let mut blobs = Vec::new();
    while let Some(page) = pages.next().await {
        blobs.extend(page?.info);
    }
    Ok(blobs)
}

async fn read(content: &mut ContentClient<Channel>, digest: &str) -> Result<Vec<u8>, Status> {
    // Size 0 is all of it.
    let request = ReadContentRequest { digest: digest.into(), offset: 0, size: 0 };
    let mut pieces = content.read(in_namespace(request)).await?.into_inner();
    let mut blob = Vec::new();
    while let Some(piece) = pieces.next().await {
        blob.extend(piece?.data);
    }
    Ok(blob)
}

/// Says in which namespace a call is meant.
fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let name = NAMESPACE.parse().expect("it has no character that metadata may not have");
    request.metadata_mut().insert("containerd-namespace", name);
    request
}
