//! How a channel finds its server: one of several addresses, a server that ends or is slow, a runtime
//! that is shut down.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use samehost::{Channel, ChannelState, ConnectError, ConnectErrorKind, PeerPolicy};
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout};

use crate::ready::{bad_then_good, bind, named, ping};
use crate::support::{Running, Transport, directory, eventually_async, socket_in};
use crate::wire::{PREFACE, Peer, block, data, flag, frame, headers, kind, message, settings};

// ---- Several addresses ---------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn calls_go_to_the_first_address_that_has_a_server_and_return_to_it() {
    let first = Running::start(Transport::Unix, named("first")).await;
    let second = Running::start(Transport::Tcp, named("second")).await;
    let addresses = [first.address.clone(), second.address.clone()];
    let channel = Channel::builder(addresses.clone()).connect().await.unwrap();
    let who = async || ping(&channel, None).await.unwrap().message;
    assert_eq!(who().await, "first");

    let changed = channel.state_changed();
    let directory = first.stop().await;
    assert_eq!(changed.await, ChannelState::Idle);
    assert_eq!(who().await, "second");

    let _first = Running::start_at(&addresses[0], named("first again")).await;
    assert_eq!(who().await, "second", "it was not looked for yet");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(who().await, "first again");

    drop((directory, second));
    let nowhere = Channel::builder(["unix:/no/such", "127.0.0.1:1"]).connect().await.unwrap_err();
    assert_eq!(nowhere.kind(), ConnectErrorKind::NoServer);
    assert_eq!(nowhere.address().unwrap().to_string(), "unix:/no/such");
    for address in ["unix:/no/such", "127.0.0.1:1"] {
        assert!(nowhere.to_string().contains(address), "{nowhere}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_server_that_does_not_speak_holds_up_nobody() {
    let (silent, _directory) = bind(Transport::Unix).await;
    let second = Running::start(Transport::Tcp, named("second")).await;
    let addresses = [silent.local_addr().clone(), second.address.clone()];
    let started = Instant::now();
    let channel = Channel::builder(addresses).connect().await.unwrap();
    assert_eq!(ping(&channel, None).await.unwrap().message, "second");
    assert_eq!(started.elapsed().as_millis() / 10, 25);
}

/// The server at the first address answers nothing, and that at the second is away for a moment.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_is_found_while_another_one_does_not_speak() {
    let (silent, _directory) = bind(Transport::Unix).await;
    let directory = directory();
    let address = socket_in(directory.path());
    let channel = Channel::builder([silent.local_addr().clone(), address.clone()])
        .connect_timeout(Duration::MAX)
        .wait_for_ready(true)
        .connect_lazy();
    let call = tokio::spawn(async move { ping(&channel, Some(Duration::from_secs(60))).await });
    sleep(Duration::from_secs(2)).await;
    let _server = Running::start_at(&address, named("back")).await;
    assert_eq!(call.await.unwrap().unwrap().message, "back");
}

#[tokio::test(start_paused = true)]
async fn calls_return_to_a_preferred_server_though_one_before_it_does_not_speak() {
    let (silent, _directory) = bind(Transport::Unix).await;
    let directory = directory();
    let second = socket_in(directory.path());
    let third = Running::start(Transport::Tcp, named("third")).await;
    let addresses = [silent.local_addr().clone(), second.clone(), third.address.clone()];
    let channel =
        Channel::builder(addresses).connect_timeout(Duration::MAX).connect().await.unwrap();
    assert_eq!(ping(&channel, None).await.unwrap().message, "third");
    let _second = Running::start_at(&second, named("second")).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(ping(&channel, None).await.unwrap().message, "second");
}

#[tokio::test]
async fn the_error_of_several_addresses_has_what_one_of_them_has() {
    let first = Running::start(Transport::Unix, named("first")).await;
    let addresses = [first.address.to_string(), "unix:/".to_owned()];
    let channel = Channel::builder(addresses).require_server(PeerPolicy::uids([]));
    let error = channel.connect().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::WrongServer);
    assert_eq!(error.address(), Some(&first.address));
    assert!(error.server().is_some());
}

// ---- One address ---------------------------------------------------------------------------

#[tokio::test]
async fn a_connector_is_asked_again_where_a_server_ends_before_it_speaks() {
    let (address, _directory) =
        bad_then_good(Transport::Unix, 2, |conn| async move { drop(conn) }).await;
    let path = address.as_path().unwrap().to_owned();
    let channel = Channel::from_connector(move || UnixStream::connect(path.clone()));
    assert_eq!(ping(&channel, None).await.unwrap().message, "good");
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_does_not_return_is_no_silent_server() {
    let channel = Channel::from_connector(pending::<std::io::Result<UnixStream>>);
    let status = timeout(Duration::from_secs(60), ping(&channel, None)).await.unwrap().unwrap_err();
    let cause = std::error::Error::source(&status).unwrap();
    assert_eq!(cause.downcast_ref::<ConnectError>().unwrap().kind(), ConnectErrorKind::TimedOut);
    assert!(status.message().starts_with("no connection by the connector"), "{status:?}");
}

/// The connect timeout is for the server's SETTINGS, not for the acknowledgement of the client's.
#[tokio::test(start_paused = true)]
async fn a_server_may_be_late_with_its_acknowledgement() {
    let (listener, _directory) = bind(Transport::Unix).await;
    let address = listener.local_addr().clone();
    tokio::spawn(async move {
        let mut server = Peer::new(listener.accept().await.unwrap());
        server.send(&settings(&[])).await;
        let mut preface = [0; PREFACE.len()];
        tokio::io::AsyncReadExt::read_exact(&mut server.io, &mut preface).await.unwrap();
        server.until(|frame| frame.ends_stream()).await;
        sleep(Duration::from_secs(5)).await;
        let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
        let answer = [
            frame(kind::SETTINGS, flag::ACK, 0, &[]),
            headers(1, &head, false),
            data(1, &message(b""), false),
            headers(1, &block(&[("grpc-status", "0")]), true),
        ];
        server.send(&answer.concat()).await;
        pending::<()>().await;
    });
    let timeout = Duration::from_millis(10);
    let channel = Channel::builder(&address).connect_timeout(timeout).connect().await.unwrap();
    ping(&channel, None).await.unwrap();
}

// ---- The runtime ---------------------------------------------------------------------------

#[test]
fn a_call_outlives_the_runtime_that_connects() {
    let directory = directory();
    let address = socket_in(directory.path());
    let channel = Channel::builder(&address).wait_for_ready(true).connect_lazy();
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let theirs = channel.clone();
    first.spawn(async move { ping(&theirs, None).await });
    first.block_on(eventually_async("it connects", || channel.state() != ChannelState::Idle));
    let response = second.block_on(async {
        let mut call = pin!(ping(&channel, None));
        // It waits for what the other runtime does.
        let waits = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
        assert!(waits);
        first.shutdown_background();
        let _server = Running::start_at(&address, named("there")).await;
        call.await
    });
    assert_eq!(response.unwrap().message, "there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_connects_again_at_once_says_so() {
    let channel = Channel::from_connector(pending::<std::io::Result<UnixStream>>);
    for _ in 0..200 {
        let given_up = timeout(Duration::from_millis(1), ping(&channel, None)).await;
        assert!(given_up.is_err());
        let theirs = channel.clone();
        let call = tokio::spawn(async move { ping(&theirs, None).await });
        // What was given up may still be dropped.
        sleep(Duration::from_millis(1)).await;
        eventually_async("it connects", || channel.state() == ChannelState::Connecting).await;
        call.abort();
        let _ = call.await;
    }
}
