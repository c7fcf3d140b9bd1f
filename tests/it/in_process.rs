//! A server and its client in one process, without a socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use samehost::ping::{
    CollectRequest, PingRequest, PingServiceClient, PingServiceServer, WatchRequest,
};
use samehost::{Channel, PeerPolicy, Server};
use tokio::io::{AsyncRead, AsyncWrite, BufStream, DuplexStream, ReadBuf};
use tokio::time::{Instant, Sleep};
use tonic::{Code, Request};

use crate::deadlines::never;
use crate::support::Scripted;

#[tokio::test]
async fn unary_calls_and_streams_go_through() {
    let ping = samehost::ping::Ping::default();
    let channel = Channel::to(Server::new().add_service(PingServiceServer::new(ping)));
    let mut client = PingServiceClient::new(channel);
    let payload = vec![7; 1_000_000];
    let request = PingRequest { payload: payload.clone().into(), ..PingRequest::ping() };
    assert_eq!(client.ping(request).await.unwrap().into_inner().payload, payload);
    let request = WatchRequest { count: 5, ..WatchRequest::default() };
    let mut stream = client.watch(request).await.unwrap().into_inner();
    let mut messages = 0;
    while stream.message().await.unwrap().is_some() {
        messages += 1;
    }
    assert_eq!(messages, 5);
}

/// A paused clock only advances to the next timer, so an hour takes no time.
#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_call_at_both_ends() {
    let (service, alive) = never();
    let mut client = PingServiceClient::new(Channel::to(service.server()));
    let started = Instant::now();
    let mut request = Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_secs(3_600));
    let status = client.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(started.elapsed().as_secs(), 3_600);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(alive.load(Ordering::SeqCst), 0, "the handler is dropped");
}

#[tokio::test]
async fn the_servers_limits_hold() {
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let running = Arc::new(AtomicUsize::new(0));
    let script = (Arc::clone(&go), Arc::clone(&running));
    let service = Scripted::default().on_ping(move |_| {
        let (go, running) = script.clone();
        async move {
            running.fetch_add(1, Ordering::SeqCst);
            go.acquire().await.unwrap().forget();
            Ok(tonic::Response::new(samehost::ping::PingResponse::default()))
        }
    });
    let channel = Channel::to(service.server().max_concurrent_streams(2));
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let mut client = PingServiceClient::new(channel.clone());
            tokio::spawn(async move { client.ping(PingRequest::ping()).await })
        })
        .collect();
    crate::support::eventually_async("two run", || running.load(Ordering::SeqCst) == 2).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.load(Ordering::SeqCst), 2);
    go.add_permits(3);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_on_calls_holds_for_all_connections_of_a_channel() {
    let (service, alive) = never();
    let age = Duration::from_secs(1);
    let server = service.server().concurrency_limit(1).load_shed(true).max_connection_age(age);
    let channel = Channel::to(server);
    let mut first = PingServiceClient::new(channel.clone());
    let first = tokio::spawn(async move { first.ping(PingRequest::ping()).await });
    // The next call comes on another connection, since the first one is too old.
    tokio::time::sleep(2 * age).await;
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    let status = PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(!first.is_finished());
}

#[tokio::test]
async fn a_call_that_cannot_be_sent_leaves_its_slot_to_the_next() {
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let waits = Arc::clone(&go);
    let service = Scripted::default().on_ping(move |_| {
        let go = Arc::clone(&waits);
        async move {
            go.acquire().await.unwrap().forget();
            Ok(tonic::Response::new(samehost::ping::PingResponse::default()))
        }
    });
    let server = service.server().max_concurrent_streams(1).max_header_list_size(1000);
    let client = PingServiceClient::new(Channel::to(server));
    go.add_permits(1);
    client.clone().ping(PingRequest::ping()).await.unwrap();
    let call = |header: usize| {
        let mut client = client.clone();
        let mut request = Request::new(PingRequest::ping());
        request.metadata_mut().insert("text", "a".repeat(header).parse().unwrap());
        tokio::spawn(async move { client.ping(request).await })
    };
    let first = call(1);
    // Each task runs until it waits.
    tokio::task::yield_now().await;
    let (too_large, last) = (call(2000), call(1));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!too_large.is_finished(), "it waits for a slot before its size is known");
    go.add_permits(2);
    first.await.unwrap().unwrap();
    assert_eq!(too_large.await.unwrap().unwrap_err().code(), Code::ResourceExhausted);
    tokio::time::timeout(Duration::from_secs(60), last).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn nobody_is_at_the_other_end_for_a_policy() {
    let server = Scripted::default().server().peer_policy(PeerPolicy::same_user());
    let mut client = PingServiceClient::new(Channel::to(server));
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let text = status.message();
    assert!(text.starts_with("refused by the server's policy: the peer is unknown"), "{text}");
}

#[tokio::test]
async fn a_refusal_tells_its_reason() {
    let ping = || PingServiceServer::new(samehost::ping::Ping::default());
    let full = Server::new().add_service(ping()).max_connections(0);
    let twice = Server::new().add_service(ping()).add_service(ping());
    for (server, code, reason) in [
        (full, Code::ResourceExhausted, "too many connections"),
        (twice, Code::Unavailable, "two services are named ping.v1.PingService"),
    ] {
        let mut client = PingServiceClient::new(Channel::to(server));
        let status = client.ping(PingRequest::ping()).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(reason), "{status:?}");
    }
}

/// TLS and the standard streams of a process keep bytes until they are flushed, as `BufStream` does.
#[tokio::test]
async fn streams_that_buffer_are_flushed() {
    let ping = || {
        let ping = samehost::ping::Ping::default();
        Server::new().add_service(PingServiceServer::new(ping))
    };
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(ping().serve_connection(BufStream::new(theirs)));
    let given = Channel::from_stream(BufStream::new(ours));
    let connected = Channel::from_connector(move || {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let incoming = tokio_stream::once(std::io::Result::Ok(BufStream::new(theirs)));
        tokio::spawn(ping().serve_incoming(incoming, std::future::pending()));
        std::future::ready(std::io::Result::Ok(BufStream::new(ours)))
    });
    for channel in [given, connected] {
        let mut client = PingServiceClient::new(channel);
        for size in [0, 100_000] {
            let payload = vec![7; size];
            let mut request = Request::new(PingRequest {
                payload: payload.clone().into(),
                ..PingRequest::ping()
            });
            request.set_timeout(Duration::from_secs(20));
            assert_eq!(client.ping(request).await.unwrap().into_inner().payload, payload);
        }
    }
}

/// A stream that keeps what is written to it, and whose flush takes a moment, as TLS over a full socket.
struct SlowFlush {
    stream: DuplexStream,
    kept: Vec<u8>,
    moment: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for SlowFlush {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for SlowFlush {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.kept.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, kept, moment } = &mut *self;
        while !kept.is_empty() {
            let sleep = || Box::pin(tokio::time::sleep(Duration::from_millis(20)));
            ready!(moment.get_or_insert_with(sleep).as_mut().poll(cx));
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, kept))?;
            kept.drain(..written);
        }
        *moment = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// So much is held that no connection is read until one of them is closed, after a minute.
#[tokio::test]
async fn a_slow_flush_goes_on_while_the_connection_is_not_read() {
    let (go, started) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let script = (Arc::clone(&go), Arc::clone(&started));
    let service = Scripted::default()
        .on_ping(move |_| {
            let (go, started) = script.clone();
            async move {
                started.fetch_add(1, Ordering::SeqCst);
                go.acquire().await.unwrap().forget();
                Ok(tonic::Response::new(samehost::ping::PingResponse::default()))
            }
        })
        .on_collect(async |request| {
            std::future::pending::<()>().await;
            drop(request);
            unreachable!()
        });
    let mut server = service.server().max_buffered_bytes(300_000);
    let stats = server.stats();
    let (pipes, incoming) = tokio::sync::mpsc::channel(4);
    let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
    tokio::spawn(server.serve_incoming(incoming, std::future::pending()));
    let mut pings = Vec::new();
    for connection in 1..=4 {
        let (ours, stream) = tokio::io::duplex(1 << 20);
        pipes.send(Ok(SlowFlush { stream, kept: Vec::new(), moment: None })).await.unwrap();
        let client = PingServiceClient::new(Channel::from_stream(ours));
        let mut caller = client.clone();
        pings.push(tokio::spawn(async move { caller.ping(PingRequest::ping()).await }));
        let begun = || started.load(Ordering::SeqCst) == connection;
        crate::support::eventually_async("the call has begun", begun).await;
        for _ in 0..50 {
            let mut client = client.clone();
            let upload = CollectRequest { payload: vec![7; 60_000].into(), ..Default::default() };
            tokio::spawn(async move {
                client.collect(tokio_stream::iter([upload.clone(), upload])).await
            });
        }
    }
    let much = || stats.snapshot().buffered_bytes > 9 << 20;
    crate::support::eventually_async("much is held", much).await;
    go.add_permits(4);
    for ping in pings {
        tokio::time::timeout(Duration::from_secs(20), ping).await.unwrap().unwrap().unwrap();
    }
}
