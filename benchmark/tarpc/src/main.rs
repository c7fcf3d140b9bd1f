//! samehost beside tarpc, which has no HTTP/2 and no gRPC: the same payload echoed over a Unix socket, by two
//! processes with a single-threaded runtime each. Rounds are interleaved; medians are printed.
//!
//! Usage: beside-tarpc [SECONDS [ROUNDS]], SECONDS being those of each stack in each round.

mod samehost_stack;
mod tarpc_stack;

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::task::JoinSet;

const PAYLOAD: usize = 1024;

/// What the server says once it listens.
const READY: &str = "ready";

/// A part of the time that is not counted comes before what is.
const WARM_UP: u32 = 10;

#[derive(Clone, Copy, PartialEq)]
enum Stack {
    Samehost,
    Tarpc,
}

impl Stack {
    const ALL: [Self; 2] = [Self::Samehost, Self::Tarpc];
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Samehost => "samehost",
            Self::Tarpc => "tarpc",
        })
    }
}

/// A client that makes one call after the other.
pub trait Caller: Clone + Send + 'static {
    /// Returns the payload that came back.
    fn call(&mut self, payload: Bytes) -> impl Future<Output = Result<Bytes>> + Send;
}

/// Under which circumstances calls are made.
#[derive(Clone, Copy)]
struct Setting {
    in_flight: usize,
    /// Both processes have the same CPU, and no other.
    one_cpu: bool,
}

const SETTINGS: [Setting; 4] = [
    Setting { in_flight: 64, one_cpu: true },
    Setting { in_flight: 1, one_cpu: true },
    Setting { in_flight: 64, one_cpu: false },
    Setting { in_flight: 1, one_cpu: false },
];

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", stack, path] => serve(stack, Path::new(path)),
        ["client", stack, path, in_flight, seconds] => {
            let time = Duration::from_secs_f64(seconds.parse()?);
            let calls = client(stack, Path::new(path), in_flight.parse()?, time)?;
            println!("{calls}");
            Ok(())
        }
        [] => compare(1.0, 5),
        [seconds] => compare(seconds.parse()?, 5),
        [seconds, rounds] => compare(seconds.parse()?, rounds.parse()?),
        _ => bail!("usage: beside-tarpc [SECONDS [ROUNDS]]"),
    }
}

fn compare(seconds: f64, rounds: usize) -> Result<()> {
    ensure!(seconds > 0.0 && rounds > 0, "give more than no time and no rounds");
    let directory = tempfile::tempdir()?;
    let mut results = vec![[Vec::new(), Vec::new()]; SETTINGS.len()];
    for round in 0..rounds {
        for (setting, results) in SETTINGS.iter().zip(&mut results) {
            for (stack, results) in Stack::ALL.into_iter().zip(results) {
                results.push(measure(stack, *setting, seconds, directory.path())?);
            }
        }
        eprintln!("round {} of {rounds} done", round + 1);
    }
    println!("| calls in flight | both ends | samehost, calls/s | tarpc, calls/s | ratio |");
    println!("|---|---|---|---|---|");
    for (setting, [ours, theirs]) in SETTINGS.iter().zip(&mut results) {
        let place = if setting.one_cpu { "on one CPU" } else { "where the scheduler puts them" };
        let ratio = median(ours) / median(theirs);
        println!(
            "| {} | {place} | {} | {} | {ratio:.2} |",
            setting.in_flight,
            with_range(ours),
            with_range(theirs)
        );
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// The median, and in which range all rounds are.
fn with_range(values: &mut [f64]) -> String {
    let median = median(values);
    format!("{median:.0} ({:.0} to {:.0})", values[0], values[values.len() - 1])
}

/// Calls per second of a new server and a new client.
fn measure(stack: Stack, setting: Setting, seconds: f64, directory: &Path) -> Result<f64> {
    let socket = directory.join("socket");
    let _ = std::fs::remove_file(&socket);
    let path = socket.to_str().context("the temporary directory has a strange name")?;
    let all = sched_getaffinity(None)?;
    if setting.one_cpu {
        // Children inherit it.
        sched_setaffinity(None, &first_of(&all)?)?;
    }
    let spawned = Process::spawn(&["server", &stack.to_string(), path]).and_then(|mut server| {
        ensure!(server.line()? == READY, "the server of {stack} did not start");
        let time = seconds.to_string();
        let in_flight = setting.in_flight.to_string();
        Process::spawn(&["client", &stack.to_string(), path, &in_flight, &time])?.line()
    });
    sched_setaffinity(None, &all)?;
    Ok(spawned?.parse::<f64>()? / seconds)
}

fn first_of(cpus: &CpuSet) -> Result<CpuSet> {
    let first = (0..CpuSet::MAX_CPU).find(|cpu| cpus.is_set(*cpu)).context("there is no CPU")?;
    let mut one = CpuSet::new();
    one.set(first);
    Ok(one)
}

/// This program again. It ends when this handle goes, or this process.
struct Process {
    child: Child,
}

impl Process {
    fn spawn(arguments: &[&str]) -> Result<Self> {
        let child = Command::new("/proc/self/exe")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self { child })
    }

    fn line(&mut self) -> Result<String> {
        let output = self.child.stdout.take().context("it has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn serve(stack: &str, path: &Path) -> Result<()> {
    // The end of the input is the end of the process that started this one.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let ready = || println!("{READY}");
    runtime()?.block_on(async {
        match stack {
            "samehost" => samehost_stack::serve(path, ready).await,
            "tarpc" => tarpc_stack::serve(path, ready).await,
            _ => bail!("there is no stack {stack}"),
        }
    })
}

fn client(stack: &str, path: &Path, in_flight: usize, time: Duration) -> Result<u64> {
    runtime()?.block_on(async {
        match stack {
            "samehost" => calls(samehost_stack::connect(path).await?, in_flight, time).await,
            "tarpc" => calls(tarpc_stack::connect(path).await?, in_flight, time).await,
            _ => bail!("there is no stack {stack}"),
        }
    })
}

/// How many calls `in_flight` callers make on one connection in `time`.
async fn calls<C: Caller>(caller: C, in_flight: usize, time: Duration) -> Result<u64> {
    calls_until(&caller, in_flight, Instant::now() + time / WARM_UP).await?;
    calls_until(&caller, in_flight, Instant::now() + time).await
}

async fn calls_until<C: Caller>(caller: &C, in_flight: usize, deadline: Instant) -> Result<u64> {
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        let mut caller = caller.clone();
        callers.spawn(async move {
            let payload = Bytes::from(vec![7; PAYLOAD]);
            let mut calls = 0;
            while Instant::now() < deadline {
                let echo = caller.call(payload.clone()).await?;
                ensure!(echo.len() == PAYLOAD, "the echo has {} bytes", echo.len());
                calls += 1;
            }
            Ok(calls)
        });
    }
    let mut sum = 0;
    while let Some(calls) = callers.join_next().await {
        sum += calls??;
    }
    Ok(sum)
}
