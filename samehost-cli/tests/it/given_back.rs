//! What a server held is the system's again when those who made it hold that have gone.

use samehost::Channel;
use samehost::ping::{PingRequest, PingServiceClient};
use tokio::net::UnixStream;

use crate::support::{Serving, directory, eventually_async, socket_in};
use crate::wire::{Peer, headers, request_with};

const CONNECTIONS: usize = 8;
const CALLS: u32 = 128;

/// What may stay, in bytes.
const LEFT: usize = 16 << 20;

/// Calls whose fields are a large map each, in many small blocks of memory, and whose message never
/// ends. (Larger blocks the allocator gives back by itself.)
#[tokio::test]
async fn what_calls_held_is_given_back_when_they_are_gone() {
    let directory = directory();
    let address = socket_in(directory.path());
    let server = Serving::start(&[&address.to_string()], &[]);
    let mut client = PingServiceClient::new(Channel::connect(&address).await.unwrap());
    client.ping(PingRequest::ping()).await.unwrap();
    let before = server.memory("VmRSS");
    let names: Vec<String> = (0..400).map(|number| format!("x{number:03}")).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (&name[..], "")).collect();
    let block = request_with("/ping.v1.PingService/Ping", &fields);
    let (mut peers, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let stream = UnixStream::connect(address.as_path().unwrap()).await.unwrap();
        let mut peer = Peer::client(stream, &[]).await;
        for call in 0..CALLS {
            peer.send(&headers(2 * call + 1, &block, false)).await;
        }
        peer.sync().await;
        peers.push(peer);
        // A connection that outlives them, and lies above what they have in the allocator's heap: free(3)
        // gives back only what is above the last block in use.
        let mut after = PingServiceClient::new(Channel::connect(&address).await.unwrap());
        after.ping(PingRequest::ping()).await.unwrap();
        clients.push(after);
    }
    let held = server.memory("VmRSS") - before;
    assert!(held > 2 * LEFT, "only {} KiB were held", held >> 10);
    drop(peers);
    eventually_async("what they held is given back", || server.memory("VmRSS") <= before + LEFT)
        .await;
    client.ping(PingRequest::ping()).await.unwrap();
}
