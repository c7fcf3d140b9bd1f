//! tonic-reflection's service and client.

use samehost::Server;
use samehost_tonic_examples::DESCRIPTORS;
use samehost_tonic_examples::greeter::greeter_server::GreeterServer;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::{Greetings, connected};

#[tokio::test]
async fn services_are_listed() {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()
        .unwrap();
    let server = Server::new().add_service(reflection).add_service(GreeterServer::new(Greetings));
    let mut client = ServerReflectionClient::new(connected(server).await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut responses =
        client.server_reflection_info(tokio_stream::iter([list])).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = response.message_response else {
        panic!("{response:?}");
    };
    assert!(list.service.iter().any(|service| service.name == "greeter.Greeter"), "{list:?}");
}
