//! tonic-health's service and client.

use samehost::Server;
use samehost_tonic_examples::greeter::greeter_server::GreeterServer;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::{Greetings, connected};

#[tokio::test]
async fn health_is_checked_and_watched() {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<GreeterServer<Greetings>>().await;
    let server = Server::new().add_service(health).add_service(GreeterServer::new(Greetings));
    let mut client = HealthClient::new(connected(server).await);
    let request = HealthCheckRequest { service: "greeter.Greeter".to_owned() };
    let response = client.check(request.clone()).await.unwrap();
    assert_eq!(response.into_inner().status, ServingStatus::Serving as i32);

    let mut watched = client.watch(request).await.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.status, ServingStatus::Serving as i32);
    reporter.set_not_serving::<GreeterServer<Greetings>>().await;
    let second = watched.message().await.unwrap().unwrap();
    assert_eq!(second.status, ServingStatus::NotServing as i32);
}
