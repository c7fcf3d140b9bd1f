//! A Unix socket, whose server knows who calls.

use samehost::{PeerIdentity, Server};
use samehost_tonic_examples::greeter::greeter_client::GreeterClient;
use samehost_tonic_examples::greeter::greeter_server::{Greeter, GreeterServer};
use samehost_tonic_examples::greeter::{HelloReply, HelloRequest};
use tonic::{Request, Response, Status};

use crate::connected;

struct Identified;

#[tonic::async_trait]
impl Greeter for Identified {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let peer = request.extensions().get::<PeerIdentity>();
        let pid = peer.and_then(PeerIdentity::pid);
        Ok(Response::new(HelloReply { message: format!("process {pid:?}") }))
    }
}

#[tokio::test]
async fn knows_its_peer() {
    let channel = connected(Server::new().add_service(GreeterServer::new(Identified))).await;
    let mut client = GreeterClient::new(channel);
    let response = client.say_hello(HelloRequest::default()).await.unwrap();
    let expected = format!("process {:?}", Some(std::process::id()));
    assert_eq!(response.into_inner().message, expected);
}
