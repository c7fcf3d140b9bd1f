//! A plugin's side: serve, and say where.

use std::error::Error;
use std::sync::Arc;

use samehost::tonic::{self, Request, Response, Status};
use samehost::{Address, Listener, PeerPolicy, Server};
use tokio::sync::Notify;

use crate::control::Empty;
use crate::control::grpc_controller_server::{GrpcController, GrpcControllerServer};
use crate::{COOKIE, VERSION};

/// Serves `services` to the host that started this process, until it says Shutdown.
pub async fn serve(services: Server) -> Result<(), Box<dyn Error>> {
    if std::env::var(COOKIE.0).as_deref() != Ok(COOKIE.1) {
        return Err("this is a plugin: its host starts it".into());
    }
    // A directory of its own, of mode 0700, that goes at the end with everything in it. Hosts that
    // run plugins in containers name the directory.
    let parent = std::env::var_os("PLUGIN_UNIX_SOCKET_DIR").map(Into::into);
    let directory = tempfile::tempdir_in(parent.unwrap_or(std::env::temp_dir()))?;
    let path = directory.path().join("plugin.sock");
    let listener = Listener::bind(&Address::unix(&path)?).await?;

    // The host asks for the health of a service of this name before it uses the plugin.
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("plugin", tonic_health::ServingStatus::Serving).await;
    let shutdown = Arc::new(Notify::new());
    let server = services
        .peer_policy(PeerPolicy::same_user())
        .add_service(health)
        .add_service(GrpcControllerServer::new(Controller(Arc::clone(&shutdown))));

    // The handshake: protocol, version of the services, where, and how. Nothing may be printed
    // before it.
    println!("1|{VERSION}|unix|{}|grpc|", path.display());
    server.serve_with_shutdown(listener, shutdown.notified()).await?;
    Ok(())
}

struct Controller(Arc<Notify>);

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.0.notify_one();
        Ok(Response::new(Empty {}))
    }
}
