use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use http::Request;
use tonic::body::Body;
use tower::Service;

use super::{Channel, ResponseFuture};
use crate::address::Address;
use crate::{Listener, Server};

fn call(channel: &Channel) -> ResponseFuture {
    let request = Request::post("http://localhost/a.B/C")
        .header("content-type", "application/grpc")
        .body(Body::empty())
        .unwrap();
    channel.clone().call(request)
}

/// Returns a channel, and the bare socket at the other end. That end has sent its SETTINGS and has
/// read all that came. It accepts no other connection.
async fn connected(directory: &Path) -> (Channel, UnixStream) {
    let path = directory.join("bare.sock");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let connecting = tokio::spawn(Channel::connect(Address::unix(path).unwrap()));
    let mut server = loop {
        match listener.accept() {
            Ok((server, _)) => break server,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    server.set_nonblocking(true).unwrap();
    let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    server.write_all(&empty_settings).unwrap();
    let channel = connecting.await.unwrap().unwrap();
    // The preface, SETTINGS, a window and the acknowledgement.
    let acknowledged = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    let mut all = Vec::new();
    while !all.ends_with(&acknowledged) {
        let _ = server.read_to_end(&mut all);
        tokio::task::yield_now().await;
    }
    (channel, server)
}

#[tokio::test]
async fn the_only_call_is_sent_by_its_caller_and_several_by_one_write() {
    let directory = tempfile::tempdir().unwrap();
    let (channel, mut server) = connected(directory.path()).await;
    let mut bytes = [0; 4096];
    tokio::task::yield_now().await;

    let mut cx = Context::from_waker(Waker::noop());
    let mut calls = [0; 4].map(|_| call(&channel));
    assert!(Pin::new(&mut calls[0]).poll(&mut cx).is_pending());
    let first = server.read(&mut bytes).expect("nothing else has run");
    let headers = 1;
    assert_eq!((bytes[3], bytes[8]), (headers, 1));
    for call in &mut calls[1..] {
        assert!(Pin::new(call).poll(&mut cx).is_pending());
    }
    assert!(server.read(&mut bytes).is_err(), "they are left to the driver");
    let others = loop {
        tokio::task::yield_now().await;
        if let Ok(read) = server.read(&mut bytes) {
            break read;
        }
    };
    let streams: Vec<u8> = frames(&bytes[..others]).map(|frame| frame[8]).collect();
    assert_eq!(streams, [3, 5, 7], "after one of {first} bytes");
}

fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = u32::from_be_bytes([0, *bytes.first()?, bytes[1], bytes[2]]);
        let (frame, rest) = bytes.split_at(9 + len as usize);
        bytes = rest;
        Some(frame)
    })
}

#[tokio::test]
async fn what_a_caller_cannot_send_the_driver_does() {
    let directory = tempfile::tempdir().unwrap();
    let (channel, mut server) = connected(directory.path()).await;
    let mut cx = Context::from_waker(Waker::noop());
    let link = channel.0.current().unwrap();
    let (mut bytes, mut some) = (Vec::new(), [0; 64]);
    let mut last = 0;
    let waiting = loop {
        // The driver sends how the previous call ended, so that this one is alone. If there is no
        // room for that, the test makes some.
        for turn in 0.. {
            if !link.sender.has_unsent() {
                break;
            }
            tokio::task::yield_now().await;
            if turn > 100 {
                let len = server.read(&mut some).unwrap();
                bytes.extend_from_slice(&some[..len]);
            }
        }
        let mut call = call(&channel);
        assert!(Pin::new(&mut call).poll(&mut cx).is_pending());
        last += 1;
        if link.sender.has_unsent() {
            break call;
        }
    };
    assert!(last > 10, "the socket was full after {last} calls");
    while link.sender.has_unsent() {
        tokio::task::yield_now().await;
        let _ = server.read_to_end(&mut bytes);
    }
    let _ = server.read_to_end(&mut bytes);
    let last_frame = frames(&bytes).last().unwrap();
    assert_eq!(last_frame[5..9], u32::to_be_bytes(2 * last - 1), "nothing is lost");

    drop((server, waiting));
    while link.sender.is_open() {
        let error = call(&channel).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unavailable, "{error:?}");
    }
}

/// 2^30 calls take days, so the test starts near the end of the identifiers.
#[tokio::test]
async fn a_connection_without_identifiers_is_followed_by_another() {
    let directory = tempfile::tempdir().unwrap();
    let address = Address::unix(directory.path().join("ids.sock")).unwrap();
    let listener = Listener::bind(&address).await.unwrap();
    tokio::spawn(Server::new().serve(listener));
    let channel = Channel::connect(&address).await.unwrap();
    let first = channel.0.current().unwrap();
    first.sender.leave_identifiers(3);
    for call in 0..6 {
        let next = self::call(&channel);
        // There is no such service. Only a server can say that.
        let response = next.await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "12");
        let same = channel.0.current().is_some_and(|link| link.sender.is_same(&first.sender));
        assert_eq!(same, call < 2, "call {call}");
    }
}

#[test]
fn a_keep_alive_interval_of_zero_is_none() {
    let keep_alive = |interval| {
        let channel = Channel::builder("unix:/run/app.sock").keep_alive_interval(interval);
        channel.driver_options(0).http2.keep_alive
    };
    assert!(keep_alive(Duration::ZERO).is_none());
    assert!(keep_alive(Duration::from_millis(1)).is_some());
}

#[tokio::test]
async fn a_list_without_addresses_is_said_to_be_empty() {
    let none: [&str; 0] = [];
    let error = Channel::builder(none).connect().await.unwrap_err();
    assert!(error.to_string().contains("the list is empty"), "{error}");
    assert_eq!(error.kind(), crate::ConnectErrorKind::InvalidAddress);
}

/// As of tests that share a channel and have a runtime each.
#[test]
fn a_call_that_waits_goes_on_though_other_runtimes_that_connect_are_shut_down() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let address = Address::unix(directory.path().join("later.sock")).unwrap();
    let channel = Channel::builder(&address).wait_for_ready(true).connect_lazy();
    let own = runtime();
    let mut waiting = call(&channel);
    let mut cx = Context::from_waker(Waker::noop());
    for round in 0..6 {
        let other = runtime();
        let mut begun = call(&channel);
        let entered = other.enter();
        assert!(Pin::new(&mut begun).poll(&mut cx).is_pending());
        drop(entered);
        let _entered = own.enter();
        let joined = Pin::new(&mut waiting).poll(&mut cx);
        assert!(joined.is_pending(), "round {round}: {joined:?}");
        drop(other);
    }
    own.block_on(async {
        let listener = Listener::bind(&address).await.unwrap();
        tokio::spawn(Server::new().serve(listener));
        let answered = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        answered.expect("it connects by itself").unwrap();
    });
}
