//! A server that is told to stop while its clients are silent, half-open, stuck, or still in its
//! queue.

use std::time::{Duration, Instant};

use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Address, Channel};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::Code;

use crate::Scale;
use crate::support::nix_signal::Signal;
use crate::support::{Serving, block_on, directory, eventually_async, need_descriptors, socket_in};
use crate::wire::{PREFACE, Peer, data, headers, message, request, settings, window_update};

/// The server's.
const DRAIN: Duration = Duration::from_secs(2);

/// Of each kind.
const PEERS: usize = 50;

const QUEUED: usize = 2_000;

/// What it may take beyond the drain deadline. Where the machine has other things to do, it is less than the
/// 30 s after which a peer that reads nothing is closed in any case.
fn beyond(scale: Scale) -> Duration {
    scale.pick(Duration::from_secs(20), Duration::from_secs(1))
}

/// Done within the drain deadline and a second, with `--full`; whoever waited in the queue gets an answer.
pub(crate) fn with_clients(scale: Scale) -> String {
    if !need_descriptors(QUEUED as u64 + 1_000) {
        return "left out: too few file descriptors are allowed".to_owned();
    }
    let stuck = block_on(with_peers_that_do_nothing(beyond(scale)));
    let (answered, unavailable, slowest) = block_on(with_a_queue(beyond(scale)));
    format!(
        "{} silent, half-open and stuck peers: stopped within {stuck:.1?} (drain {DRAIN:?}); of \
         {QUEUED} clients in the queue {answered} were answered and {unavailable} UNAVAILABLE, the \
         last after {slowest:.1?}",
        4 * PEERS
    )
}

fn serve(address: &Address) -> Serving {
    let drain = format!("{}s", DRAIN.as_secs());
    Serving::start(&[&address.to_string()], &["--drain", &drain])
}

async fn with_peers_that_do_nothing(beyond: Duration) -> Duration {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut server = serve(&address);
    let path = address.as_path().unwrap();
    let (mut streams, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..PEERS {
        streams.push(UnixStream::connect(path).await.unwrap());
        let mut half_open = UnixStream::connect(path).await.unwrap();
        half_open.write_all(&PREFACE[..10]).await.unwrap();
        streams.push(half_open);

        let mut half_a_frame = Peer::client(UnixStream::connect(path).await.unwrap(), &[]).await;
        half_a_frame.send(&headers(1, &request("/ping.v1.PingService/Ping"), false)[..20]).await;
        peers.push(half_a_frame);
        // All the window that there can be, and it reads nothing of an endless answer.
        let stream = UnixStream::connect(path).await.unwrap();
        let mut stuck = Peer::client(stream, &[(4, 0x7fff_ffff)]).await;
        stuck.send(&window_update(0, 0x7fff_0000)).await;
        stuck.send(&headers(1, &request("/ping.v1.PingService/Watch"), false)).await;
        stuck.send(&data(1, &message(b""), true)).await;
        stuck.until(|frame| frame.stream == 1).await;
        peers.push(stuck);
    }
    // Those that came before it have been accepted when it is served.
    let channel = Channel::connect(&address).await.unwrap();
    PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();
    server.signal(Signal::TERM);
    let signalled = Instant::now();
    let (code, errors) = server.wait();
    let took = signalled.elapsed();
    assert_eq!(code, Some(0), "{errors}");
    assert!(took < DRAIN + beyond, "took {took:?}");
    took
}

/// How many were answered, how many were told UNAVAILABLE, and when the last one was.
async fn with_a_queue(beyond: Duration) -> (usize, usize, Duration) {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut server = serve(&address);
    // It accepts nobody any more.
    server.signal(Signal::STOP);
    let path = address.as_path().unwrap();
    let mut calls = JoinSet::new();
    for client in 0..QUEUED {
        if client % 2 == 0 {
            let channel = Channel::builder(&address).connect_lazy();
            calls.spawn(async move {
                match PingServiceClient::new(channel).ping(PingRequest::ping()).await {
                    Ok(_) => true,
                    Err(status) => {
                        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                        false
                    }
                }
            });
        } else {
            let stream = UnixStream::connect(path).await.unwrap();
            calls.spawn(async move {
                let mut peer = Peer::new(stream);
                peer.send(&[PREFACE, &settings(&[])].concat()).await;
                peer.until_go_away().await;
                // And then the end.
                while peer.next().await.is_some() {}
                true
            });
        }
    }
    let queued = || {
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        let here = path.parent().unwrap().to_str().unwrap();
        sockets.lines().filter(|line| line.contains(here)).count() > QUEUED
    };
    eventually_async("all are in the queue", queued).await;
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    let signalled = Instant::now();
    let (mut answered, mut unavailable) = (0, 0);
    let all = async {
        while let Some(call) = calls.join_next().await {
            *if call.unwrap() { &mut answered } else { &mut unavailable } += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("a client hangs");
    let slowest = signalled.elapsed();
    let (code, errors) = server.wait();
    assert_eq!(code, Some(0), "{errors}");
    let took = signalled.elapsed();
    assert!(took < DRAIN + beyond, "took {took:?}");
    (answered, unavailable, slowest)
}
