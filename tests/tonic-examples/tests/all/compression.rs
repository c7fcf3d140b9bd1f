//! gzip, both ways.

use samehost::Server;
use samehost_tonic_examples::echo::echo_client::EchoClient;
use samehost_tonic_examples::echo::echo_server::EchoServer;
use tonic::codec::CompressionEncoding::Gzip;

use crate::{Echoes, connected, say};

#[tokio::test]
async fn messages_are_compressed() {
    let service = EchoServer::new(Echoes).accept_compressed(Gzip).send_compressed(Gzip);
    let channel = connected(Server::new().add_service(service)).await;
    let mut client = EchoClient::new(channel).send_compressed(Gzip).accept_compressed(Gzip);
    let long = "squeeze me ".repeat(10_000);
    let response = client.unary(say(&long)).await.unwrap();
    assert_eq!(response.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(response.into_inner().message, long);
}
