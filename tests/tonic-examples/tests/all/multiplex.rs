//! Two services on one connection, at the same time.

use samehost::Server;
use samehost_tonic_examples::echo::echo_client::EchoClient;
use samehost_tonic_examples::echo::echo_server::EchoServer;
use samehost_tonic_examples::greeter::HelloRequest;
use samehost_tonic_examples::greeter::greeter_client::GreeterClient;
use samehost_tonic_examples::greeter::greeter_server::GreeterServer;

use crate::{Echoes, Greetings, connected, say};

#[tokio::test]
async fn two_clients_share_a_channel() {
    let server = Server::new()
        .add_service(GreeterServer::new(Greetings))
        .add_service(EchoServer::new(Echoes));
    let channel = connected(server).await;
    let mut greeter = GreeterClient::new(channel.clone());
    let mut echo = EchoClient::new(channel);
    for _ in 0..100 {
        let (hello, echoed) = tokio::join!(
            greeter.say_hello(HelloRequest { name: "you".to_owned() }),
            echo.unary(say("and you"))
        );
        assert_eq!(hello.unwrap().into_inner().message, "Hello you!");
        assert_eq!(echoed.unwrap().into_inner().message, "and you");
    }
}
