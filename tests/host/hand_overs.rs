//! One server after another takes over while clients call: no call and no connection fails.
//!
//! Beside this crate's own client there may be others, for which `tests/restart/run` gives commands: each
//! is started with the address, prints `ready` once it calls, and when its input ends one line:
//! `calls=N failed=N connects=N failed=N streams=N failed=N` and, where something failed, what.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use samehost::ping::{PingRequest, PingServiceClient, WatchRequest};
use samehost::{Address, Channel};
use tokio::task::JoinSet;
use tokio::time::interval;
use tonic::{Code, Status};

use crate::Scale;
use crate::support::nix_signal::Signal;
use crate::support::{
    Serving, block_on, directory, eventually, names_in, open_descriptors, samehost, socket_in,
};

/// Of each client: channels, each with calls and one stream.
const CHANNELS: u64 = 4;

/// Between two calls on a channel: with four clients about 1,000 calls a second in all.
const CALL: Duration = Duration::from_millis(16);

/// Between two new connections of a client.
const CONNECT: Duration = Duration::from_millis(10);

/// How long a stream goes on after its server was taken over.
const DRAIN: &str = "1s";

pub(crate) fn under_load(scale: Scale) -> String {
    let count = std::env::var("HAND_OVERS").ok().and_then(|count| count.parse().ok());
    let count = count.unwrap_or(scale.pick(10, 100));
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let mut server = start(&address);
    let inode = path.metadata().unwrap().ino();
    // It has all that it opens by itself once it has served a call.
    let pinged = samehost().args(["ping", "-q", "-c", "1", &address.to_string()]).output().unwrap();
    assert!(pinged.status.success(), "{pinged:?}");
    let before = open_descriptors(server.id());
    let own = format!("{} as caller", std::env::current_exe().unwrap().display());
    let others = std::env::var("RESTART_CLIENTS").unwrap_or_default();
    let commands = std::iter::once(own.as_str()).chain(others.lines());
    let mut clients: Vec<_> = commands.map(|command| Client::start(command, &address)).collect();
    for _ in 0..count {
        let successor = start(&address);
        let mut former = std::mem::replace(&mut server, successor);
        assert_eq!(former.wait().0, Some(0));
        assert_eq!(path.metadata().unwrap().ino(), inode, "the socket is another one");
    }
    let mut figures = format!("{count} hand-overs");
    for client in &mut clients {
        let summary = client.stop();
        // A stream ends at its server's drain deadline, and nothing else does.
        let failed: Vec<_> = summary.split(" failed=").skip(1).collect();
        let zero = |part: &str| part.split([' ', '\n']).next() == Some("0");
        assert!(
            failed.len() == 3 && zero(failed[0]) && zero(failed[1]) && zero(failed[2]),
            "{summary}"
        );
        let _ = write!(figures, "; {}: {}", client.name, summary.trim_end());
    }
    eventually("the last server has no descriptor more than the first", || {
        open_descriptors(server.id()) <= before
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
    assert!(names_in(directory.path()).is_empty());
    figures
}

fn start(address: &Address) -> Serving {
    let address = address.to_string();
    let mut server =
        Serving::spawn(samehost().args(["serve", "--take-over", "--drain", DRAIN, &address]));
    let line = server.line();
    assert_eq!(line, format!("listening on {address}"), "{}", server.wait().1);
    server
}

struct Client {
    name: String,
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start(command: &str, address: &Address) -> Self {
        let mut words = command.split_whitespace();
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .arg(address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{command}");
        let name = command.rsplit(['/', ' ']).next().unwrap().to_owned();
        Self { name, child, output }
    }

    /// Ends its input; what it says then.
    fn stop(&mut self) -> String {
        drop(self.child.stdin.take());
        let mut summary = String::new();
        self.output.read_to_string(&mut summary).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}: {summary}", self.name);
        summary
    }
}

/// What a client has done, and what failed by its text.
#[derive(Default)]
struct Tally {
    calls: Outcome,
    connects: Outcome,
    streams: Outcome,
}

#[derive(Default)]
struct Outcome {
    all: u64,
    failures: BTreeMap<String, u64>,
}

impl Outcome {
    fn note(&mut self, outcome: Result<(), Status>) {
        self.all += 1;
        if let Err(status) = outcome {
            *self
                .failures
                .entry(format!("{:?}: {}", status.code(), status.message()))
                .or_default() += 1;
        }
    }

    fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// This crate's own client.
pub(crate) fn caller(address: &str) -> ExitCode {
    let address: Address = address.parse().unwrap();
    let tally = Arc::new(Mutex::new(Tally::default()));
    let (before, after) = block_on(async {
        let before = open_descriptors("self");
        let mut tasks = JoinSet::new();
        for _ in 0..CHANNELS {
            let channel = Channel::connect(&address).await.unwrap();
            tasks.spawn(calls(channel.clone(), Arc::clone(&tally)));
            tasks.spawn(streams(channel, Arc::clone(&tally)));
        }
        tasks.spawn(connects(address.clone(), Arc::clone(&tally)));
        println!("ready");
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        ended.await.unwrap().unwrap();
        tasks.shutdown().await;
        let closed = || open_descriptors("self") <= before;
        crate::support::eventually_async("its connections are closed", closed).await;
        (before, open_descriptors("self"))
    });
    let Tally { calls, connects, streams } = &*tally.lock().unwrap();
    println!(
        "calls={} failed={} connects={} failed={} streams={} failed={} descriptors {before} before \
         and {after} after",
        calls.all,
        calls.failed(),
        connects.all,
        connects.failed(),
        streams.all,
        streams.failed()
    );
    for outcome in [calls, connects, streams] {
        for (text, times) in &outcome.failures {
            println!("{times} times {text}");
        }
    }
    ExitCode::SUCCESS
}

async fn calls(channel: Channel, tally: Arc<Mutex<Tally>>) {
    let mut client = PingServiceClient::new(channel);
    let mut ticks = interval(CALL);
    loop {
        ticks.tick().await;
        let outcome = client.ping(PingRequest::ping()).await.map(drop);
        tally.lock().unwrap().calls.note(outcome);
    }
}

async fn connects(address: Address, tally: Arc<Mutex<Tally>>) {
    let mut ticks = interval(CONNECT);
    loop {
        ticks.tick().await;
        let outcome = match Channel::connect(&address).await {
            Ok(channel) => {
                PingServiceClient::new(channel).ping(PingRequest::ping()).await.map(drop)
            }
            Err(error) => Err(Status::unavailable(error.to_string())),
        };
        tally.lock().unwrap().connects.note(outcome);
    }
}

/// One after the other, each until its server ends it.
async fn streams(channel: Channel, tally: Arc<Mutex<Tally>>) {
    let mut client = PingServiceClient::new(channel);
    loop {
        let request = WatchRequest {
            interval: Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 }),
            ..WatchRequest::default()
        };
        let outcome = match client.watch(request).await {
            Err(status) => Err(status),
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => break Ok(()),
                        // The server's drain deadline.
                        Err(status) if status.code() == Code::Unavailable => break Ok(()),
                        Err(status) => break Err(status),
                    }
                }
            }
        };
        tally.lock().unwrap().streams.note(outcome);
    }
}
