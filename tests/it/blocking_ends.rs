//! How calls of the blocking client end while others share their connection, and what is told of it.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use rustix::thread::{Pid, gettid};
use samehost::blocking::{Channel, Conversation};
use samehost::ping::{
    BlockingPingServiceClient as Client, ConverseRequest, ConverseResponse, PingRequest,
    WatchRequest,
};
use samehost::{Address, Event, Observer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tonic::{Code, Request, Status};

use crate::blocking::Served;
use crate::notes::Notes;
use crate::support::{Scripted, Transport, directory, eventually, socket_in};
use crate::wire::{
    Frame, Peer, block, code, data, go_away, headers, kind, message, reset, settings, window_update,
};

/// Runs a script with a listener of this address, in a thread with a runtime.
fn serving<T: Send + 'static>(
    address: &Address,
    script: impl AsyncFnOnce(UnixListener) -> T + Send + 'static,
) -> JoinHandle<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(async { UnixListener::bind(address.as_path().unwrap()) });
    let listener = listener.unwrap();
    thread::spawn(move || runtime.block_on(script(listener)))
}

async fn accept(listener: &UnixListener) -> Peer<UnixStream> {
    Peer::server(listener.accept().await.unwrap().0, &[]).await
}

/// Returns a response whose message is "pong".
fn pong(stream: u32) -> Vec<u8> {
    let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
    // Field 1 of the message is `string message`.
    let message = data(stream, &message(b"\x0a\x04pong"), false);
    let trailers = headers(stream, &block(&[("grpc-status", "0")]), true);
    [headers(stream, &head, false), message, trailers].concat()
}

fn is_whole_request(frame: &Frame) -> bool {
    frame.kind == kind::DATA && frame.ends_stream()
}

fn ping() -> ConverseRequest {
    ConverseRequest { message: "ping".into(), ..Default::default() }
}

/// An observer that is told of GOAWAY, and then waits.
struct Held {
    began: Sender<()>,
    end: Mutex<Receiver<()>>,
}

impl Observer for Held {
    fn observe(&self, event: &Event<'_>) {
        if let Event::GoAwayReceived { .. } = event {
            self.began.send(()).unwrap();
            self.end.lock().unwrap().recv().unwrap();
        }
    }
}

/// Returns whether a thread of this process sleeps (proc_pid_stat(5)).
pub(crate) fn sleeps(thread: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
    stat.contains(") S ")
}

#[test]
fn a_response_that_came_before_the_end_outlives_another_threads_write() {
    let directory = directory();
    let address = socket_in(directory.path());
    let ((began, has_begun), (release, end)) = (mpsc::channel(), mpsc::channel());
    let server = serving(&address, async move |listener| {
        let mut server = accept(&listener).await;
        server.until(is_whole_request).await;
        server.send(&go_away(0x7fff_ffff, code::NO_ERROR)).await;
        // The thread that reads is telling the observer from now on.
        has_begun.recv().unwrap();
        server.send(&pong(3)).await;
    });
    let held = Held { began, end: Mutex::new(end) };
    let channel = Channel::builder(&address).observer(held).connect().unwrap();
    let mut client = Client::new(channel);
    let mut conversation = client.converse(()).unwrap();
    let call = thread::spawn(move || client.ping(PingRequest::ping()));
    server.join().unwrap();

    // The server has closed.
    conversation.send(&ping()).unwrap();
    let status = conversation.message().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    release.send(()).unwrap();
    assert_eq!(call.join().unwrap().unwrap().into_inner().message, "pong");
}

/// Uses a call that is open on the connection, at GOAWAY.
struct Converses {
    conversation: Arc<Mutex<Option<Conversation<ConverseRequest, ConverseResponse>>>>,
    tell: Sender<Result<String, Status>>,
}

impl Observer for Converses {
    fn observe(&self, event: &Event<'_>) {
        let Event::GoAwayReceived { .. } = event else { return };
        let mut conversation = self.conversation.lock().unwrap();
        let conversation = conversation.as_mut().unwrap();
        let answer = conversation.send(&ping()).and_then(|_| conversation.message());
        self.tell.send(answer.map(|message| message.unwrap().message)).unwrap();
    }
}

/// A server that ends gracefully announces that twice.
#[test]
fn an_observer_is_told_once_of_a_graceful_end_and_may_use_a_call_that_is_open() {
    let directory = directory();
    let address = socket_in(directory.path());
    let server = serving(&address, async move |listener| {
        let mut server = accept(&listener).await;
        server.until(|frame| frame.kind == kind::HEADERS && frame.stream == 3).await;
        server.send(&go_away(0x7fff_ffff, code::NO_ERROR)).await;
        server.until(|frame| frame.kind == kind::DATA).await;
        server.send(&pong(1)).await;
        server.send(&go_away(3, code::NO_ERROR)).await;
        server.send(&pong(3)).await;
        server
    });
    let conversation = Arc::new(Mutex::new(None));
    let (tell, told) = mpsc::channel();
    let converses = Converses { conversation: Arc::clone(&conversation), tell };
    let channel = Channel::builder(&address).observer(converses).connect().unwrap();
    let mut client = Client::new(channel);
    let mut begin = || {
        let mut timed = Request::new(());
        timed.set_timeout(Duration::from_secs(10));
        client.converse(timed).unwrap()
    };
    *conversation.lock().unwrap() = Some(begin());
    let mut waiting = begin();
    assert_eq!(waiting.message().unwrap().unwrap().message, "pong");
    assert_eq!(told.recv().unwrap().unwrap(), "pong");
    assert!(told.try_recv().is_err(), "once is enough");
    server.join().unwrap();
}

/// The thread that reads sees nothing of that. It looks again after a second, but it need not. Other work
/// on the machine may delay it as long, though not each time.
#[test]
fn a_server_that_reads_no_more_ends_its_calls_and_a_new_one_goes_to_the_next() {
    let at_once = |took: &Duration| *took < Duration::from_millis(900);
    let took = (0..5).map(|_| calls_of_a_server_that_reads_no_more()).find(at_once);
    assert!(took.is_some(), "it was only seen by looking again");
}

/// Returns how long it takes to answer a new call on another connection and to end the one that waits.
fn calls_of_a_server_that_reads_no_more() -> Duration {
    let directory = directory();
    let address = socket_in(directory.path());
    let (closed, has_closed) = mpsc::channel();
    let server = serving(&address, async move |listener| {
        let mut old = accept(&listener).await;
        old.until(is_whole_request).await;
        let socket = StdUnixStream::from(old.io.as_fd().try_clone_to_owned().unwrap());
        socket.shutdown(Shutdown::Read).unwrap();
        closed.send(()).unwrap();
        let mut next = accept(&listener).await;
        next.until(|frame| frame.kind == kind::DATA).await;
        next.send(&pong(1)).await;
    });
    let mut client = Client::connect(&address).unwrap();
    let mut other = client.clone();
    let (tell, told) = mpsc::channel();
    let waiting = thread::spawn(move || {
        tell.send(gettid()).unwrap();
        client.ping(PingRequest::ping())
    });
    has_closed.recv().unwrap();
    let thread = told.recv().unwrap();
    eventually("it waits for its response", || sleeps(thread));
    let began = Instant::now();
    let mut conversation = other.converse(()).unwrap();
    assert!(conversation.send(&ping()).unwrap());
    assert_eq!(conversation.message().unwrap().unwrap().message, "pong");
    let status = waiting.join().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let took = began.elapsed();
    server.join().unwrap();
    took
}

/// Over TCP a request can still be written then, and nobody knows whether the server has processed it.
#[test]
fn a_close_that_other_frames_precede_is_noticed_before_the_next_call() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let ((answered, was_answered), (closed, has_closed)) = (mpsc::channel(), mpsc::channel());
    let server = thread::spawn(move || {
        runtime.block_on(async {
            for _ in 0..2 {
                let mut server = Peer::server(listener.accept().await.unwrap().0, &[]).await;
                server.until(is_whole_request).await;
                server.send(&pong(1)).await;
                was_answered.recv().unwrap();
                server.send(&window_update(0, 1)).await;
                // The close waits until the client's kernel has it (socket(7), SO_LINGER).
                set_socket_linger(&server.io, Some(Duration::from_secs(60))).unwrap();
                drop(server);
                closed.send(()).unwrap();
            }
        });
    });
    let mut client = Client::connect(address).unwrap();
    for _ in 0..2 {
        assert_eq!(client.ping(PingRequest::ping()).unwrap().into_inner().message, "pong");
        answered.send(()).unwrap();
        has_closed.recv().unwrap();
    }
    server.join().unwrap();
}

#[test]
fn a_server_is_told_of_a_violation_that_is_noticed_before_the_next_call() {
    let directory = directory();
    let address = socket_in(directory.path());
    let (sent, was_sent) = mpsc::channel();
    let server = serving(&address, async move |listener| {
        let mut old = accept(&listener).await;
        // A window cannot grow by nothing (RFC 9113 §6.9).
        old.send(&window_update(0, 0)).await;
        sent.send(()).unwrap();
        let mut next = accept(&listener).await;
        next.until(|frame| frame.kind == kind::DATA).await;
        next.send(&pong(1)).await;
        assert_eq!(old.until_go_away().await, code::PROTOCOL_ERROR);
    });
    let mut client = Client::connect(&address).unwrap();
    was_sent.recv().unwrap();
    let mut conversation = client.converse(()).unwrap();
    assert!(conversation.send(&ping()).unwrap());
    assert_eq!(conversation.message().unwrap().unwrap().message, "pong");
    server.join().unwrap();
}

/// The server sends nothing then, so the thread that reads has to be told in another way.
#[test]
fn the_slot_of_a_call_that_was_dropped_goes_to_calls_that_wait_in_other_threads() {
    let server = Scripted::default().server().max_concurrent_streams(1);
    let served = Served::start(Transport::Unix, server);
    let mut client = Client::connect(&served.running.address).unwrap();
    let mut conversation = client.converse(()).unwrap();
    // Nothing else is on its way from the server after that.
    conversation.metadata().unwrap();
    let (tell, told) = mpsc::channel();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let (mut client, tell) = (client.clone(), tell.clone());
            thread::spawn(move || {
                tell.send(gettid()).unwrap();
                client.ping(PingRequest::ping())
            })
        })
        .collect();
    for thread in told.iter().take(waiting.len()) {
        eventually("it waits for a slot", || sleeps(thread));
    }
    drop(conversation);
    eventually("all are answered", || waiting.iter().all(|call| call.is_finished()));
    for call in waiting {
        assert_eq!(call.join().unwrap().unwrap().into_inner().message, "pong");
    }
}

/// The head of such a call is sent again only as long as the caller has not gone on.
#[test]
fn an_observer_is_told_of_a_stream_that_the_server_has_refused() {
    let directory = directory();
    let address = socket_in(directory.path());
    let server = serving(&address, async move |listener| {
        let mut server = accept(&listener).await;
        server.until(|frame| frame.kind == kind::DATA).await;
        server.send(&reset(1, code::REFUSED_STREAM)).await;
        server
    });
    let notes = Notes::default();
    let channel = Channel::builder(&address).observer(notes.clone()).connect().unwrap();
    let mut conversation = Client::new(channel).converse(()).unwrap();
    conversation.send(&ping()).unwrap();
    let status = conversation.message().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    drop(conversation);
    let ended = "ended ping.v1.PingService/Converse Unavailable 11 0".to_owned();
    assert!(notes.all().contains(&ended), "{:?}", notes.all());
    server.join().unwrap();
}

/// Makes a call that waits for a server. The listener does what `first` does with it, and then a server
/// answers.
fn a_waiting_call_is_answered_after<T>(
    first: impl AsyncFnOnce(&UnixListener) -> T + Send + 'static,
) {
    let directory = directory();
    let address = socket_in(directory.path());
    serving(&address, async move |listener| {
        let _kept = first(&listener).await;
        let mut server = accept(&listener).await;
        server.until(is_whole_request).await;
        answer(&mut server).await;
    });
    let channel = Channel::builder(&address).wait_for_ready(true).connect_lazy();
    Client::new(channel).ping(PingRequest::ping()).unwrap();
}

/// Answers the first call, and stays until the client closes the connection.
async fn answer(server: &mut Peer<UnixStream>) {
    server.send(&pong(1)).await;
    while server.next().await.is_some() {}
}

/// The server takes no call on its first 20 connections.
#[test]
fn a_call_waits_while_a_server_sends_everyone_away() {
    a_waiting_call_is_answered_after(async |listener| {
        let mut dismissed = Vec::new();
        for _ in 0..20 {
            let mut conn = listener.accept().await.unwrap().0;
            let goodbye = [settings(&[]), go_away(0, code::NO_ERROR)].concat();
            conn.write_all(&goodbye).await.unwrap();
            dismissed.push(conn);
        }
        dismissed
    });
}

/// The server says of the call on each of its first eight connections that it has not processed it.
#[test]
fn a_call_waits_while_servers_end_without_having_processed_it() {
    a_waiting_call_is_answered_after(async |listener| {
        for _ in 0..8 {
            let mut server = accept(listener).await;
            server.until(|frame| frame.kind == kind::HEADERS).await;
            server.send(&go_away(0, code::NO_ERROR)).await;
        }
    });
}

/// The GOAWAY names the call's stream as one that the server has taken (RFC 9113 §6.8).
#[test]
fn a_server_that_goes_away_with_an_error_may_still_answer() {
    let directory = directory();
    let address = socket_in(directory.path());
    serving(&address, async move |listener| {
        let mut server = accept(&listener).await;
        server.until(is_whole_request).await;
        server.send(&go_away(1, code::ENHANCE_YOUR_CALM)).await;
        answer(&mut server).await;
    });
    let mut client = Client::connect(&address).unwrap();
    assert_eq!(client.ping(PingRequest::ping()).unwrap().into_inner().message, "pong");
}

#[test]
fn a_server_that_breaks_the_rules_is_told_why_the_connection_ends() {
    let directory = directory();
    let address = socket_in(directory.path());
    let server = serving(&address, async move |listener| {
        let mut server = accept(&listener).await;
        server.until(is_whole_request).await;
        server.send(&data(0, b"on no stream", false)).await;
        server.until(|frame| frame.kind == kind::GOAWAY).await
    });
    let mut client = Client::connect(&address).unwrap();
    let status = client.ping(PingRequest::ping()).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let told = server.join().unwrap();
    assert_eq!(told.payload[4..8], code::PROTOCOL_ERROR.to_be_bytes());
}

/// The server ends the call inside a message, and sends no status.
#[test]
fn half_a_message_without_a_status_is_internal() {
    let directory = directory();
    let address = socket_in(directory.path());
    serving(&address, async move |listener| {
        let mut server = accept(&listener).await;
        server.until(is_whole_request).await;
        let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
        let whole = message(b"\x0a\x04pong");
        let cut = [&whole[..], &whole[..8]].concat();
        server.send(&[headers(1, &head, false), data(1, &cut, true)].concat()).await;
    });
    let mut client = Client::connect(&address).unwrap();
    let mut watch = client.watch(WatchRequest::default()).unwrap().into_inner();
    assert!(watch.next().unwrap().is_ok());
    let status = watch.next().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(status.message().contains("inside a message"), "{status:?}");
}
