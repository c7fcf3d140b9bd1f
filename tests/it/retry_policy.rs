//! Calls that failed and are made again by a policy (gRFC A6).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use samehost::ping::{
    CollectRequest, CollectResponse, PingRequest, PingResponse, PingServiceClient, WatchRequest,
    WatchResponse,
};
use samehost::{Channel, RetryPolicy};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use crate::support::{Running, Scripted, Transport, directory, on_both_transports, socket_in};

on_both_transports!(
    a_failed_call_is_made_again_and_says_so,
    other_failures_are_not_tried_again,
    a_server_says_that_nobody_should_try_again,
    a_request_that_is_a_stream_is_sent_once,
    what_has_begun_is_not_tried_again,
    failures_use_up_the_channels_tokens,
);

/// The number of earlier attempts that each attempt has told.
type Seen = Arc<Mutex<Vec<Option<String>>>>;

fn previous<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get("grpc-previous-rpc-attempts")?;
    Some(value.to_str().unwrap().to_owned())
}

/// Returns a service that fails `times` times with `failure`.
fn failing(
    times: usize,
    failure: impl Fn() -> Status + Clone + Send + Sync + 'static,
) -> (Scripted, Seen) {
    let seen = Seen::default();
    let (pings, watches) = (Arc::clone(&seen), Arc::clone(&seen));
    let watch_failure = failure.clone();
    let service = Scripted::default()
        .on_ping(move |request| {
            let mut pings = pings.lock().unwrap();
            pings.push(previous(&request));
            let answer = if pings.len() <= times { Err(failure()) } else { Ok(()) };
            async move { answer.map(|()| Response::new(PingResponse::default())) }
        })
        .on_watch(move |request| {
            let mut watches = watches.lock().unwrap();
            watches.push(previous(&request));
            let answer = if watches.len() <= times { Err(watch_failure()) } else { Ok(()) };
            tokio_stream::once(answer.map(|()| WatchResponse::default()))
        });
    (service, seen)
}

/// Waits little, and has tokens for all that a test does.
pub(crate) fn policy() -> RetryPolicy {
    RetryPolicy::new()
        .max_attempts(4)
        .backoff(Duration::from_millis(1), Duration::from_millis(4))
        .throttle(100, 0.1)
}

fn client(server: &Running, policy: RetryPolicy) -> PingServiceClient<Channel> {
    PingServiceClient::new(Channel::builder(&server.address).retry(policy).connect_lazy())
}

fn unavailable() -> Status {
    Status::unavailable("not now")
}

async fn a_failed_call_is_made_again_and_says_so(transport: Transport) {
    let (service, seen) = failing(3, unavailable);
    let server = Running::start(transport, service.server()).await;
    client(&server, policy()).ping(PingRequest::ping()).await.unwrap();
    let expected = [None, Some("1"), Some("2"), Some("3")];
    assert_eq!(seen.lock().unwrap().iter().map(Option::as_deref).collect::<Vec<_>>(), expected);

    let (service, seen) = failing(9, unavailable);
    let server = Running::start(transport, service.server()).await;
    let status = client(&server, policy()).ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "not now"));
    assert_eq!(seen.lock().unwrap().len(), 4);
}

async fn other_failures_are_not_tried_again(transport: Transport) {
    let (service, seen) = failing(9, || Status::not_found("none"));
    let server = Running::start(transport, service.server()).await;
    client(&server, policy()).ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(seen.lock().unwrap().len(), 1);
    // A policy can name other codes. There are at most gRPC's five attempts.
    let policy = policy().codes([Code::NotFound]).max_attempts(50);
    client(&server, policy).ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(seen.lock().unwrap().len(), 6);
}

fn pushback(value: &'static str) -> impl Fn() -> Status + Clone {
    move || {
        let mut status = unavailable();
        status.metadata_mut().insert("grpc-retry-pushback-ms", value.parse().unwrap());
        status
    }
}

async fn a_server_says_that_nobody_should_try_again(transport: Transport) {
    let (service, seen) = failing(9, pushback("-1"));
    let server = Running::start(transport, service.server()).await;
    client(&server, policy()).ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_says_when_to_try_again() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let (service, seen) = failing(1, pushback("70000"));
        let server = Running::start(transport, service.server()).await;
        let started = Instant::now();
        client(&server, policy()).ping(PingRequest::ping()).await.unwrap();
        assert_eq!(seen.lock().unwrap().len(), 2);
        assert_eq!(started.elapsed().as_secs(), 70);
    }
}

/// Returns a service that fails each first attempt of a call, and the timeouts that attempts have told,
/// in microseconds.
pub(crate) fn failing_each_first_time(
    failure: impl Fn() -> Status + Clone + Send + Sync + 'static,
) -> (Scripted, Arc<Mutex<Vec<u32>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let attempts = Arc::clone(&told);
    let service = Scripted::default().on_ping(move |request| {
        let timeout = request.metadata().get("grpc-timeout").unwrap();
        let timeout: u32 = timeout.to_str().unwrap().trim_end_matches('u').parse().unwrap();
        let mut attempts = attempts.lock().unwrap();
        attempts.push(timeout);
        let is_first = attempts.len() % 2 == 1;
        let answer = if is_first { Err(failure()) } else { Ok(()) };
        async move { answer.map(|()| Response::new(PingResponse::default())) }
    });
    (service, told)
}

#[tokio::test(start_paused = true)]
async fn each_attempt_tells_how_much_time_is_left() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let (service, told) = failing_each_first_time(pushback("30000"));
        let server = Running::start(transport, service.server()).await;
        let mut request = Request::new(PingRequest::ping());
        request.set_timeout(Duration::from_secs(90));
        client(&server, policy()).ping(request).await.unwrap();
        let channel = Channel::builder(&server.address).retry(policy());
        let channel = channel.timeout(Duration::from_secs(80)).connect_lazy();
        PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();
        let told = told.lock().unwrap();
        let seconds: Vec<u32> = told.iter().map(|micros| micros.div_ceil(1_000_000)).collect();
        assert_eq!(seconds, [90, 60, 80, 50]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_all_attempts() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let (service, _) = failing(9, unavailable);
        let server = Running::start(transport, service.server()).await;
        let slow = policy().backoff(Duration::from_secs(60), Duration::from_secs(60));
        let started = Instant::now();
        let mut request = Request::new(PingRequest::ping());
        request.set_timeout(Duration::from_secs(5));
        let status = client(&server, slow).ping(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert_eq!(started.elapsed().as_secs(), 5);
        assert!(status.message().contains("failed 1 times within"), "{status:?}");
    }
}

async fn a_request_that_is_a_stream_is_sent_once(transport: Transport) {
    let count = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&count);
    let service = Scripted::default().on_collect(move |_| {
        calls.fetch_add(1, Ordering::Relaxed);
        async { Err::<Response<CollectResponse>, _>(unavailable()) }
    });
    let server = Running::start(transport, service.server()).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(CollectRequest::default()).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    client(&server, policy()).collect(stream).await.unwrap_err();
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

async fn what_has_begun_is_not_tried_again(transport: Transport) {
    // The failure of a stream comes after the response's head.
    let (service, seen) = failing(9, unavailable);
    let server = Running::start(transport, service.server()).await;
    let stream = client(&server, policy()).watch(WatchRequest::default()).await.unwrap();
    stream.into_inner().message().await.unwrap_err();
    assert_eq!(seen.lock().unwrap().len(), 1);
    // A request that is larger than the buffer is not tried again either.
    let payload = vec![0; 2_000].into();
    let request = PingRequest { payload, ..PingRequest::ping() };
    let small = policy().max_buffered_bytes(1_000);
    client(&server, small).ping(request).await.unwrap_err();
    assert_eq!(seen.lock().unwrap().len(), 2);
}

async fn failures_use_up_the_channels_tokens(transport: Transport) {
    let (service, seen) = failing(1_000, unavailable);
    let server = Running::start(transport, service.server()).await;
    let mut client = client(&server, policy().throttle(8, 0.1));
    for _ in 0..10 {
        client.ping(PingRequest::ping()).await.unwrap_err();
    }
    // After three failures, more than half of the eight tokens are left. From the fourth on, each
    // call is tried once.
    assert_eq!(seen.lock().unwrap().len(), 10 + 3);
}

/// The server starts after the call.
#[tokio::test]
async fn a_server_that_comes_later_is_found() {
    let directory = directory();
    let address = socket_in(directory.path());
    let patient = policy().backoff(Duration::from_millis(50), Duration::from_secs(1));
    let channel = Channel::builder(&address).retry(patient).connect_lazy();
    let call =
        tokio::spawn(
            async move { PingServiceClient::new(channel).ping(PingRequest::ping()).await },
        );
    tokio::task::yield_now().await;
    let _server = Running::start_at(&address, Scripted::default().server()).await;
    call.await.unwrap().unwrap();
}

/// The status after the deadline says which attempt failed last and why, whatever the call waits for.
#[tokio::test(start_paused = true)]
async fn a_deadline_during_retries_tells_the_last_failure() {
    const LAST: &str = "; attempt 2 failed with UNAVAILABLE: not now";
    for transport in [Transport::Unix, Transport::Tcp] {
        // The third attempt has no answer.
        let (service, seen) = failing(2, unavailable);
        let calls = Arc::clone(&seen);
        let service = service.on_ping(move |request| {
            let mut calls = calls.lock().unwrap();
            calls.push(previous(&request));
            let fails = calls.len() <= 2;
            async move { if fails { Err(unavailable()) } else { std::future::pending().await } }
        });
        let server = Running::start(transport, service.server()).await;
        let limited = |policy| {
            let channel = Channel::builder(&server.address).retry(policy);
            PingServiceClient::new(channel.timeout(Duration::from_secs(20)).connect_lazy())
        };
        let status = limited(policy()).ping(PingRequest::ping()).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        let text = status.message();
        assert!(text.contains("no response") && text.ends_with(LAST), "{text}");
        assert_eq!(seen.lock().unwrap().len(), 3);

        // It waits for the third attempt.
        seen.lock().unwrap().clear();
        let slow = policy().backoff(Duration::from_secs(9), Duration::from_secs(90));
        let status = limited(slow).ping(PingRequest::ping()).await.unwrap_err();
        let text = status.message();
        assert!(text.contains("failed 2 times within") && text.ends_with(LAST), "{text}");
    }
}
