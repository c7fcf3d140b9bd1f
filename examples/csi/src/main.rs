//! A CSI driver for Kubernetes, with all three services on one Unix socket. It keeps its volumes in
//! memory, where a driver of yours has its storage: see [`volumes`].
//!
//! ```sh
//! CSI_ENDPOINT=unix:///csi/csi.sock NODE_ID=node-1 example-csi
//! csi-sanity --csi.endpoint /csi/csi.sock
//! ```

mod controller;
mod identity;
mod node;
mod volumes;

use std::env;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use samehost::{Address, BindOptions, Server};
use tokio::signal::unix::{SignalKind, signal};

mod csi {
    samehost::include_proto!("csi.v1");
}

use csi::controller_server::ControllerServer;
use csi::identity_server::IdentityServer;
use csi::node_server::NodeServer;
use volumes::Volumes;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = endpoint(&env::var("CSI_ENDPOINT").unwrap_or("unix:///csi/csi.sock".into()))?;
    let node_id = env::var("NODE_ID").unwrap_or("node-1".into());
    let volumes = Arc::new(Volumes::new(node_id));

    // The sidecars reach the socket through a volume of the pod. An emptyDir has mode 0777, which
    // has to be allowed by name; the socket itself is 0600: only root, as the sidecars are, may
    // connect.
    let listener = BindOptions::new().allow_shared_directory(true).bind(&address).await?;
    println!("listening on {}", listener.local_addr());

    // kubelet ends a container by SIGTERM. Calls in flight then have 10 s to finish.
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async {
        terminate.recv().await;
    };
    Server::new()
        .add_service(IdentityServer::from_arc(Arc::clone(&volumes)))
        .add_service(ControllerServer::from_arc(Arc::clone(&volumes)))
        .add_service(NodeServer::from_arc(volumes))
        .serve_with_shutdown(listener, stop)
        .await?;
    Ok(())
}

/// Returns the address that `CSI_ENDPOINT` means. It is written as a bare path, as
/// `unix:///csi/csi.sock`, or as `unix://csi/csi.sock`, which drivers take for the same path.
fn endpoint(text: &str) -> Result<Address, Box<dyn Error>> {
    let path = text.strip_prefix("unix:").unwrap_or(text).trim_start_matches('/');
    if path.is_empty() || path.contains("://") {
        return Err(format!("CSI_ENDPOINT is {text:?}: write unix:///csi/csi.sock").into());
    }
    Ok(Address::unix(Path::new("/").join(path))?)
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn an_endpoint_is_a_path_in_any_of_its_forms() {
        for text in
            ["/csi/csi.sock", "unix:/csi/csi.sock", "unix:///csi/csi.sock", "unix://csi/csi.sock"]
        {
            assert_eq!(endpoint(text).unwrap().to_string(), "unix:/csi/csi.sock", "{text}");
        }
        for text in ["", "unix://", "tcp://127.0.0.1:10000"] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }
}
