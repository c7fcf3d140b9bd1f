//! What connections that were busy have allocated when they are idle again, to the octet. (Resident
//! memory would be the C library's malloc's affair: it keeps much of what is freed.)

use cap::Cap;
use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Address, Channel};
use tokio::task::JoinSet;

use crate::Scale;
use crate::support::{Running, Transport, block_on, eventually_async};

#[global_allocator]
static ALLOCATED: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

/// For both ends of a connection together, with what the runtime has for their tasks, sockets and
/// timers.
const LIMIT: usize = 12 * 1024;

pub(crate) fn of_connections_that_were_busy(scale: Scale) -> String {
    let connections = scale.pick(100, 1_000);
    block_on(async {
        let server = Running::ping(Transport::Unix).await;
        // What the first one brings about is no connection's.
        let mut channels = vec![called(&server.address, &[64]).await];
        channels.reserve(connections);
        let before = ALLOCATED.allocated();
        let sizes: Vec<_> = (0..200).map(|_| 4_000).chain([1 << 20]).collect();
        let more = || ALLOCATED.allocated().saturating_sub(before);
        channels.push(called(&server.address, &sizes).await);
        let busy = more();
        assert!(busy > 2 * LIMIT, "it was not busy: {busy} octets");
        for _ in 1..connections {
            channels.push(called(&server.address, &sizes).await);
        }
        let each = || more() / connections;
        // After a second or two without traffic.
        for _ in 0..6 { tokio::time::sleep(std::time::Duration::from_secs(1)).await; eprintln!("{}", each()); }
        eventually_async("an idle connection's memory", || each() <= LIMIT).await;
        format!(
            "{connections} connections, both ends of one have {busy} octets when they were just \
             busy, and {} each when idle",
            each()
        )
    })
}

/// A channel that has made calls of these sizes at once.
async fn called(address: &Address, sizes: &[usize]) -> Channel {
    let channel = Channel::connect(address).await.unwrap();
    let mut calls = JoinSet::new();
    for size in sizes {
        let mut client = PingServiceClient::new(channel.clone());
        let request = PingRequest { payload: vec![7; *size].into(), ..PingRequest::ping() };
        calls.spawn(async move { client.ping(request).await.map(drop) });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    channel
}
