//! `samehost bench`: what a call costs over a Unix socket and over TCP loopback. The options and
//! the flow; the rest is in the modules below.
//!
//! Server and client are two processes, this one being the client. Rounds are interleaved: every
//! cell is measured once before any is measured again, so that whatever else the machine does
//! meets all of them alike.

mod cell;
mod load;
mod machine;
mod progress;
mod report;
mod server;
mod table;
mod usage;
mod worker;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use samehost::Address;

use self::cell::{Cell, Kind, Stack, Transport};
use self::load::{Limit, Load};
use self::progress::Progress;
use self::report::{Report, Row, Sample};
use self::server::ServerProcess;
pub(crate) use self::server::{Args as ServerArgs, run as run_server};
use self::usage::Usage;
use crate::args::{self, List};
use crate::later;
use crate::shutdown::Signals;
use crate::{Failure, Outcome};

/// The most calls in flight, or streams.
const CONCURRENCY_MAX: usize = 4096;

/// A warm-up is this part of what follows it.
const WARM_UP: u32 = 10;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  samehost bench
  samehost bench --kind unary --payload 0,1024,65536 --concurrency 1
  samehost bench --calls 100000 --json > report.json
  samehost bench --address unix:/run/app/ping.sock

Server and client are two processes with one connection between them. A cell is one combination of
transport, kind, payload and concurrency; its row shows the median of its rounds. Ctrl-C ends the
run and prints what was measured so far: exit code 0, or 1 where that is nothing.")]
pub(crate) struct Args {
    /// What to measure: unary (a call and its reply), stream (a message and its echo on a
    /// bidirectional stream, up to 256 or 4 MiB in flight)
    #[arg(long, value_name = "KIND,…", default_value = "unary,stream",
          value_parser = |text: &str| args::list(text, kind))]
    kind: List<KindArg>,
    /// Bytes of payload in each direction
    #[arg(long, value_name = "BYTES,…", default_value = "1024", allow_negative_numbers = true,
          value_parser = |text: &str| args::list(text, args::payload))]
    payload: List<usize>,
    /// Calls in flight for unary, streams for stream
    #[arg(long, value_name = "N,…", default_value = "1,16,64", allow_negative_numbers = true,
          value_parser = |text: &str| args::list(text, concurrency))]
    concurrency: List<usize>,
    /// How many calls to make in each cell, over all rounds
    #[arg(long, value_name = "N", conflicts_with = "duration", allow_negative_numbers = true,
          value_parser = calls)]
    calls: Option<u64>,
    /// How long to measure each cell, over all rounds
    #[arg(long, value_name = "DURATION", default_value = "2s", allow_negative_numbers = true,
          value_parser = args::positive_duration)]
    duration: Duration,
    /// How often to go through all cells
    #[arg(long, value_name = "N", default_value_t = 5, allow_negative_numbers = true,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Threads of server and client each; 1 is a single-threaded runtime
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Print the report as one JSON object, and nothing else
    #[arg(long)]
    json: bool,
    /// Measure a running server of ping.v1, in any language, instead of starting servers
    #[arg(long, value_name = "ADDRESS")]
    address: Option<Address>,
    #[command(flatten)]
    later: Later,
}

/// Options of a later version: known, so that they are refused by name.
#[derive(clap::Args)]
struct Later {
    #[arg(long, hide = true)]
    busy_poll: Option<String>,
    #[arg(long, hide = true)]
    pin: Option<String>,
    #[arg(long, hide = true)]
    against: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "")]
    raw: Option<String>,
    #[arg(long, hide = true)]
    report: Option<String>,
    #[arg(long, hide = true)]
    compare: Option<String>,
    #[arg(long, hide = true)]
    connections: Option<String>,
}

impl Later {
    fn refuse(&self, kinds: &[KindArg]) -> Result<(), Failure> {
        later::refuse(&[
            ("--busy-poll", self.busy_poll.is_some()),
            ("--pin", self.pin.is_some()),
            ("--against", self.against.is_some()),
            ("--raw", self.raw.is_some()),
            ("--report", self.report.is_some()),
            ("--compare", self.compare.is_some()),
            ("--connections", self.connections.is_some()),
            ("--kind bulk", kinds.contains(&KindArg::Bulk)),
            ("--kind connect", kinds.contains(&KindArg::Connect)),
        ])
    }
}

/// A kind by its name; the last two are of a later version.
#[derive(Clone, Copy, Debug, PartialEq)]
enum KindArg {
    Now(Kind),
    Bulk,
    Connect,
}

fn kind(text: &str) -> Result<KindArg, String> {
    match text {
        "unary" => Ok(KindArg::Now(Kind::Unary)),
        "stream" => Ok(KindArg::Now(Kind::Stream)),
        "bulk" => Ok(KindArg::Bulk),
        "connect" => Ok(KindArg::Connect),
        _ => Err(format!("{text:?} is no kind: write unary, stream or both")),
    }
}

fn concurrency(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=CONCURRENCY_MAX).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is no concurrency: write 1 to {CONCURRENCY_MAX}")),
    }
}

fn calls(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(calls) if calls > 0 => Ok(calls),
        _ => Err(format!("{text:?} is no number of calls: write 1 or more")),
    }
}

/// What a run is to do.
struct Plan {
    cells: Vec<Cell>,
    rounds: u32,
    /// Of a cell, over all rounds.
    limit: Limit,
    threads: u16,
    json: bool,
    /// A server that is running already.
    address: Option<Address>,
}

impl Plan {
    fn new(args: Args) -> Result<Self, Failure> {
        let Args { calls, rounds, .. } = args;
        let most = args.concurrency.0.iter().max().map_or(1, |&most| most as u64);
        if let Some(calls) = calls.filter(|calls| calls / u64::from(rounds) < most) {
            return Err(Failure::Usage(format!(
                "--calls {calls} over {rounds} rounds is less than one for each of {most} in \
                 flight: give at least {} or fewer --rounds",
                u64::from(rounds) * most
            )));
        }
        let transports = match &args.address {
            Some(address) => vec![Transport::of(address)],
            None => Transport::ALL.to_vec(),
        };
        let mut cells = Vec::new();
        for &kind in &args.kind.0 {
            let KindArg::Now(kind) = kind else { continue };
            for &payload in &args.payload.0 {
                for &concurrency in &args.concurrency.0 {
                    for &transport in &transports {
                        let stack = Stack::Samehost;
                        cells.push(Cell { stack, transport, kind, payload, concurrency });
                    }
                }
            }
        }
        Ok(Self {
            cells,
            rounds,
            limit: calls.map_or(Limit::Time(args.duration), Limit::Calls),
            threads: args.threads,
            json: args.json,
            address: args.address,
        })
    }

    /// A round's part of [`Plan::limit`].
    fn limit_of(&self, round: u32) -> Limit {
        match self.limit {
            Limit::Calls(calls) => {
                let (rounds, round) = (u64::from(self.rounds), u64::from(round));
                Limit::Calls(calls / rounds + u64::from(round < calls % rounds))
            }
            Limit::Time(time) => Limit::Time(time / self.rounds),
        }
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    args.later.refuse(&args.kind.0)?;
    let plan = Plan::new(args)?;
    crate::serve::runtime(plan.threads)?.block_on(bench(plan))
}

async fn bench(plan: Plan) -> Outcome {
    let mut signals = Signals::new()?;
    let mut samples = vec![Vec::new(); plan.cells.len()];
    // Dropped at a signal, `measure` ends its servers.
    let interrupted = tokio::select! {
        measured = measure(&plan, &mut samples) => measured.map(|()| false)?,
        () = signals.next() => true,
    };
    let cells = plan.cells.iter().zip(&samples);
    let rows: Vec<_> =
        cells.filter_map(|(cell, samples)| Row::new(cell, plan.threads, samples)).collect();
    if interrupted {
        let _ = match rows.len() {
            0 => return Err(Failure::Failed("interrupted before anything was measured".into())),
            _ => writeln!(io::stderr(), "samehost: interrupted: this is what was measured so far"),
        };
    }
    print(&plan, &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Where the client half connects.
enum Target {
    Process(Box<ServerProcess>),
    Running(Address),
}

impl Target {
    fn address(&self) -> &Address {
        match self {
            Self::Process(server) => server.address(),
            Self::Running(address) => address,
        }
    }

    async fn usage(&mut self) -> Result<Option<Usage>, Failure> {
        match self {
            Self::Process(server) => server.usage().await.map(Some),
            Self::Running(_) => Ok(None),
        }
    }
}

/// Measures all cells in all rounds. What `samples` holds is whole whenever this is cancelled.
async fn measure(plan: &Plan, samples: &mut [Vec<Sample>]) -> Result<(), Failure> {
    let mut targets = Vec::new();
    match &plan.address {
        Some(address) => targets.push(Target::Running(address.clone())),
        None => {
            for transport in Transport::ALL {
                let server = ServerProcess::start(transport, plan.threads).await?;
                targets.push(Target::Process(Box::new(server)));
            }
        }
    }
    let progress = Progress::new(plan.cells.len(), plan.rounds);
    for round in 0..plan.rounds {
        for (cell, samples) in plan.cells.iter().zip(&mut *samples) {
            progress.cell_started(cell);
            for target in &mut targets {
                if Transport::of(target.address()) == cell.transport {
                    samples.push(measure_cell(cell, target, plan.limit_of(round)).await?);
                }
            }
            progress.cell_done();
        }
        progress.round_done(round + 1);
    }
    Ok(())
}

/// One round of one cell, on a connection of its own.
async fn measure_cell(cell: &Cell, target: &mut Target, limit: Limit) -> Result<Sample, Failure> {
    let mut load = Load::open(target.address(), cell).await?;
    load.run(match limit {
        Limit::Calls(calls) => {
            Limit::Calls((calls / u64::from(WARM_UP)).max(cell.concurrency as u64))
        }
        Limit::Time(time) => Limit::Time(time / WARM_UP),
    })
    .await?;
    let server_before = target.usage().await?;
    let client_before = Usage::of_this_process()?;
    let measured = load.run(limit).await?;
    let client = Usage::of_this_process()?.cpu_us_per_call(&client_before, measured.calls);
    let server = match (server_before, target.usage().await?) {
        (Some(before), Some(after)) => Some(after.cpu_us_per_call(&before, measured.calls)),
        _ => None,
    };
    load.close().await;
    Ok(Sample::new(&measured, client, server))
}

fn print(plan: &Plan, rows: &[Row]) -> Result<(), Failure> {
    let text = if plan.json {
        serde_json::to_string(&Report::new(rows))?
    } else {
        let headline = table::headline(rows).map_or(String::new(), |text| format!("{text}\n\n"));
        let threads = match plan.threads {
            1 => "1 thread".to_owned(),
            threads => format!("{threads} threads"),
        };
        format!(
            "{headline}{}\n\n\
             Server and client: two processes, {threads} each; their CPU time is per call.\n\
             At once: calls, or streams of up to 256 messages or 4 MiB in flight.\n\
             Medians over the rounds; spread: (max − min) / median of calls/s.",
            table::table(rows),
        )
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}
