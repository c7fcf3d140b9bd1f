//! Connections without calls, and peers that are stuck.

use std::time::Duration;

use rustix::process::Signal;
use samehost::ping::{Ping, PingRequest, PingServiceClient, PingServiceServer, WatchRequest};
use samehost::{Channel, Server};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::Code;

use crate::support::{Running, Serving, Transport, directory, eventually_async, socket_in};
use crate::wire::{Peer, flag, frame, kind};

const SHORT: Duration = Duration::from_millis(50);

fn ping_server() -> Server {
    Server::new().add_service(PingServiceServer::new(Ping::default()))
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_opened_again_at_the_next_call() {
    let server = ping_server().idle_timeout(SHORT);
    let server = Running::start(Transport::Unix, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    for _ in 0..3 {
        client.ping(PingRequest::ping()).await.unwrap();
        let connected = || {
            let table = std::fs::read_to_string("/proc/net/unix").unwrap();
            let path = server.address.as_path().unwrap().to_str().unwrap().to_owned();
            // State 03 is connected, 01 is listening.
            table.lines().any(|line| line.ends_with(&path) && line.contains(" 03 "))
        };
        eventually_async("the idle connection is closed", || !connected()).await;
    }
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_and_one_that_does_stays() {
    // This is enough time for a client that answers, even on a busy machine.
    let server =
        ping_server().keep_alive_interval(SHORT).keep_alive_timeout(Duration::from_secs(2));
    let server = Running::start(Transport::Unix, server).await;
    let path = server.address.as_path().unwrap();
    let mut stuck = Peer::client(UnixStream::connect(path).await.unwrap(), &[]).await;
    let mut lively = Peer::client(UnixStream::connect(path).await.unwrap(), &[]).await;
    for _ in 0..3 {
        let ping = lively.until(|frame| frame.kind == kind::PING).await;
        lively.send(&frame(kind::PING, flag::ACK, 0, &ping.payload)).await;
    }
    timeout(Duration::from_secs(10), stuck.until_go_away()).await.expect("it does not answer");
    assert_eq!(stuck.next().await, None);
}

#[tokio::test]
async fn a_call_to_a_server_that_is_stopped_fails_with_keep_alive() {
    let directory = directory();
    let address = socket_in(directory.path());
    let serving = Serving::start(&[&address.to_string()], &[]);
    let builder = Channel::builder(&address).keep_alive_interval(SHORT);
    // Until it is stopped, the server has enough time, even on a busy machine.
    let builder = builder.keep_alive_timeout(Duration::from_secs(2));
    let channel = builder.connect().await.unwrap();
    let mut client = PingServiceClient::new(channel);
    let mut pongs = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    pongs.message().await.unwrap().unwrap();
    serving.signal(Signal::STOP);
    let stopped = async {
        loop {
            // Messages that it sent before can still be read.
            if let Err(status) = pongs.message().await {
                return status;
            }
        }
    };
    let status = timeout(Duration::from_secs(60), stopped).await.expect("it does not answer");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    serving.signal(Signal::CONT);
    let mut other = PingServiceClient::new(Channel::connect(&address).await.unwrap());
    other.ping(PingRequest::ping()).await.unwrap();
}
