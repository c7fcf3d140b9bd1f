//! What connections that were busy cost a server when they are idle again, by what it has allocated,
//! to the byte. (Resident memory would be the C library's malloc's affair: it keeps much of what is
//! freed.)

use std::process::{ExitCode, Stdio};

use peak_alloc::PeakAlloc;
use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Address, Channel};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::Scale;
use crate::support::{Running, Transport, block_on, eventually_async, need_descriptors};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Bytes that are no matter, of a connection.
const SLACK: usize = 4 * 1024;

/// What a server keeps for the next connection.
const KEPT: usize = 512 * 1024;

/// What a process keeps for the next large messages, until many connections have ended.
const SPARE: usize = 4 << 20;

/// So many connections are many.
const MANY: usize = 64;

/// The server is this process, the clients are another one.
pub(crate) fn of_connections_that_were_busy(scale: Scale) -> String {
    let connections = scale.pick(400, 1_000);
    if !need_descriptors(2 * connections as u64) {
        return "left out: too few file descriptors are allowed".to_owned();
    }
    block_on(async {
        let server = Running::ping(Transport::Unix).await;
        // What the first one brings about is no connection's: the large memory that stays for the
        // next ones, for example. So the height is only seen here.
        let first = after(&server.address, 1, BUSY, usize::MAX).await;
        let idle = after(&server.address, connections, &[1_000], usize::MAX).await;
        let busy = after(&server.address, connections, BUSY, idle.each + SLACK).await;
        assert!(first.most > 20 * busy.each, "it was not busy: {} bytes", first.most);
        format!(
            "{connections} connections, bytes of a server for one that is idle: {} after a call, \
             {} after {} calls at once, and {} at the height of the first one",
            idle.each,
            busy.each,
            BUSY.len(),
            first.most
        )
    })
}

/// Bytes of payload in the calls that a client makes at once.
const BUSY: &[usize] = &{
    let mut sizes = [4_000; 100];
    sizes[50] = 1 << 20;
    sizes
};

struct Memory {
    /// While the first one made its calls.
    most: usize,
    /// When all are idle.
    each: usize,
}

/// What connections need that make such calls, one connection after another. Waits until each needs
/// no more than `limit`, and until all that they needed has been given back when they are closed.
async fn after(address: &Address, connections: usize, calls: &[usize], limit: usize) -> Memory {
    let before = ALLOCATED.current_usage();
    let more = || ALLOCATED.current_usage().saturating_sub(before);
    ALLOCATED.reset_peak_usage();
    let mut clients = Command::new("/proc/self/exe")
        .args(["as", "clients", &address.to_string(), &connections.to_string()])
        .args(calls.iter().map(usize::to_string))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut says = BufReader::new(clients.stdout.take().unwrap()).lines();
    assert_eq!(says.next_line().await.unwrap().as_deref(), Some("the first one is done"));
    let most = ALLOCATED.peak_usage().saturating_sub(before);
    assert_eq!(says.next_line().await.unwrap().as_deref(), Some("all are done"));
    let each = || more() / connections;
    let limit = limit.saturating_add(SPARE / connections);
    eventually_async("an idle connection's memory", || each() <= limit).await;
    let each = each();
    // The end of their input ends them.
    drop(clients.stdin.take());
    assert!(clients.wait().await.unwrap().success());
    let kept = if connections < MANY { KEPT + SPARE } else { KEPT };
    eventually_async("what they had is given back", || more() <= kept).await;
    Memory { most, each }
}

/// The other process: makes calls on one connection after another, and keeps them.
pub(crate) fn clients(address: &str, connections: &str, calls: &[&str]) -> ExitCode {
    let address = address.parse().unwrap();
    let sizes: Vec<_> = calls.iter().map(|size| size.parse().unwrap()).collect();
    block_on(async {
        let mut channels = vec![called(&address, &sizes).await];
        println!("the first one is done");
        for _ in 1..connections.parse().unwrap() {
            channels.push(called(&address, &sizes).await);
        }
        println!("all are done");
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    });
    ExitCode::SUCCESS
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
