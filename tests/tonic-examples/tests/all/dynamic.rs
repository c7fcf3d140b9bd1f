//! Services that are chosen when the program runs.

use samehost::Server;
use samehost_tonic_examples::echo::echo_client::EchoClient;
use samehost_tonic_examples::echo::echo_server::EchoServer;
use samehost_tonic_examples::greeter::HelloRequest;
use samehost_tonic_examples::greeter::greeter_client::GreeterClient;
use samehost_tonic_examples::greeter::greeter_server::GreeterServer;
use tonic::Code;

use crate::{Echoes, Greetings, connected, say};

fn server(names: &[&str]) -> Server {
    names.iter().fold(Server::new(), |server, name| match *name {
        "greeter" => server.add_service(GreeterServer::new(Greetings)),
        "echo" => server.add_service(EchoServer::new(Echoes)),
        other => panic!("there is no service {other}"),
    })
}

#[tokio::test]
async fn services_are_added_by_name() {
    let channel = connected(server(&["greeter", "echo"])).await;
    GreeterClient::new(channel.clone()).say_hello(HelloRequest::default()).await.unwrap();
    EchoClient::new(channel).unary(say("both")).await.unwrap();

    let channel = connected(server(&["greeter"])).await;
    let status = EchoClient::new(channel).unary(say("one")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}
