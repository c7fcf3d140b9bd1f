//! What it takes other users, limits or many repetitions to see: a program of checks, each of which
//! prints a line with its figures, or fails. `tests/host/run` builds and starts it; what a test in
//! `tests/it` can show is there.

mod cancels;
mod descriptor_attacks;
mod descriptor_calls;
mod descriptor_cost;
mod descriptors;
mod faults;
mod hand_overs;
mod heir;
mod intruder;
mod memory;
mod rivals;
mod soak;
mod socket_file;
mod stop;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use descriptor_calls::Kind;

use samehost_test_support::{self as support, wire};

/// How often a check does what it does.
#[derive(Clone, Copy)]
struct Scale {
    full: bool,
    /// Of the soak, where they are given.
    calls: Option<u64>,
    /// Of what runs for a time, where it is given.
    time: Option<Duration>,
}

impl Scale {
    /// `all` with `--full`, else `some`.
    fn pick<T>(self, some: T, all: T) -> T {
        if self.full { all } else { some }
    }
}

/// By name; what it returns are its figures.
type Check = (&'static str, fn(Scale) -> String);

const CHECKS: &[Check] = &[
    ("restarts", socket_file::restarts),
    ("starts-at-once", socket_file::starts_at_once),
    ("intruder", intruder::is_kept_out),
    ("faults", faults::of_each_step),
    ("descriptors", descriptors::sent_unasked),
    ("descriptor-calls", descriptor_calls::stay_with_their_call),
    ("descriptor-cost", descriptor_cost::of_those_that_are_not_sent),
    ("descriptor-attacks", descriptor_attacks::are_fended_off),
    ("idle-memory", memory::of_connections_that_were_busy),
    ("rivals", rivals::share_a_server),
    ("stop", stop::with_clients),
    ("hand-overs", hand_overs::under_load),
    ("heir", heir::serves_on),
    ("cancels", cancels::of_many_callers),
    ("soak", soak::of_mixed_calls),
];

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    // This program's other processes, as other users or with other limits.
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["as", "intruder", directory] => return intruder::run(directory.as_ref()),
        ["as", "bind", address] => return faults::bind(address),
        ["as", "caller", address] => return hand_overs::caller(address),
        ["as", "heir", address] => return heir::run(address),
        ["as", "returner", address] => return descriptor_calls::run(address, Kind::Returner),
        ["as", "attacked", address] => return descriptor_calls::run(address, Kind::Attacked),
        ["as", "unused", address] => return descriptor_calls::run(address, Kind::Unused),
        ["as", "plain", address] => return descriptor_calls::run(address, Kind::Plain),
        ["as", "served", address] => return rivals::served(address),
        ["as", "attacker", attack, path, connections] => {
            return rivals::attacker(attack, path, connections);
        }
        ["as", "victim", address, millis] => return rivals::calls(address, millis),
        ["as", "clients", address, connections, calls @ ..] => {
            return memory::clients(address, connections, calls);
        }
        _ => {}
    }
    let mut scale = Scale { full: false, calls: None, time: None };
    arguments.retain(|argument| {
        scale.full |= argument == "--full";
        let calls = argument.strip_prefix("--calls=").and_then(|calls| calls.parse().ok());
        scale.calls = calls.or(scale.calls);
        let seconds = argument.strip_prefix("--seconds=").and_then(|time| time.parse().ok());
        scale.time = seconds.map(Duration::from_secs).or(scale.time);
        argument != "--full" && calls.is_none() && seconds.is_none()
    });
    if let Some(unknown) =
        arguments.iter().find(|name| CHECKS.iter().all(|(known, _)| known != name))
    {
        let known: Vec<_> = CHECKS.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "there is no check {unknown}: --full, --calls=N, --seconds=N, {}",
            known.join(", ")
        );
        return ExitCode::from(2);
    }
    for (name, check) in CHECKS {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == name) {
            let started = Instant::now();
            // A check that fails panics.
            let figures = check(scale);
            println!("{name}: {figures} ({:.1} s)", started.elapsed().as_secs_f64());
        }
    }
    ExitCode::SUCCESS
}

/// Whether system calls can be made to fail.
fn has_strace() -> bool {
    Command::new("strace").arg("--version").output().is_ok()
}
