//! A SPIFFE Workload API: processes on this host ask who they are, over a Unix socket, and get a
//! certificate that says so, renewed before it ends. Nobody brings a secret: the kernel says which
//! process it is, and the registrations say what such a process is called.
//!
//! ```sh
//! example-spiffe unix:/run/spiffe/api.sock example.org uid:1000=web exe:/usr/bin/db=db
//! SPIFFE_ENDPOINT_SOCKET=unix:///run/spiffe/api.sock your-program
//! ```

mod attest;
mod authority;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use samehost::tonic::codegen::BoxStream;
use samehost::tonic::{self, Request, Response, Status};
use samehost::{Address, BindOptions, Server};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::{Stream, StreamExt};

mod workload {
    samehost::include_proto!("_");
}

use attest::Registration;
use authority::Authority;
use workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use workload::*;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(domain)) = (arguments.next(), arguments.next()) else {
        return Err(
            "usage: example-spiffe ADDRESS TRUST-DOMAIN uid:N=NAME|gid:N=NAME|exe:PATH=NAME..."
                .into(),
        );
    };
    let address: Address = address.parse()?;
    let registrations = arguments.map(|text| text.parse()).collect::<Result<_, _>>()?;
    let lifetime = match std::env::var("SVID_SECONDS") {
        Ok(seconds) => Duration::from_secs(seconds.parse()?),
        Err(_) => Duration::from_secs(3600),
    };
    let api = Api { registrations, authority: Arc::new(Authority::new(&domain, lifetime)?) };

    // Everybody may ask; what they get depends on who they are.
    let listener = BindOptions::new().mode(0o666).bind(&address).await?;
    println!("listening on {}", listener.local_addr());
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async {
        terminate.recv().await;
    };
    Server::new()
        // The streams never end by themselves; their clients come back to the next server.
        .drain_timeout(Duration::ZERO)
        .add_service(SpiffeWorkloadApiServer::new(api))
        .serve_with_shutdown(listener, stop)
        .await?;
    Ok(())
}

struct Api {
    registrations: Vec<Registration>,
    authority: Arc<Authority>,
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Api {
    type FetchX509SVIDStream = BoxStream<X509svidResponse>;

    /// Sends the caller its identities, and again after half of their lifetime.
    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let names = self.names(&request)?;
        let authority = Arc::clone(&self.authority);
        let responses = renewals(self.authority.lifetime / 2).map(move |()| {
            let svids = names.iter().map(|name| authority.issue(name));
            let svids =
                svids.collect::<Result<_, _>>().map_err(|e| Status::internal(e.to_string()))?;
            Ok(X509svidResponse { svids })
        });
        Ok(Response::new(Box::pin(responses)))
    }

    type FetchX509BundlesStream = BoxStream<X509BundlesResponse>;

    /// Sends what to check the certificates of others with. It stays the same while this runs.
    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.names(&request)?;
        let bundles = [(self.authority.domain.clone(), self.authority.bundle.clone())];
        let response = X509BundlesResponse { bundles: bundles.into() };
        let forever = tokio_stream::once(Ok(response)).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(forever)))
    }
}

impl Api {
    /// Returns what the caller is called.
    fn names<T>(&self, request: &Request<T>) -> Result<Vec<String>, Status> {
        // The standard demands this of every client, so that no program can be tricked into asking
        // by somebody who makes it send a request of their choice.
        if request.metadata().get("workload.spiffe.io").is_none_or(|value| value != "true") {
            return Err(Status::invalid_argument("the header workload.spiffe.io: true is missing"));
        }
        let names = attest::names(request.extensions(), &self.registrations)?;
        if names.is_empty() {
            return Err(Status::permission_denied("no identity issued"));
        }
        Ok(names)
    }
}

/// Yields at once, and then again and again after `pause`.
fn renewals(pause: Duration) -> impl Stream<Item = ()> + Send {
    let mut interval = tokio::time::interval(pause);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio_stream::wrappers::IntervalStream::new(interval).map(drop)
}
