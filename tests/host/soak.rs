//! Connections that come and go, with calls of all kinds, some of them given up: what a server and
//! its clients hold must not grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use samehost::ping::{
    CollectRequest, ConverseRequest, PingRequest, PingServiceClient, WatchRequest,
};
use samehost::{Address, Channel};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

use crate::Scale;
use crate::support::{
    Serving, block_on, directory, eventually_async, need_descriptors, open_descriptors, socket_in,
};

/// What resident memory may be more than after the warm-up: what malloc's luck is worth.
const SLACK: usize = 16 << 20;

pub(crate) fn of_mixed_calls(scale: Scale) -> String {
    let connections = scale.pick(100, 1_000);
    let calls = scale.calls.unwrap_or(scale.pick(20_000, 10_000_000));
    if !need_descriptors(2 * connections + 1_000) {
        return "left out: too few file descriptors are allowed".to_owned();
    }
    let directory = directory();
    let address = socket_in(directory.path());
    let server = Serving::start(&[&address.to_string()], &[]);
    let id = server.id();
    block_on(async {
        // A server that has answered has opened what it watches its socket's file with, too.
        let mut first = PingServiceClient::new(Channel::connect(&address).await.unwrap());
        first.ping(PingRequest::ping()).await.unwrap();
        let at_rest = (open_descriptors(id), open_descriptors("self"));
        load(&address, connections, calls / 10).await;
        let warm = server.memory("VmRSS");
        let opened = load(&address, connections, calls).await;
        let closed = || (open_descriptors(id), open_descriptors("self")) <= at_rest;
        eventually_async("no descriptor more than before", closed).await;
        drop(first);
        let end = server.memory("VmRSS");
        assert!(end <= warm + SLACK, "grew from {} to {} KiB", warm >> 10, end >> 10);
        format!(
            "{calls} calls on {opened} connections, {connections} at a time: the server's \
             descriptors {} before and {} after, resident memory {} KiB warmed up and {} KiB at \
             the end",
            at_rest.0,
            open_descriptors(id),
            warm >> 10,
            end >> 10
        )
    })
}

/// How many connections that took.
async fn load(address: &Address, connections: u64, calls: u64) -> u64 {
    let left = Arc::new(AtomicU64::new(calls));
    let opened = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..connections {
        let (address, left, opened) = (address.clone(), Arc::clone(&left), Arc::clone(&opened));
        clients.spawn(async move {
            for connection in 0.. {
                let patience = Channel::builder(&address).connect_timeout(Duration::MAX);
                let channel = patience.connect().await.unwrap();
                opened.fetch_add(1, Ordering::Relaxed);
                let mut stubs = PingServiceClient::new(channel);
                for number in 0..100 + (client * 7 + connection * 31) % 800 {
                    if left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                            left.checked_sub(1)
                        })
                        .is_err()
                    {
                        return;
                    }
                    let kind = (client + connection + number) % 32;
                    call(&mut stubs, kind).await.unwrap();
                }
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    opened.load(Ordering::Relaxed)
}

/// One call, of a kind and a size by number.
async fn call(stubs: &mut PingServiceClient<Channel>, kind: u64) -> Result<(), Status> {
    let endless = WatchRequest { payload: vec![7; 100].into(), ..WatchRequest::default() };
    match kind {
        0 => {
            let mut pongs = stubs.watch(WatchRequest { count: 10, ..endless }).await?.into_inner();
            while pongs.message().await?.is_some() {}
        }
        1 => {
            // Dropped in the midst of it.
            let mut pongs = stubs.watch(endless).await?.into_inner();
            for _ in 0..3 {
                pongs.message().await?;
            }
        }
        2 => {
            let ping = CollectRequest { payload: vec![7; 5_000].into(), ..Default::default() };
            let pings = tokio_stream::iter(vec![ping; 10]);
            assert_eq!(stubs.collect(pings).await?.into_inner().count, 10);
        }
        3 => {
            let ping = ConverseRequest { message: "ping".to_owned(), ..Default::default() };
            let pings = tokio_stream::iter(vec![ping; 10]);
            let mut pongs = stubs.converse(pings).await?.into_inner();
            while pongs.message().await?.is_some() {}
        }
        4 => {
            // Given up as soon as it is sent.
            let mut call = Box::pin(stubs.ping(PingRequest::ping()));
            std::future::poll_fn(|cx| {
                let _ = call.as_mut().poll(cx);
                std::task::Poll::Ready(())
            })
            .await;
        }
        5 => {
            let mut request = Request::new(WatchRequest {
                interval: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
                ..endless
            });
            request.set_timeout(Duration::from_millis(20));
            let end = async {
                let mut pongs = stubs.watch(request).await?.into_inner();
                while pongs.message().await?.is_some() {}
                Ok(())
            };
            let status: Status = Result::unwrap_err(end.await);
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        }
        6 => {
            let wrong = PingRequest { message: "wrong".to_owned(), ..PingRequest::default() };
            let status = stubs.ping(wrong).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        }
        size => {
            let payload = vec![7; 16 << (size % 10)];
            let request = PingRequest { payload: payload.into(), ..PingRequest::ping() };
            stubs.ping(request).await?;
        }
    }
    Ok(())
}
