//! A server behind a proxy such as Envoy, which ends TLS and passes on whose certificate it saw:
//! `docs/beyond-one-host.md` has the proxy's configuration. It shows two things: how a handler
//! learns of the client behind the proxy ([`forwarded`]), and how a server of several leaves without
//! losing a call.
//!
//! ```sh
//! example-behind-proxy unix:/run/app/one.sock PROXY-UID PROXY-GID
//! ```

mod forwarded;

use std::error::Error;
use std::time::Duration;

use samehost::tonic::{self, Request, Response, Status};
use samehost::{Address, BindOptions, PeerIdentity, Server};
use tokio::signal::unix::{SignalKind, signal};
use tonic_health::ServingStatus;

mod caller {
    samehost::include_proto!("caller.v1");
}

use caller::caller_service_server::{CallerService, CallerServiceServer};
use caller::{WhoAmIRequest, WhoAmIResponse};
use forwarded::{FromProxy, ProxiedClient};

/// How long the proxy may take to notice that this server is about to leave: two of its intervals
/// of health checks.
const NOTICE: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, proxy_uid, proxy_gid] = &arguments[..] else {
        return Err("usage: example-behind-proxy ADDRESS PROXY-UID PROXY-GID".into());
    };
    let address: Address = address.parse()?;
    // The proxy's group may connect, and nobody else. A successor that is started while this server
    // runs takes its socket over.
    let options = BindOptions::new()
        .mode(0o660)
        .group(proxy_gid.parse::<u32>()?)
        .take_over(true)
        .allow_take_over(true);
    let listener = options.bind(&address).await?;
    println!("listening on {}", listener.local_addr());

    let (health, health_service) = tonic_health::server::health_reporter();
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async {
        terminate.recv().await;
        // First the proxy is told to send its calls elsewhere, while they are still answered here.
        // Then the connections are told (GOAWAY), and what is in flight is finished.
        health.set_service_status("", ServingStatus::NotServing).await;
        tokio::time::sleep(NOTICE).await;
    };
    let from_proxy = FromProxy { uid: proxy_uid.parse()? };
    Server::new()
        .add_service(health_service)
        .add_service(CallerServiceServer::with_interceptor(Caller, from_proxy))
        .serve_with_shutdown(listener, stop)
        .await?;
    Ok(())
}

struct Caller;

#[tonic::async_trait]
impl CallerService for Caller {
    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let extensions = request.extensions();
        let caller = match (extensions.get::<ProxiedClient>(), extensions.get::<PeerIdentity>()) {
            (Some(client), _) => client.id.clone(),
            (None, Some(peer)) => format!("uid {}", peer.uid()),
            (None, None) => return Err(Status::unauthenticated("call over the Unix socket")),
        };
        Ok(Response::new(WhoAmIResponse { caller, pid: std::process::id() }))
    }
}
