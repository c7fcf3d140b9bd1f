//! The four kinds of calls, over Unix sockets and TCP.

use samehost::ping::{
    CollectRequest, ConverseRequest, PingRequest, PingServiceClient, WatchRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::support::{Running, Transport, on_both_transports};

on_both_transports!(
    ping_gets_pong,
    an_empty_message_is_a_ping,
    any_other_message_is_refused_and_shown,
    a_conversation_alternates_and_ends_at_end,
    a_conversation_ends_at_a_wrong_word,
    a_conversation_ends_when_the_client_has_sent_its_last,
    a_watch_sends_as_many_pongs_as_asked,
    a_watch_without_count_goes_on_until_cancelled,
    a_watch_pauses_between_its_pongs,
    a_watch_refuses_a_negative_interval,
    collect_counts_messages_and_bytes,
    collect_of_nothing_is_zero,
    collect_refuses_a_wrong_word,
    a_message_over_the_limit_is_refused,
    a_megabyte_comes_back_as_it_was,
    a_hundred_calls_share_a_connection,
);

async fn ping_gets_pong(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let request =
        PingRequest { payload: vec![0, 255, 7].into(), sequence: u64::MAX, ..PingRequest::ping() };
    let reply = client.ping(request).await.unwrap().into_inner();
    assert_eq!(reply.message, "pong");
    assert_eq!(reply.payload[..], [0, 255, 7]);
    assert_eq!(reply.sequence, u64::MAX);
    drop(client);
    server.stop().await;
}

async fn an_empty_message_is_a_ping(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let reply = client.ping(PingRequest::default()).await.unwrap();
    assert_eq!(reply.into_inner().message, "pong");
}

async fn any_other_message_is_refused_and_shown(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    for message in ["pong", "end", "PING", "ping "] {
        let request = PingRequest { message: message.to_owned(), ..PingRequest::default() };
        let status = client.ping(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(&format!("{message:?}")), "{}", status.message());
    }
}

async fn a_conversation_alternates_and_ends_at_end(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let (turns, requests) = mpsc::channel(1);
    let mut replies = client.converse(ReceiverStream::new(requests)).await.unwrap().into_inner();
    for sequence in 0..3 {
        turns.send(turn("ping", sequence)).await.unwrap();
        let reply = replies.message().await.unwrap().unwrap();
        assert_eq!((reply.message.as_str(), reply.sequence), ("pong", sequence));
    }
    turns.send(turn("end", 3)).await.unwrap();
    assert_eq!(replies.message().await.unwrap(), None);
}

async fn a_conversation_ends_at_a_wrong_word(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let requests = tokio_stream::iter([turn("ping", 0), turn("hello", 1), turn("ping", 2)]);
    let mut replies = client.converse(requests).await.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap().unwrap().message, "pong");
    let status = replies.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("hello"), "{}", status.message());
}

async fn a_conversation_ends_when_the_client_has_sent_its_last(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let requests = tokio_stream::iter([turn("ping", 0), turn("", 1)]);
    let mut replies = client.converse(requests).await.unwrap().into_inner();
    for _ in 0..2 {
        assert_eq!(replies.message().await.unwrap().unwrap().message, "pong");
    }
    assert_eq!(replies.message().await.unwrap(), None);
}

fn turn(message: &str, sequence: u64) -> ConverseRequest {
    ConverseRequest { message: message.to_owned(), sequence, ..ConverseRequest::default() }
}

async fn a_watch_sends_as_many_pongs_as_asked(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let request = WatchRequest { count: 1000, payload: vec![7; 100].into(), interval: None };
    let mut pongs = client.watch(request).await.unwrap().into_inner();
    for sequence in 0..1000 {
        let pong = pongs.message().await.unwrap().unwrap();
        assert_eq!((pong.message.as_str(), pong.sequence), ("pong", sequence));
        assert_eq!(pong.payload[..], [7; 100]);
    }
    assert_eq!(pongs.message().await.unwrap(), None);
}

async fn a_watch_without_count_goes_on_until_cancelled(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut pongs = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    for _ in 0..5000 {
        pongs.message().await.unwrap().unwrap();
    }
    drop(pongs);
    // The connection can be used for the next call. The server can stop, since no handler is left.
    client.ping(PingRequest::ping()).await.unwrap();
    drop(client);
    server.stop().await;
}

async fn a_watch_pauses_between_its_pongs(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let interval = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
    let started = std::time::Instant::now();
    let request = WatchRequest { count: 4, interval, payload: Default::default() };
    let mut pongs = client.watch(request).await.unwrap().into_inner();
    while pongs.message().await.unwrap().is_some() {}
    assert!(started.elapsed() >= std::time::Duration::from_millis(60));
}

async fn a_watch_refuses_a_negative_interval(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let interval = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let request = WatchRequest { count: 1, interval, payload: Default::default() };
    let status = client.watch(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

async fn collect_counts_messages_and_bytes(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let requests = (0..1000)
        .map(|size| CollectRequest { payload: vec![0; size].into(), ..CollectRequest::default() });
    let collected = client.collect(tokio_stream::iter(requests)).await.unwrap().into_inner();
    assert_eq!((collected.count, collected.bytes), (1000, 499_500));
}

async fn collect_of_nothing_is_zero(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let collected = client.collect(tokio_stream::empty()).await.unwrap().into_inner();
    assert_eq!((collected.count, collected.bytes), (0, 0));
}

async fn collect_refuses_a_wrong_word(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let request = CollectRequest { message: "end".to_owned(), ..CollectRequest::default() };
    let status = client.collect(tokio_stream::once(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("end"), "{}", status.message());
}

async fn a_message_over_the_limit_is_refused(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let request = PingRequest { payload: vec![0; 4 << 20].into(), ..PingRequest::ping() };
    let status = client.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    client.ping(PingRequest::ping()).await.unwrap();
}

async fn a_megabyte_comes_back_as_it_was(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let payload: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(i) >> 7) as u8).collect();
    let request = PingRequest { payload: payload.clone().into(), ..PingRequest::ping() };
    let reply = client.ping(request).await.unwrap().into_inner();
    assert!(reply.payload == payload);
}

async fn a_hundred_calls_share_a_connection(transport: Transport) {
    let server = Running::ping(transport).await;
    let channel = server.channel().await;
    let calls: Vec<_> = (0..100)
        .map(|sequence| {
            let mut client = PingServiceClient::new(channel.clone());
            tokio::spawn(async move {
                let request = PingRequest { sequence, ..PingRequest::ping() };
                client.ping(request).await.unwrap().into_inner().sequence
            })
        })
        .collect();
    for (sequence, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), sequence as u64);
    }
}
