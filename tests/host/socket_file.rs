//! Servers that are killed and started, and servers that start at once, on one path.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::Scale;
use crate::support::{Serving, directory, names_in, samehost, socket_in};

const LEFT: [&str; 2] = [".ping.sock.lock", "ping.sock"];

/// `kill -9` and a restart: every bind succeeds without help, within a second. In between another
/// server is killed somewhere in its start.
pub(crate) fn restarts(scale: Scale) -> String {
    let times = scale.pick(60, 1_000);
    let directory = directory();
    let address = socket_in(directory.path());
    let address_text = address.to_string();
    let mut slowest = Duration::ZERO;
    for time in 0..times {
        let (started, starved) = (Instant::now(), waited_for_a_cpu("self"));
        let server = Serving::start(&[&address_text], &[]);
        let took = started.elapsed();
        // What other programs on the host take is none of its time.
        let starved =
            waited_for_a_cpu("self") - starved + waited_for_a_cpu(&server.id().to_string());
        slowest = slowest.max(took.saturating_sub(starved));
        UnixStream::connect(address.as_path().unwrap()).expect("it listens");
        assert_eq!(names_in(directory.path()), LEFT, "restart {time}");
        // Dropped, it is killed.
        drop(server);

        let half_started = Serving::spawn(samehost().args(["serve", &address_text]));
        std::thread::sleep(Duration::from_micros(time % 200 * 500));
        drop(half_started);
    }
    assert!(slowest < Duration::from_secs(1), "the slowest start took {slowest:?}");
    format!("{times} times kill -9 and restart, the slowest start took {slowest:.0?}")
}

/// For how long a process's first thread could have run and had no CPU.
fn waited_for_a_cpu(process: &str) -> Duration {
    // Time on a CPU, time on a run queue, both in nanoseconds (Linux'
    // Documentation/scheduler/sched-stats.rst).
    let times = std::fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap();
    Duration::from_nanos(times.split_whitespace().nth(1).unwrap().parse().unwrap())
}

/// Exactly one serves, the others say so, and its inode stays.
pub(crate) fn starts_at_once(scale: Scale) -> String {
    let (servers, rounds) = (50, scale.pick(8, 100));
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    for round in 0..rounds {
        let starting: Vec<_> = (0..servers)
            .map(|_| Serving::spawn(samehost().args(["serve", &address.to_string()])))
            .collect();
        let mut winners = Vec::new();
        let mut inode = None;
        for mut server in starting {
            if server.line() == format!("listening on {address}") {
                inode = path.metadata().ok().map(|file| file.ino());
                winners.push(server);
                continue;
            }
            let (code, errors) = server.wait();
            assert_eq!(code, Some(1), "{errors}");
            assert!(errors.contains("is already being served"), "{errors}");
        }
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(path.metadata().ok().map(|file| file.ino()), inode, "round {round}");
        UnixStream::connect(path).expect("the one listens");
        // Killed: the next round begins with what it left, the first one with nothing.
        assert_eq!(names_in(directory.path()), LEFT, "round {round}");
    }
    format!("{servers} servers at once, {rounds} times: one served, the others said so")
}
