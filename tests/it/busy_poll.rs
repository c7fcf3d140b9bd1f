//! Busy polling: calls with pauses around its time limit, so that an end goes to sleep just as
//! something comes; and connections without calls, which use no CPU time.

use std::time::{Duration, Instant};

use proptest::prelude::any;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rustix::time::{ClockId, clock_gettime};
use samehost::ping::{Ping, PingRequest, PingServiceClient, PingServiceServer};
use samehost::{Address, BusyPoll, Channel, Server};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::support::{Running, Transport};

/// How long the ends poll before they sleep.
const TIME: Duration = Duration::from_micros(100);

/// The number of calls for each combination of ends.
const CALLS: usize = 2_000;

/// A call whose wake-up is lost never ends. All calls together may take long where both ends have one CPU.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn no_wake_up_is_lost_with_both_ends_busy() {
    calls_with_pauses(true, true);
}

#[test]
fn no_wake_up_is_lost_with_a_busy_server() {
    calls_with_pauses(true, false);
}

#[test]
fn no_wake_up_is_lost_with_a_busy_client() {
    calls_with_pauses(false, true);
}

#[test]
fn no_wake_up_is_lost_with_none_busy() {
    calls_with_pauses(false, false);
}

#[test]
fn an_idle_connection_uses_no_cpu() {
    on_a_thread_of_its_own(Transport::Unix, true, |address| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = client(&address, true).await;
            client.ping(PingRequest::ping()).await.unwrap();
            // This is the CPU time of the thread, on which nothing but this runtime runs.
            let spent = || clock_gettime(ClockId::ThreadCPUTime);
            for _ in 0..20 {
                let before = spent();
                tokio::time::sleep(Duration::from_millis(200)).await;
                let after = spent();
                let nanoseconds = (after.tv_sec - before.tv_sec) * 1_000_000_000
                    + (after.tv_nsec - before.tv_nsec);
                if nanoseconds < 20_000_000 {
                    return;
                }
            }
            panic!("busy without calls");
        });
    });
}

fn calls_with_pauses(server_busy: bool, client_busy: bool) {
    for transport in [Transport::Unix, Transport::Tcp] {
        on_a_thread_of_its_own(transport, server_busy, |address| {
            let current = Builder::new_current_thread().enable_all().build().unwrap();
            current.block_on(call_with_pauses(&address, client_busy));
            let several = Builder::new_multi_thread().worker_threads(2).enable_all().build();
            several.unwrap().block_on(call_with_pauses(&address, client_busy));
        });
    }
}

async fn call_with_pauses(address: &Address, busy: bool) {
    let mut client = client(address, busy).await;
    // The pauses are the same in each run.
    let mut random = TestRunner::deterministic();
    for sequence in 0..CALLS as u64 {
        let request = PingRequest { sequence, ..PingRequest::ping() };
        let call = tokio::time::timeout(PATIENCE, client.ping(request));
        let reply = call.await.expect("a wake-up was lost").unwrap().into_inner();
        assert_eq!(reply.sequence, sequence);
        // A pause lasts up to twice the time limit.
        let pause = any::<u32>().new_tree(&mut random).unwrap().current();
        let pause = 2 * TIME * (pause % 1_000) / 1_000;
        // A timer has a resolution of milliseconds only.
        let began = Instant::now();
        while began.elapsed() < pause {
            tokio::task::yield_now().await;
        }
    }
}

async fn client(address: &Address, busy: bool) -> PingServiceClient<Channel> {
    let channel = Channel::builder(address).busy_poll(busy_poll(busy)).connect().await.unwrap();
    PingServiceClient::new(channel)
}

fn busy_poll(on: bool) -> BusyPoll {
    BusyPoll::new(if on { TIME } else { Duration::ZERO })
}

/// A server whose runtime has a thread of its own, so that both ends really sleep.
fn on_a_thread_of_its_own(transport: Transport, busy: bool, clients: impl FnOnce(Address)) {
    let (tell, told) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::new()
                .add_service(PingServiceServer::new(Ping::default()))
                .busy_poll(busy_poll(busy));
            let running = Running::start(transport, server).await;
            tell.send(running.address.clone()).unwrap();
            let _ = stopped.await;
            running.stop().await;
        });
    });
    clients(told.recv().unwrap());
    drop(stop);
    server.join().unwrap();
}
