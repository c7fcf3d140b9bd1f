//! A server that ends when it is idle, just when a client connects.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Channel, Listener};

use crate::support::{block_on, directory, ping_server, socket_in};

/// It is so short that it often ends just when a client connects.
const IDLE: Duration = Duration::from_millis(1);

const CALLS: u64 = 400;

/// Waits up to four times as long as the server does.
async fn pause(call: u64) {
    tokio::time::sleep(Duration::from_millis(call * 7 % 5)).await;
}

/// Servers that come and go in a thread.
struct Servers {
    stop: Arc<AtomicBool>,
    starts: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Servers {
    /// Runs `serve` repeatedly until it is told to stop.
    fn start(mut serve: impl FnMut() + Send + 'static) -> Self {
        let (stop, starts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, started) = (Arc::clone(&stop), Arc::clone(&starts));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                serve();
                started.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { stop, starts, thread }
    }

    /// Makes calls until there were enough of them and of the servers. `call` returns whether it met
    /// one. On a busy machine the servers are few at first.
    fn meet(self, mut call: impl AsyncFnMut() -> bool) {
        let (began, mut served) = (Instant::now(), 0);
        let starts = || self.starts.load(Ordering::SeqCst);
        block_on(async {
            for number in 0.. {
                if number >= CALLS && starts() > 10 && served > 10 {
                    break;
                }
                let late = began.elapsed() > Duration::from_secs(60);
                assert!(!late, "the race was not run: {} servers, {served} calls", starts());
                pause(number).await;
                served += u32::from(call().await);
            }
        });
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

/// This is like systemd, which keeps the socket open and starts a server when a client waits in its
/// queue.
#[test]
fn no_call_fails_while_servers_of_one_socket_come_and_go() {
    let directory = directory();
    let address = socket_in(directory.path());
    let socket = UnixListener::bind(address.as_path().unwrap()).unwrap();
    let servers = Servers::start(move || {
        let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let mut waited = [PollFd::new(&socket, PollFlags::IN)];
        if poll(&mut waited, Some(&timeout)).unwrap() == 0 {
            return;
        }
        block_on(async {
            let listener = Listener::from_std(socket.try_clone().unwrap()).unwrap();
            let server = ping_server().serve_until_idle(listener, IDLE, std::future::pending());
            server.await.unwrap();
        });
    });
    servers.meet(async || {
        let channel = Channel::connect(&address).await.unwrap();
        PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();
        true
    });
}

/// A client whose server comes and goes is either served or finds no socket; it is never cut off.
#[test]
fn who_has_connected_is_served_by_a_server_that_ends() {
    let directory = directory();
    let address = socket_in(directory.path());
    let of_servers = address.clone();
    let servers = Servers::start(move || {
        block_on(async {
            let listener = Listener::bind(&of_servers).await.unwrap();
            // A client that has connected may take a moment to call.
            let server = ping_server().idle_timeout(Duration::from_secs(1));
            let server = server.serve_until_idle(listener, IDLE, std::future::pending());
            server.await.unwrap();
        });
    });
    servers.meet(async || {
        // It connects only to a server that is there at this moment, and does not try again.
        let Ok(stream) = std::os::unix::net::UnixStream::connect(address.as_path().unwrap()) else {
            return false;
        };
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        let mut client = PingServiceClient::new(Channel::from_stream(stream));
        client.ping(PingRequest::ping()).await.unwrap();
        true
    });
}
