//! The health service of `serve`: serving, and not serving once it is told to stop.

use samehost::ping::{Ping, PingServiceServer};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::server::{HealthReporter, health_reporter};

/// The names that clients ask for: that of the whole server, which is empty, and that of the
/// service.
const NAMES: [&str; 2] = ["", <PingServiceServer<Ping> as tonic::server::NamedService>::NAME];

pub(crate) struct Health(HealthReporter);

impl Health {
    /// Returns a serving state, and the service that reports it.
    pub(crate) async fn serving() -> (Self, health_server::HealthServer<impl health_server::Health>)
    {
        let (reporter, service) = health_reporter();
        reporter.set_serving::<PingServiceServer<Ping>>().await;
        (Self(reporter), service)
    }

    /// Reports to all clients that ask or watch that the server stops.
    pub(crate) async fn not_serving(&self) {
        for name in NAMES {
            self.0.set_service_status(name, ServingStatus::NotServing).await;
        }
    }

    /// Ends the calls that watch, after they have reported the last state. They do not end
    /// otherwise, so that a drain would wait for them until its deadline.
    pub(crate) async fn end_watches(&mut self) {
        for name in NAMES {
            self.0.clear_service_status(name).await;
        }
    }
}
