//! When the blocking client's requests are in the socket, and what ends a stream of them early.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::thread::gettid;
use samehost::blocking::Channel;
use samehost::ping::{
    BlockingPingServiceClient as Client, CollectRequest, ConverseRequest, Ping, PingServiceServer,
};
use samehost::{Address, Server};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use crate::blocking::{Served, on_each_transport, ping_server};
use crate::blocking_ends::sleeps;
use crate::support::{Scripted, Transport, directory, eventually, socket_in};
use crate::wire::{Peer, block, headers, kind, message, window_update};

on_each_transport!(
    what_was_sent_arrives_while_its_thread_does_something_else,
    what_a_call_leaves_behind_is_written_by_the_thread_that_reads,
    a_slow_stream_of_requests_ends_at_its_deadline,
    a_slow_stream_of_requests_ends_when_it_is_answered,
    a_large_answer_is_read_while_the_server_takes_no_more_requests,
    a_conversation_ends_at_its_deadline_while_it_sends,
    a_conversation_that_was_refused_takes_no_more,
);

/// The size of a payload in bytes.
const LARGE: usize = 256 * 1024;

/// How many large messages are more than the sockets of a connection hold.
const MANY: usize = 64;

/// How long a test waits for bytes that have to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// A listener, with the runtime that it is for.
struct Listening {
    runtime: Runtime,
    address: Address,
    listener: AnyListener,
    _directory: TempDir,
}

enum AnyListener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Socket: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Socket for T {}

impl Listening {
    fn start(transport: Transport) -> Self {
        let directory = directory();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (address, listener) = runtime.block_on(async {
            match transport {
                Transport::Unix => {
                    let address = socket_in(directory.path());
                    let listener = UnixListener::bind(address.as_path().unwrap()).unwrap();
                    (address, AnyListener::Unix(listener))
                }
                Transport::Tcp => {
                    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                    (listener.local_addr().unwrap().into(), AnyListener::Tcp(listener))
                }
            }
        });
        Self { runtime, address, listener, _directory: directory }
    }

    /// Returns what connects a client. It connects without a limit of time, so that its thread does
    /// not look again because of one.
    fn client(&self) -> impl FnOnce() -> Client + Send + use<> {
        let channel = Channel::builder(&self.address).connect_timeout(Duration::MAX);
        move || Client::new(channel.connect().unwrap())
    }

    /// Accepts a connection that holds few bytes, and lets its streams send as much as they want.
    async fn accept(&self) -> Peer<Box<dyn Socket>> {
        const INITIAL_WINDOW_SIZE: u16 = 4;
        let mut server = self.accept_with(&[(INITIAL_WINDOW_SIZE, i32::MAX as u32)]).await;
        server.send(&window_update(0, i32::MAX as u32 - 65_535)).await;
        server
    }

    async fn accept_with(&self, settings: &[(u16, u32)]) -> Peer<Box<dyn Socket>> {
        let socket: Box<dyn Socket> = match &self.listener {
            AnyListener::Unix(listener) => Box::new(listener.accept().await.unwrap().0),
            AnyListener::Tcp(listener) => {
                let socket = listener.accept().await.unwrap().0;
                set_socket_recv_buffer_size(&socket, 16 * 1024).unwrap();
                Box::new(socket)
            }
        };
        Peer::server(socket, settings).await
    }
}

fn large() -> ConverseRequest {
    ConverseRequest { payload: vec![7; LARGE].into(), ..Default::default() }
}

/// After `send` has returned, the caller may do anything, and nothing else drives the connection.
fn what_was_sent_arrives_while_its_thread_does_something_else(transport: Transport) {
    let listening = Listening::start(transport);
    let connect = listening.client();
    let (tell, told) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let sending = thread::spawn(move || {
        let mut conversation = connect().converse(()).unwrap();
        tell.send(gettid()).unwrap();
        for _ in 0..MANY {
            assert!(conversation.send(&large()).unwrap());
        }
        let _ = ends.recv();
    });
    listening.runtime.block_on(async {
        let mut server = listening.accept().await;
        let thread = told.recv().unwrap();
        let mut received = 0;
        while received < MANY * LARGE {
            // It has written what there was room for, or has sent everything.
            eventually("it sleeps", || sleeps(thread));
            let frame = timeout(PATIENCE, server.next()).await;
            let frame = frame.unwrap_or_else(|_| panic!("only {received} bytes have come"));
            let frame = frame.expect("the connection is open");
            if frame.kind == kind::DATA {
                received += frame.payload.len();
            }
        }
    });
    drop(end);
    sending.join().unwrap();
}

/// That thread waited already, and the server sends nothing.
fn what_a_call_leaves_behind_is_written_by_the_thread_that_reads(transport: Transport) {
    let listening = Listening::start(transport);
    let connect = listening.client();
    let (tell, told) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let mut client = connect();
        let mut conversation = client.converse(()).unwrap();
        tell.send((gettid(), client)).unwrap();
        conversation.message()
    });
    listening.runtime.block_on(async {
        let mut server = listening.accept().await;
        let (thread, mut client) = told.recv().unwrap();
        eventually("it waits for a response", || sleeps(thread));
        let mut timed = Request::new(());
        timed.set_timeout(Duration::from_millis(200));
        let mut conversation = client.converse(timed).unwrap();
        let status = loop {
            match conversation.send(&large()) {
                Ok(takes_more) => assert!(takes_more),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        drop(conversation);
        let reset = server.until(|frame| frame.kind == kind::RST_STREAM);
        assert_eq!(timeout(PATIENCE, reset).await.expect("the rest comes").stream, 3);
        let fields = [(":status", "200"), ("content-type", "application/grpc")];
        let fields = [&fields[..], &[("grpc-status", "0")]].concat();
        server.send(&headers(1, &block(&fields), true)).await;
        assert!(waiting.join().unwrap().unwrap().is_none());
    });
}

/// Returns requests that take a while to make, for as long as a test waits.
fn slow_requests() -> impl Iterator<Item = CollectRequest> {
    let began = Instant::now();
    let make = || {
        thread::sleep(Duration::from_millis(2));
        CollectRequest { message: "ping".into(), ..Default::default() }
    };
    std::iter::repeat_with(make).take_while(move |_| began.elapsed() < PATIENCE)
}

fn a_slow_stream_of_requests_ends_at_its_deadline(transport: Transport) {
    let served = ping_server(transport);
    let mut client = Client::connect(&served.running.address).unwrap();
    let mut timed = Request::new(slow_requests());
    timed.set_timeout(Duration::from_millis(50));
    let began = Instant::now();
    let status = client.collect(timed).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(began.elapsed() < PATIENCE, "not all requests are made");
}

fn a_slow_stream_of_requests_ends_when_it_is_answered(transport: Transport) {
    let service = Scripted::default().on_collect(|_| async { Err(Status::aborted("enough")) });
    let served = Served::start(transport, service.server());
    let mut client = Client::connect(&served.running.address).unwrap();
    let began = Instant::now();
    let status = client.collect(Request::new(slow_requests())).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Aborted, "enough"));
    assert!(began.elapsed() < PATIENCE, "not all requests are made");
}

/// The answer has more bytes than its window, and its server waits for that window before it ends the call.
fn a_large_answer_is_read_while_the_server_takes_no_more_requests(transport: Transport) {
    let listening = Listening::start(transport);
    let connect = listening.client();
    let collecting = thread::spawn(move || {
        let request = CollectRequest { payload: vec![7; 10_000].into(), ..Default::default() };
        let mut timed = Request::new(std::iter::repeat(request));
        timed.set_timeout(2 * PATIENCE);
        connect().collect(timed)
    });
    listening.runtime.block_on(async {
        let mut server = listening.accept_with(&[]).await;
        server.until(|frame| frame.kind == kind::DATA).await;
        // `count` is 7, and the rest is an unknown field.
        let unknown = vec![1; 100_000];
        let answer = message(&[&[0x08, 7, 0x7a, 0xa0, 0x8d, 0x06], &unknown[..]].concat());
        let fields = [(":status", "200"), ("content-type", "application/grpc")];
        server.send(&headers(1, &block(&fields), false)).await;
        timeout(PATIENCE, server.send_data(1, &answer)).await.expect("it is read");
        server.send(&headers(1, &block(&[("grpc-status", "0")]), true)).await;
        assert_eq!(collecting.join().unwrap().unwrap().into_inner().count, 7);
    });
}

fn a_conversation_ends_at_its_deadline_while_it_sends(transport: Transport) {
    let served = ping_server(transport);
    let mut client = Client::connect(&served.running.address).unwrap();
    let ping = ConverseRequest { message: "ping".into(), ..Default::default() };
    for reads_head in [false, true] {
        let mut timed = Request::new(());
        timed.set_timeout(Duration::from_secs(1));
        let mut conversation = client.converse(timed).unwrap();
        if reads_head {
            conversation.metadata().unwrap();
        }
        let began = Instant::now();
        let status = loop {
            match conversation.send(&ping) {
                Ok(takes_more) => assert!(takes_more),
                Err(status) => break status,
            }
            assert!(began.elapsed() < PATIENCE, "it sends after its deadline");
            // The server answers each.
            thread::sleep(Duration::from_millis(2));
        };
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert_eq!(conversation.send(&ping).unwrap_err().code(), Code::DeadlineExceeded);
        // It may have got answers before.
        let status = conversation.find_map(Result::err).expect("a status");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
}

fn a_conversation_that_was_refused_takes_no_more(transport: Transport) {
    let refuse = |_: Request<()>| Err::<Request<()>, _>(Status::permission_denied("not you"));
    let service = PingServiceServer::with_interceptor(Ping::default(), refuse);
    let served = Served::start(transport, Server::new().add_service(service));
    let mut conversation = Client::connect(&served.running.address).unwrap().converse(()).unwrap();
    let began = Instant::now();
    eventually("it takes no more", || !conversation.send(&ConverseRequest::default()).unwrap());
    assert!(began.elapsed() < PATIENCE, "it sends until the window is full");
    let status = conversation.message().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not you"));
}
