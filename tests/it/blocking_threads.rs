//! Many threads that share one connection of the blocking client.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::thread::{Pid, gettid};
use samehost::ping::{ConverseRequest, PingRequest};
use tonic::{Code, Request};

use crate::blocking::{Served, on_each_transport};
use crate::blocking_ends::sleeps;
use crate::support::{Scripted, Transport, eventually, ping_server};

on_each_transport!(
    threads_that_wait_are_not_woken_by_the_responses_of_others,
    threads_that_have_few_slots_all_have_their_turn,
);

/// Returns how often a thread of this process has slept (proc_pid_status(5)).
fn sleeps_of(thread: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.unwrap().trim().parse().unwrap()
}

fn threads_that_wait_are_not_woken_by_the_responses_of_others(transport: Transport) {
    const CALLS: u64 = 200;
    let served = Served::start(transport, ping_server());
    let client = served.client();
    let (tell, told) = mpsc::channel();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (mut client, tell) = (client.clone(), tell.clone());
            thread::spawn(move || {
                let mut conversation = client.converse(()).unwrap();
                conversation.metadata().unwrap();
                tell.send(gettid()).unwrap();
                conversation.message()
            })
        })
        .collect();
    let threads: Vec<_> = told.iter().take(waiting.len()).collect();
    for thread in &threads {
        eventually("it waits for a response", || sleeps(*thread));
    }
    let total = || threads.iter().map(|thread| sleeps_of(*thread)).sum::<u64>();
    let before = total();
    let mut caller = client.clone();
    for _ in 0..CALLS {
        caller.ping(PingRequest::ping()).unwrap();
    }
    // While the caller does not wait, one of them reads.
    let slept = total() - before;
    assert!(slept < 5 * CALLS, "{slept} times for {CALLS} calls");
    drop(served);
    for thread in waiting {
        assert!(thread.join().unwrap().is_err());
    }
}

/// Some calls are given up while they wait, some conversations are dropped.
fn threads_that_have_few_slots_all_have_their_turn(transport: Transport) {
    let server = Scripted::default().server().max_concurrent_streams(3);
    let served = Served::start(transport, server);
    let client = served.client();
    let threads: Vec<_> = (0..16)
        .map(|thread| {
            let mut client = client.clone();
            thread::spawn(move || {
                for round in 0..100 {
                    match (thread + round) % 8 {
                        0 => {
                            let mut conversation = client.converse(()).unwrap();
                            conversation.send(&ConverseRequest::default()).unwrap();
                        }
                        1 => {
                            let mut timed = Request::new(PingRequest::ping());
                            timed.set_timeout(Duration::from_micros(100 * round));
                            let code = client
                                .ping(timed)
                                .map_or_else(|status| status.code(), |_| Code::Ok);
                            assert!(matches!(code, Code::Ok | Code::DeadlineExceeded), "{code:?}");
                        }
                        _ => {
                            client.ping(PingRequest::ping()).unwrap();
                        }
                    }
                }
            })
        })
        .collect();
    eventually("all have made their calls", || threads.iter().all(|thread| thread.is_finished()));
    for thread in threads {
        thread.join().unwrap();
    }
}
