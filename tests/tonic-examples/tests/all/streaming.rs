//! Streams: one that never ends and is dropped, and one both ways.

use samehost::Server;
use samehost_tonic_examples::echo::echo_client::EchoClient;
use samehost_tonic_examples::echo::echo_server::EchoServer;
use tokio_stream::StreamExt;

use crate::{Echoes, connected, say};

#[tokio::test]
async fn streams_of_each_kind() {
    let channel = connected(Server::new().add_service(EchoServer::new(Echoes))).await;
    let mut client = EchoClient::new(channel);
    let endless = client.server_streaming(say("again")).await.unwrap().into_inner();
    let some: Vec<_> = endless.take(500).collect::<Result<_, _>>().await.unwrap();
    assert!(some.len() == 500 && some.iter().all(|response| response.message == "again"));

    let requests = (0..1_000).map(|number| say(&number.to_string()));
    let joined = client.client_streaming(tokio_stream::iter(requests.clone())).await.unwrap();
    assert_eq!(joined.into_inner().message.len(), 10 + 90 * 2 + 900 * 3);

    let responses = client.bidirectional(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let responses: Vec<_> = responses.collect::<Result<_, _>>().await.unwrap();
    assert_eq!(responses.len(), 1_000);
    assert_eq!(responses[999].message, "999");
}
