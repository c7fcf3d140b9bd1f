//! A call, over each transport.

use samehost::Server;
use samehost_tonic_examples::greeter::HelloRequest;
use samehost_tonic_examples::greeter::greeter_client::GreeterClient;
use samehost_tonic_examples::greeter::greeter_server::GreeterServer;

use crate::{Greetings, connected, connected_to};

#[tokio::test]
async fn says_hello() {
    let server = || Server::new().add_service(GreeterServer::new(Greetings));
    let tcp = "127.0.0.1:0".parse().unwrap();
    for channel in [connected(server()).await, connected_to(&tcp, server()).await] {
        let mut client = GreeterClient::new(channel);
        let request = tonic::Request::new(HelloRequest { name: "tonic".to_owned() });
        let response = client.say_hello(request).await.unwrap();
        assert_eq!(response.into_inner().message, "Hello tonic!");
    }
}
