//! `samehost bench`: measures what a call costs on each way. This file has the sequence of steps;
//! the modules have the rest.
//!
//! Server and client are two processes; this one is the client. Rounds are interleaved: every cell
//! is measured once before any is measured again. So other work of the machine affects all of them
//! alike.

mod blocking;
mod cell;
mod compare;
mod headline;
mod html;
mod load;
mod machine;
mod memory;
mod options;
mod pin;
mod plan;
mod plots;
mod progress;
mod quantile;
mod raw;
mod report;
mod requests;
mod rpc;
mod server;
mod stacks;
mod stream;
mod stubs;
mod table;
mod text;
mod usage;
mod worker;

use std::io::{self, Write};
use std::process::ExitCode;

use samehost::{Address, BusyPoll};

use self::cell::{Cell, Stack};
use self::compare::Earlier;
use self::load::Load;
use self::machine::Machine;
pub(crate) use self::options::Args;
use self::pin::pin_to;
use self::plan::Plan;
use self::progress::Progress;
use self::report::{Report, Row, Sample};
use self::server::ServerProcess;
pub(crate) use self::server::{Args as ServerArgs, run as run_server};
use self::usage::Usage;
use self::worker::Limit;
use crate::failure::{Failure, Outcome};
use crate::shutdown::Signals;

/// A warm-up takes this fraction of the time that follows it.
const WARM_UP: u32 = 10;

pub(crate) fn run(args: Args) -> Outcome {
    let plan = Plan::new(args)?;
    if let Some(pin) = plan.pin {
        pin_to(pin.client)?;
    }
    crate::runtime::new(plan.threads)?.block_on(bench(plan))
}

async fn bench(plan: Plan) -> Outcome {
    let mut signals = Signals::new()?;
    let earlier = plan.compare.as_deref().map(Earlier::read).transpose()?;
    if let Some(directory) = &plan.report {
        html::prepare(directory)?;
    }
    let machine = Machine::this();
    let mut samples = vec![Vec::new(); plan.cells.len()];
    // A signal drops `measure`, which ends its servers.
    let (interrupted, failure) = tokio::select! {
        measured = measure(&plan, &mut samples) => (measured.is_err(), measured.err()),
        () = signals.next() => (true, None),
    };
    let cells = plan.cells.iter().zip(&samples);
    let rows: Vec<_> =
        cells.filter_map(|(cell, samples)| Row::new(cell, plan.threads, samples)).collect();
    if interrupted {
        if rows.is_empty() {
            let signal = || Failure::Failed("interrupted before anything was measured".into());
            return Err(failure.unwrap_or_else(signal));
        }
        let _ = writeln!(io::stderr(), "samehost: interrupted: this is what was measured so far");
    }
    let report = Report::new(&machine, &rows, interrupted);
    let width = text::width();
    let mut text = match plan.json {
        true => serde_json::to_string(&report)?,
        false => table::text(&plan, &report, width),
    };
    if let Some(earlier) = &earlier {
        text = format!("{text}\n\n{}", earlier.changes(&machine, &rows, width));
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))?;
    if let Some(directory) = &plan.report {
        let written = html::write(directory, &plan, &report)?;
        let _ = writeln!(io::stderr(), "samehost: wrote {written}");
    }
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// What the client half connects to.
enum Target {
    /// The server for one stack, one transport and one way to wait.
    Process(ServerArgs, Box<ServerProcess>),
    /// One server for all cells.
    Running(Address),
}

impl Target {
    fn address(&self) -> &Address {
        match self {
            Self::Process(_, server) => server.address(),
            Self::Running(address) => address,
        }
    }

    fn is_for(&self, cell: &Cell, plan: &Plan) -> bool {
        match self {
            Self::Process(args, _) => *args == server_args(cell, plan),
            Self::Running(_) => true,
        }
    }

    async fn usage(&mut self) -> Result<Option<Usage>, Failure> {
        match self {
            Self::Process(_, server) => server.usage().await.map(Some),
            Self::Running(_) => Ok(None),
        }
    }
}

/// Starts the server processes that the cells need, or returns the server that is running.
async fn targets(plan: &Plan) -> Result<Vec<Target>, Failure> {
    let mut targets: Vec<Target> = plan.address.iter().cloned().map(Target::Running).collect();
    for cell in &plan.cells {
        if !targets.iter().any(|target| target.is_for(cell, plan)) {
            let args = server_args(cell, plan);
            let server = ServerProcess::start(&args).await?;
            targets.push(Target::Process(args, Box::new(server)));
        }
    }
    Ok(targets)
}

/// Returns the arguments of the server that a cell needs. The client tells a bare socket how to
/// wait.
fn server_args(cell: &Cell, plan: &Plan) -> ServerArgs {
    ServerArgs {
        stack: cell.stack.server(),
        stubs: cell.stubs,
        memory: plan.memory,
        transport: cell.transport,
        threads: plan.threads,
        cpu: plan.pin.map(|pin| pin.server),
        busy_poll: plan.busy_poll(cell).filter(|_| cell.stack == Stack::Samehost),
    }
}

/// Measures all cells in all rounds. `samples` is consistent whenever this is cancelled.
async fn measure(plan: &Plan, samples: &mut [Vec<Sample>]) -> Result<(), Failure> {
    let mut targets = targets(plan).await?;
    let progress = Progress::new(plan.cells.len(), plan.rounds);
    for round in 0..plan.rounds {
        for (cell, samples) in plan.cells.iter().zip(&mut *samples) {
            progress.cell_started(cell);
            if let Some(target) = targets.iter_mut().find(|target| target.is_for(cell, plan)) {
                let limit = plan.limit_of(round);
                let busy_poll = BusyPoll::new(plan.busy_poll(cell).unwrap_or_default());
                samples.push(measure_cell(cell, target, limit, busy_poll).await?);
            }
            progress.cell_done();
        }
        progress.round_done(round + 1);
    }
    Ok(())
}

/// Measures one round of one cell, on connections of its own.
async fn measure_cell(
    cell: &Cell,
    target: &mut Target,
    limit: Limit,
    busy_poll: BusyPoll,
) -> Result<Sample, Failure> {
    let mut load = Load::open(target.address(), cell, busy_poll).await?;
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
    let client = Usage::of_this_process()?.per_call(&client_before, measured.calls);
    let server = match (server_before, target.usage().await?) {
        (Some(before), Some(after)) => Some(after.per_call(&before, measured.calls)),
        _ => None,
    };
    load.close().await;
    Ok(Sample::new(&measured, client, server))
}
