//! The memory of an idle connection on the server: at most 8 KiB of resident memory, also after it
//! was busy.

use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Address, Channel};
use tokio::task::JoinSet;

use crate::support::{Serving, directory, eventually_async, need_descriptors, socket_in};

const CONNECTIONS: usize = 10_000;

/// How many connections are opened at a time.
const AT_A_TIME: usize = 32;

/// The limit for each connection, in bytes.
const LIMIT: usize = 8 * 1024;

#[tokio::test]
async fn ten_thousand_idle_connections_take_eight_kib_each() {
    // Other tests of this process need some, too.
    if !need_descriptors(CONNECTIONS as u64 + 4_000) {
        return;
    }
    let directory = directory();
    let address = socket_in(directory.path());
    let most = CONNECTIONS.to_string();
    let server = Serving::start(&[&address.to_string()], &["--max-connections", &most]);
    // The first connection allocates memory that all of them share.
    let mut channels = vec![called(address.clone()).await];
    let before = server.memory("VmRSS");

    let mut calls = JoinSet::new();
    while channels.len() < CONNECTIONS {
        if channels.len() + calls.len() < CONNECTIONS && calls.len() < AT_A_TIME {
            calls.spawn(called(address.clone()));
        } else {
            channels.push(calls.join_next().await.unwrap().unwrap());
        }
    }
    let each = || server.memory("VmRSS").saturating_sub(before) / CONNECTIONS;
    let busy = each();
    let mut idle = busy;
    eventually_async("8 KiB for each connection", || {
        idle = each();
        idle <= LIMIT
    })
    .await;
    eprintln!("{busy} bytes for each connection at first, {idle} when idle");
}

/// Returns a channel that has made a call.
async fn called(address: Address) -> Channel {
    let channel = Channel::connect(&address).await.unwrap();
    let request = PingRequest { payload: vec![0; 1024].into(), ..PingRequest::ping() };
    PingServiceClient::new(channel.clone()).ping(request).await.unwrap();
    channel
}
