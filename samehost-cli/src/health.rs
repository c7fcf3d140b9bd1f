//! What `serve` says of its health: serving, and not any more once it is told to stop.

use samehost::ping::{Ping, PingServiceServer};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::server::{HealthReporter, health_reporter};

/// Every name that is asked for: the whole server's, which is empty, and that of the service.
const NAMES: [&str; 2] = ["", <PingServiceServer<Ping> as tonic::server::NamedService>::NAME];

pub(crate) struct Health(HealthReporter);

impl Health {
    /// Serving, and the service that says so.
    pub(crate) async fn serving() -> (Self, health_server::HealthServer<impl health_server::Health>)
    {
        let (reporter, service) = health_reporter();
        reporter.set_serving::<PingServiceServer<Ping>>().await;
        (Self(reporter), service)
    }

    /// Tells everybody who asks or watches that the server stops.
    pub(crate) async fn not_serving(&self) {
        for name in NAMES {
            self.0.set_service_status(name, ServingStatus::NotServing).await;
        }
    }

    /// Ends the calls that watch, once they have said so: they end in no other way, and a drain
    /// would wait for them as long as it may.
    pub(crate) async fn end_watches(&mut self) {
        for name in NAMES {
            self.0.clear_service_status(name).await;
        }
    }
}
