//! Hostile clients of `samehost serve` and of servers in this process. Each must get the right
//! error, with limited memory, while another client is served.
//!
//! They do what RFC 9113 §10.5 lists, and later attacks: "rapid reset" (CVE-2023-44487),
//! CONTINUATION floods (VU#421644), "made you reset" (CVE-2025-8671).

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use samehost::ping::{Ping, PingRequest, PingServiceClient, PingServiceServer};
use samehost::{Channel, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::support::{Running, Serving, Transport, directory, eventually_async, socket_in};
use crate::wire::{
    PREFACE, Peer, block, code, data, flag, frame, headers, kind, literal, message, request, reset,
    settings, window_update,
};

const PING: &str = "/ping.v1.PingService/Ping";
const CONVERSE: &str = "/ping.v1.PingService/Converse";
const COLLECT: &str = "/ping.v1.PingService/Collect";

/// How many bytes of memory an attack may cost, including the windows of the attacker's connection.
const MOST_GROWTH: usize = 24 << 20;

/// `samehost serve` under attack, and a client that does nothing wrong.
struct Victim {
    serving: Serving,
    bystander: PingServiceClient<Channel>,
    at_rest: usize,
    _directory: TempDir,
}

impl Victim {
    async fn new() -> Self {
        let directory = directory();
        let address = socket_in(directory.path()).to_string();
        let serving = Serving::start(&[&address, "127.0.0.1:0"], &[]);
        let channel = Channel::connect(&serving.addresses[0]).await.unwrap();
        let mut victim = Self {
            bystander: PingServiceClient::new(channel),
            at_rest: 0,
            serving,
            _directory: directory,
        };
        victim.serves_others().await;
        victim.at_rest = victim.peak();
        victim
    }

    async fn stream(&self) -> UnixStream {
        UnixStream::connect(self.serving.addresses[0].as_path().unwrap()).await.unwrap()
    }

    async fn attacker(&self) -> Peer<UnixStream> {
        self.attacker_with(&[]).await
    }

    async fn attacker_with(&self, settings: &[(u16, u32)]) -> Peer<UnixStream> {
        Peer::client(self.stream().await, settings).await
    }

    fn peak(&self) -> usize {
        self.serving.memory("VmHWM")
    }

    async fn serves_others(&mut self) {
        let reply = self.bystander.ping(PingRequest::ping()).await.unwrap();
        assert_eq!(reply.into_inner().message, "pong");
    }

    /// Asserts that the server serves others and has used little memory, after or during an attack.
    async fn is_unharmed(&mut self) {
        self.serves_others().await;
        let growth = self.peak() - self.at_rest;
        assert!(growth < MOST_GROWTH, "grew by {} KiB", growth >> 10);
    }

    /// Floods the server over each transport while another client calls it, and expects the error
    /// code `expected`.
    async fn withstands(
        mut self,
        expected: u32,
        times: usize,
        with: Vec<u8>,
        bytes: impl Fn(usize) -> Vec<u8> + Clone + Send + 'static,
    ) {
        let mut unix = self.attacker().await;
        unix.send(&with).await;
        let flood = tokio::spawn(unix.flood(times, bytes.clone()));
        self.serves_others().await;
        assert_eq!(flood.await.unwrap(), Some(expected), "over a Unix socket");
        self.is_unharmed().await;

        let port = self.serving.addresses[1].to_string();
        let mut tcp = Peer::client(TcpStream::connect(port).await.unwrap(), &[]).await;
        tcp.send(&with).await;
        let flood = tokio::spawn(tcp.flood(times, bytes));
        self.serves_others().await;
        // TCP may lose the GOAWAY by a reset; the connection is closed all the same.
        let end = flood.await.unwrap();
        assert!(end.is_none_or(|code| code == expected), "over TCP: {end:?}");
        self.is_unharmed().await;
    }
}

/// Returns the id of a client's stream number `time`.
fn id(time: usize) -> u32 {
    2 * time as u32 + 1
}

// ---- Floods --------------------------------------------------------------------------------

/// A caller that cancels often is no attacker: others are served meanwhile, and the connection
/// stays open.
#[tokio::test]
async fn rapid_reset_harms_nobody() {
    let mut victim = Victim::new().await;
    let mut attacker = victim.attacker().await;
    for round in 0..50 {
        let open_and_cancel = (0..1_000).flat_map(|time| {
            let id = id(1_000 * round + time);
            [headers(id, &request(PING), false), reset(id, code::CANCEL)]
        });
        attacker.send(&open_and_cancel.collect::<Vec<_>>().concat()).await;
        victim.serves_others().await;
    }
    attacker.sync().await;
    victim.is_unharmed().await;
}

/// The client makes faults on purpose, so that the server resets the streams.
#[tokio::test]
async fn provoked_resets_are_stopped() {
    let provoke =
        |time| [headers(id(time), &request(PING), false), window_update(id(time), 0)].concat();
    Victim::new().await.withstands(code::ENHANCE_YOUR_CALM, 100_000, Vec::new(), provoke).await;
}

#[tokio::test]
async fn requests_without_a_path_are_stopped() {
    let malformed = |time| headers(id(time), &block(&[(":method", "POST")]), true);
    Victim::new().await.withstands(code::ENHANCE_YOUR_CALM, 100_000, Vec::new(), malformed).await;
}

#[tokio::test]
async fn a_continuation_flood_is_stopped() {
    let begin = frame(kind::HEADERS, 0, 1, &request(PING));
    let more = |_| frame(kind::CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(8_000))]));
    Victim::new().await.withstands(code::ENHANCE_YOUR_CALM, 100_000, begin, more).await;
}

#[tokio::test]
async fn a_flood_of_empty_continuations_is_stopped() {
    let begin = frame(kind::HEADERS, 0, 1, &request(PING));
    let more = |_| frame(kind::CONTINUATION, 0, 1, &[]);
    Victim::new().await.withstands(code::ENHANCE_YOUR_CALM, 1_000_000, begin, more).await;
}

#[tokio::test]
async fn a_settings_flood_is_stopped() {
    let more = |time| settings(&[(4, 65_535 + time as u32 % 2)]);
    Victim::new().await.withstands(code::ENHANCE_YOUR_CALM, 1_000_000, Vec::new(), more).await;
}

#[tokio::test]
async fn a_ping_flood_is_stopped() {
    let more = |_| frame(kind::PING, 0, 0, b"a flood.").repeat(100);
    Victim::new().await.withstands(code::ENHANCE_YOUR_CALM, 100_000, Vec::new(), more).await;
}

#[tokio::test]
async fn a_priority_flood_is_stopped() {
    let more = |_| frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 7]).repeat(100);
    Victim::new().await.withstands(code::ENHANCE_YOUR_CALM, 100_000, Vec::new(), more).await;
}

#[tokio::test]
async fn a_priority_update_flood_is_stopped() {
    let more = |_| frame(kind::PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=7").repeat(100);
    Victim::new().await.withstands(code::ENHANCE_YOUR_CALM, 100_000, Vec::new(), more).await;
}

#[tokio::test]
async fn a_flood_of_tiny_window_updates_is_stopped() {
    let more = |_| window_update(0, 1).repeat(100);
    Victim::new().await.withstands(code::ENHANCE_YOUR_CALM, 100_000, Vec::new(), more).await;
}

#[tokio::test]
async fn a_flood_of_empty_data_is_stopped() {
    let begin = headers(1, &request(COLLECT), false);
    let more = |_| data(1, &[], false).repeat(100);
    Victim::new().await.withstands(code::ENHANCE_YOUR_CALM, 100_000, begin, more).await;
}

#[tokio::test]
async fn a_flood_of_padding_is_stopped() {
    let begin = headers(1, &request(COLLECT), false);
    let more = |_| {
        let mut padding = vec![0; 256];
        padding[0] = 255;
        frame(kind::DATA, flag::PADDED, 1, &padding).repeat(10)
    };
    Victim::new().await.withstands(code::ENHANCE_YOUR_CALM, 100_000, begin, more).await;
}

#[tokio::test]
async fn ten_thousand_streams_at_once_are_too_many() {
    let mut victim = Victim::new().await;
    let mut attacker = victim.attacker().await;
    let all: Vec<u8> =
        (0..300).flat_map(|time| headers(id(time), &request(COLLECT), false)).collect();
    attacker.send(&all).await;
    // The limit is 256. The other streams are refused, and the connection stays open.
    let mut refused = 0;
    while refused < 44 {
        let answer = attacker.until(|frame| frame.kind == kind::RST_STREAM).await;
        assert_eq!(answer.code(), code::REFUSED_STREAM);
        assert!(answer.stream > id(255), "stream {} was within the limit", answer.stream);
        refused += 1;
    }
    victim.is_unharmed().await;
    let end =
        attacker.flood(10_000, |time| headers(id(300 + time), &request(COLLECT), false)).await;
    assert_eq!(end, Some(code::ENHANCE_YOUR_CALM));
    victim.is_unharmed().await;
}

/// The block has 16 KiB of references to one entry of 4,000 bytes, which are 64 MiB of headers.
#[tokio::test]
async fn a_header_bomb_does_not_go_off() {
    let mut victim = Victim::new().await;
    let mut attacker = victim.attacker().await;
    let mut charge = request(PING);
    literal(0x40, "x", &"y".repeat(4_000), &mut charge);
    attacker.send(&headers(1, &charge, true)).await;
    let bomb = |time| {
        let mut block = request(PING);
        block.resize(16_000, 0x80 | 62);
        headers(id(1 + time), &block, true)
    };
    let first = bomb(0);
    attacker.send(&first).await;
    let answer = attacker.until(|frame| frame.kind == kind::HEADERS && frame.stream == id(1)).await;
    assert!(answer.ends_stream(), "an answer without a body");
    victim.is_unharmed().await;
    assert_eq!(attacker.flood(10_000, |time| bomb(1 + time)).await, Some(code::ENHANCE_YOUR_CALM));
    victim.is_unharmed().await;
}

#[tokio::test]
async fn table_sizes_beyond_the_limit_are_an_error() {
    let mut victim = Victim::new().await;
    let mut attacker = victim.attacker().await;
    // This is a dynamic table size update to 1 MiB (RFC 7541 §6.3).
    let mut update = vec![0x3f, 0xe1, 0xff, 0x3f];
    update.extend_from_slice(&request(PING));
    attacker.send(&headers(1, &update, true)).await;
    assert_eq!(attacker.until_go_away().await, code::COMPRESSION_ERROR);
    victim.is_unharmed().await;
}

#[tokio::test]
async fn window_overflow_is_an_error() {
    let mut victim = Victim::new().await;
    let mut attacker = victim.attacker().await;
    attacker.send(&window_update(0, 0x7fff_ffff)).await;
    assert_eq!(attacker.until_go_away().await, code::FLOW_CONTROL_ERROR);

    let mut attacker = victim.attacker().await;
    attacker.send(&headers(1, &request(COLLECT), false)).await;
    attacker.send(&window_update(1, 0x7fff_ffff)).await;
    let answer = attacker.until(|frame| frame.kind == kind::RST_STREAM).await;
    assert_eq!((answer.stream, answer.code()), (1, code::FLOW_CONTROL_ERROR));
    victim.is_unharmed().await;
}

#[tokio::test]
async fn data_on_a_closed_stream_is_an_error() {
    let mut victim = Victim::new().await;
    let mut attacker = victim.attacker().await;
    attacker.send(&headers(1, &request(PING), false)).await;
    attacker.send(&data(1, &message(b""), true)).await;
    attacker.until(|frame| frame.stream == 1 && frame.ends_stream()).await;
    attacker.send(&data(1, b"more", false)).await;
    assert_eq!(attacker.until_go_away().await, code::STREAM_CLOSED);

    let mut attacker = victim.attacker().await;
    attacker.send(&data(7, b"never opened", false)).await;
    assert_eq!(attacker.until_go_away().await, code::PROTOCOL_ERROR);
    victim.is_unharmed().await;
}

// ---- Peers that do not read ----------------------------------------------------------------

/// The handlers of these streams wait for a window and do not read. A window of data for each
/// stream waits, a megabyte in single bytes, and no more, while another stream of the connection
/// goes on.
#[tokio::test]
async fn an_unread_stream_holds_its_window_and_no_more_beside_a_live_one() {
    const STREAMS: usize = 16;
    let mut victim = Victim::new().await;
    let mut attacker = victim.attacker_with(&[(4, 0)]).await;
    // The handler reads and answers two messages; then it waits for the window.
    let read = message(b"").repeat(2);
    for stream in (0..STREAMS).map(id) {
        attacker.send(&headers(stream, &request(CONVERSE), false)).await;
        attacker.send(&data(stream, &read, false)).await;
        attacker.until(|frame| frame.kind == kind::HEADERS && frame.stream == stream).await;
    }
    // This fills the rest of the window. The handler has read so little that no window was
    // returned.
    let window = 65_535 - read.len();
    for stream in (0..STREAMS).map(id) {
        attacker.send(&data(stream, b"\0", false).repeat(window)).await;
    }
    attacker.sync().await;
    victim.is_unharmed().await;

    let live = id(STREAMS);
    attacker.send(&headers(live, &request(PING), false)).await;
    attacker.send(&data(live, &message(b""), true)).await;
    attacker.send(&window_update(live, 1_000)).await;
    attacker.until(|frame| frame.stream == live && frame.ends_stream()).await;

    // A stream that exceeds its window is reset.
    for stream in (0..STREAMS).map(id) {
        attacker.send(&data(stream, b"\0", false)).await;
        let answer = attacker.until(|frame| frame.kind == kind::RST_STREAM).await;
        assert_eq!((answer.stream, answer.code()), (stream, code::FLOW_CONTROL_ERROR));
    }
    victim.is_unharmed().await;
}

/// Every request has about twelve bytes and causes four kilobytes of response: its path is a
/// reference to the table, and the error text repeats the path.
#[tokio::test]
async fn a_peer_that_never_reads_its_replies_does_not_fill_the_memory() {
    let mut victim = Victim::new().await;
    let mut attacker = victim.attacker().await;
    let mut first = block(&[(":method", "POST"), (":scheme", "http")]);
    literal(0x40, ":path", &format!("/{}", "p".repeat(3_900)), &mut first);
    first.extend_from_slice(&block(&[("content-type", "application/grpc")]));
    let mut block = block(&[(":method", "POST"), (":scheme", "http")]);
    block.push(0x80 | 62);
    block.extend_from_slice(&self::block(&[("content-type", "application/grpc")]));
    attacker.send(&headers(1, &first, true)).await;

    let (mut read, mut write) = tokio::io::split(attacker.io);
    let writing = tokio::spawn(async move {
        for time in 0..100_000 {
            if write.write_all(&headers(id(1 + time), &block, true)).await.is_err() {
                break;
            }
        }
        write
    });
    // The client does not read the 400 MB of responses.
    let _write = tokio::time::timeout(Duration::from_secs(20), writing).await;
    victim.is_unharmed().await;
    let mut byte = [0];
    read.read_exact(&mut byte).await.unwrap();
}

/// Each request has a megabyte, and its echo gets no window. The responses wait, as many as streams
/// are allowed, and they count as buffered.
#[tokio::test]
async fn a_window_kept_at_zero_bounds_what_waits() {
    let mut victim = Victim::new().await;
    let mut attacker = victim.attacker_with(&[(4, 0)]).await;
    // This is field 2 of PingRequest, `bytes payload`.
    let mut echo = vec![0x12, 0x80, 0x80, 0x40];
    echo.resize((1 << 20) + 4, 0);
    let echo = message(&echo);
    let mut sent = 0;
    for time in 0..256 {
        attacker.send(&headers(id(time), &request(PING), false)).await;
        let body = attacker.send_body(id(time), &echo);
        if tokio::time::timeout(Duration::from_secs(3), body).await.is_err() {
            // No handler reads it any more.
            break;
        }
        sent += 1;
        attacker.sync().await;
    }
    victim.serves_others().await;
    let growth = victim.peak() - victim.at_rest;
    assert!(growth < 96 << 20, "grew by {} KiB for {sent} requests", growth >> 10);
    assert!(sent > 32, "only {sent} requests were taken");
}

// ---- Time ----------------------------------------------------------------------------------

/// Starts a server in this process, so that a test may pause its clock.
fn served() -> (DuplexStream, JoinHandle<String>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
    let serving = tokio::spawn(async move {
        match server.serve_connection(theirs).await {
            Ok(()) => "closed".to_owned(),
            Err(error) => error.to_string(),
        }
    });
    (ours, serving)
}

#[tokio::test(start_paused = true)]
async fn silence_instead_of_a_preface_ends_after_a_minute() {
    let started = tokio::time::Instant::now();
    let (peer, serving) = served();
    let mut peer = Peer::new(peer);
    assert_eq!(peer.until_go_away().await, code::SETTINGS_TIMEOUT);
    assert!(serving.await.unwrap().contains("took too long"));
    assert_eq!(started.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_preface_of_a_byte_a_second_ends_after_ten_seconds() {
    let started = tokio::time::Instant::now();
    let (peer, serving) = served();
    let (mut read, mut write) = tokio::io::split(peer);
    tokio::spawn(async move {
        for byte in PREFACE {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut all = Vec::new();
    read.read_to_end(&mut all).await.unwrap();
    assert!(serving.await.unwrap().contains("took too long"));
    assert!((10..12).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn settings_that_are_never_acknowledged_end_after_a_minute() {
    let started = tokio::time::Instant::now();
    let (peer, _serving) = served();
    let mut peer = Peer::new(peer);
    peer.send(&[PREFACE, &settings(&[])].concat()).await;
    assert_eq!(peer.until_go_away().await, code::SETTINGS_TIMEOUT);
    assert_eq!(started.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_and_then_silence_ends_after_ten_seconds() {
    let (peer, _serving) = served();
    let mut peer = Peer::client(peer, &[]).await;
    let started = tokio::time::Instant::now();
    let whole = headers(1, &request(PING), false);
    peer.send(&whole[..whole.len() / 2]).await;
    assert_eq!(peer.until_go_away().await, code::ENHANCE_YOUR_CALM);
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_a_byte_a_second_ends_after_ten_seconds() {
    let (peer, _serving) = served();
    let mut peer = Peer::client(peer, &[]).await;
    peer.send(&headers(1, &request(COLLECT), false)).await;
    let started = tokio::time::Instant::now();
    let (read, mut write) = tokio::io::split(peer.io);
    tokio::spawn(async move {
        for byte in data(1, &[0; 1_000], false) {
            if write.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut peer = Peer::new(tokio::io::join(read, tokio::io::sink()));
    assert_eq!(peer.until_go_away().await, code::ENHANCE_YOUR_CALM);
    assert!((10..12).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_header_block_that_never_ends_is_given_ten_seconds() {
    let (peer, _serving) = served();
    let mut peer = Peer::client(peer, &[]).await;
    let started = tokio::time::Instant::now();
    peer.send(&frame(kind::HEADERS, 0, 1, &request(PING))).await;
    assert_eq!(peer.until_go_away().await, code::ENHANCE_YOUR_CALM);
    assert_eq!(started.elapsed().as_secs(), 10);
}

/// The socket is full, and after half a minute the server closes the connection.
#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_reply_for_thirty_seconds_is_closed() {
    let (peer, serving) = served();
    let mut peer = Peer::client(peer, &[(4, 1 << 20)]).await;
    let started = tokio::time::Instant::now();
    peer.send(&window_update(0, 1 << 20)).await;
    peer.send(&headers(1, &request("/ping.v1.PingService/Watch"), false)).await;
    // This is WatchRequest { count: 0, payload: 1,000 bytes }, whose stream never ends.
    let mut watch = vec![0x1a, 0xe8, 0x07];
    watch.resize(1_003, 7);
    peer.send(&data(1, &message(&watch), true)).await;
    let why = serving.await.unwrap();
    assert!(why.contains("does not read"), "{why}");
    assert!((30..35).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_no_offence() {
    let (peer, serving) = served();
    let mut peer = Peer::client(peer, &[]).await;
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    peer.sync().await;
    assert!(!serving.is_finished());
}

// ---- Handlers that run after their call has ended ------------------------------------------

/// Handlers that block their thread until the gate opens, even if they are aborted.
#[derive(Clone, Default)]
struct Stubborn {
    running: Arc<AtomicUsize>,
    holding: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl tonic::server::NamedService for Stubborn {
    const NAME: &'static str = "ping.v1.PingService";
}

impl tower::Service<http::Request<samehost::RequestBody>> for Stubborn {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<samehost::RequestBody>) -> Self::Future {
        let this = self.clone();
        if request.uri().path() == PING {
            return tower::Service::call(
                &mut PingServiceServer::new(Ping::default()).into_service(),
                request,
            );
        }
        let running = Counted::new(&this);
        Box::pin(async move {
            let _running = running;
            // After this, the handler runs in its own task.
            tokio::task::yield_now().await;
            this.holding.fetch_add(1, Ordering::SeqCst);
            tokio::task::block_in_place(|| {
                let (open, opened) = &*this.gate;
                let guard = open.lock().unwrap();
                drop(opened.wait_while(guard, |open| !*open).unwrap());
            });
            std::future::pending().await
        })
    }
}

impl Stubborn {
    fn open_the_gate(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

/// Opens the gate when the test fails, since the runtime would wait for the handlers.
struct OpenOnDrop(Stubborn);

impl Drop for OpenOnDrop {
    fn drop(&mut self) {
        self.0.open_the_gate();
    }
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(handler: &Stubborn) -> Self {
        let now = handler.running.fetch_add(1, Ordering::SeqCst) + 1;
        handler.most.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(&handler.running))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_whose_call_was_cancelled_counts_until_it_is_really_gone() {
    handlers_count_until_they_are_gone(|stream| reset(stream, code::CANCEL)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_whose_call_the_server_had_to_reset_counts_until_it_is_really_gone() {
    handlers_count_until_they_are_gone(|stream| window_update(stream, 0)).await;
}

async fn handlers_count_until_they_are_gone(end: impl Fn(u32) -> Vec<u8>) {
    let handler = Stubborn::default();
    let _gate = OpenOnDrop(handler.clone());
    let server = Server::new().add_service(handler.clone());
    let server = Running::start(Transport::Unix, server).await;
    let stream = UnixStream::connect(server.address.as_path().unwrap()).await.unwrap();
    let mut attacker = Peer::client(stream, &[]).await;
    // Each stream is opened and then ended once its handler blocks a thread.
    let (mut started, mut refused) = (0, false);
    for time in 0..600 {
        attacker.send(&headers(id(time), &request("/ping.v1.PingService/Hold"), true)).await;
        attacker.send(&frame(kind::PING, 0, 0, b"are you ")).await;
        refused |= loop {
            let answer = attacker.next().await.unwrap();
            match answer.kind {
                kind::PING => break false,
                kind::RST_STREAM if answer.stream == id(time) => {
                    assert_eq!(answer.code(), code::REFUSED_STREAM);
                    break true;
                }
                _ => {}
            }
        };
        if !refused {
            started += 1;
            let holding = || handler.holding.load(Ordering::SeqCst) == started;
            eventually_async("the handler runs", holding).await;
            attacker.send(&end(id(time))).await;
        }
    }
    assert!(refused, "as many as there were streams");
    let most = handler.most.load(Ordering::SeqCst);
    assert!((256..=320).contains(&most), "{most} handlers at once");

    let mut bystander = PingServiceClient::new(server.channel().await);
    bystander.ping(PingRequest::ping()).await.unwrap();

    handler.open_the_gate();
    eventually_async("all handlers are gone", || handler.running.load(Ordering::SeqCst) == 0).await;
    // The attacker is served again if it does nothing wrong.
    attacker.sync().await;
    attacker.send(&headers(id(700), &request(PING), false)).await;
    attacker.send(&data(id(700), &message(b""), true)).await;
    attacker.until(|frame| frame.stream == id(700) && frame.ends_stream()).await;
}
