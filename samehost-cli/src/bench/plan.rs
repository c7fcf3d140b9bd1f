//! [`Plan`]: what a run has to do, from the options.

use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use samehost::Address;

use super::cell::{Carrier, Cell, Delivery, Kind, Stack, Stubs, Transport, Wait};
use super::options::{Against, Args};
use super::pin::Pin;
use super::worker::Limit;
use crate::args::PAYLOAD_MAX;
use crate::failure::Failure;

/// The default size of a message of [`Kind::Bulk`].
const BULK_PAYLOAD: usize = 1024 * 1024;

/// The default sizes of payloads that are handed over in memory.
const MEMORY_PAYLOADS: [usize; 2] = [1024 * 1024, 64 * 1024 * 1024];

/// The sizes of [`Kind::Bulk`] in a report: 64 B to 16 MiB.
const BULK_PAYLOADS: [usize; 10] = {
    let mut payloads = [64; 10];
    let mut index = 1;
    while index < payloads.len() {
        payloads[index] = payloads[index - 1] * 4;
        index += 1;
    }
    payloads
};

pub(super) struct Plan {
    pub(super) cells: Vec<Cell>,
    pub(super) rounds: u32,
    /// The limit of a cell, over all rounds.
    limit: Limit,
    pub(super) threads: u16,
    /// Whether payloads are handed over, instead of calls made.
    pub(super) memory: bool,
    pub(super) pin: Option<Pin>,
    /// `None` if it was not asked for, or is off.
    pub(super) busy_poll: Option<Duration>,
    /// Whether busy polling was asked for but is off.
    pub(super) busy_poll_is_off: bool,
    pub(super) json: bool,
    /// Whether all columns are shown.
    pub(super) wide: bool,
    /// The directory to write to.
    pub(super) report: Option<PathBuf>,
    /// The file with an earlier report.
    pub(super) compare: Option<PathBuf>,
    /// The address of a server that is already running.
    pub(super) address: Option<Address>,
}

impl Plan {
    /// Fails with wrong usage if the options do not fit together.
    pub(super) fn new(mut args: Args) -> Result<Self, Failure> {
        // The library decides the same way. If it is pinned, a process has one CPU.
        let one_cpu = available_parallelism().is_ok_and(|cpus| cpus.get() < 2);
        let busy_poll_is_off = args.busy_poll.is_some() && (args.pin.is_some() || one_cpu);
        args.busy_poll = args.busy_poll.filter(|_| !busy_poll_is_off);
        let cells = cells(&args)?;
        let Args { calls, rounds, .. } = args;
        let most = cells.iter().map(|cell| cell.concurrency as u64).max().unwrap_or(1);
        if let Some(calls) = calls.filter(|calls| calls / u64::from(rounds) < most) {
            return Err(Failure::Usage(format!(
                "--calls {calls} over {rounds} rounds is less than one for each of {most} in \
                 flight: give at least {} or fewer --rounds",
                u64::from(rounds) * most
            )));
        }
        Ok(Self {
            cells,
            rounds,
            limit: calls.map_or(Limit::Time(args.duration), Limit::Calls),
            threads: args.threads,
            memory: args.memory,
            pin: args.pin,
            busy_poll: args.busy_poll,
            busy_poll_is_off,
            json: args.json,
            wide: args.wide,
            report: args.report,
            compare: args.compare,
            address: args.address,
        })
    }

    /// Returns how many threads each end has, in words.
    pub(super) fn threads_in_words(&self) -> String {
        match self.threads {
            1 => "1 thread".to_owned(),
            threads => format!("{threads} threads"),
        }
    }

    /// Returns how long our own ends poll before they sleep, in this cell.
    pub(super) fn busy_poll(&self, cell: &Cell) -> Option<Duration> {
        self.busy_poll.filter(|_| cell.wait == Wait::Spin)
    }

    /// Returns a round's part of [`Plan::limit`].
    pub(super) fn limit_of(&self, round: u32) -> Limit {
        match self.limit {
            Limit::Calls(calls) => {
                let (rounds, round) = (u64::from(self.rounds), u64::from(round));
                Limit::Calls(calls / rounds + u64::from(round < calls % rounds))
            }
            Limit::Time(time) => Limit::Time(time / self.rounds),
        }
    }
}

/// Returns all cells. Those that are compared with each other are next to each other.
fn cells(args: &Args) -> Result<Vec<Cell>, Failure> {
    check_payloads(args)?;
    let series = series(args)?;
    let mut cells = Vec::new();
    for &kind in &args.kind.0 {
        for payload in payloads(args, kind) {
            for concurrency in concurrency(args, kind) {
                let connections = match kind {
                    Kind::Connect => vec![concurrency],
                    _ => args.connections.0.clone(),
                };
                for connections in connections.into_iter().filter(|some| *some <= concurrency) {
                    let cell = |(stack, stubs, wait, transport, delivery)| Cell {
                        stack,
                        stubs,
                        transport,
                        wait,
                        kind,
                        delivery,
                        payload,
                        concurrency,
                        connections,
                    };
                    cells.extend(series.iter().copied().map(cell));
                }
            }
        }
    }
    let unmeasured = |kind: &&Kind| cells.iter().all(|cell| cell.kind != **kind);
    if let Some(kind) = args.kind.0.iter().find(unmeasured) {
        return Err(Failure::Usage(format!(
            "there are more --connections than calls in flight of {kind}: give a higher --concurrency, \
             or leave {kind} out of --kind"
        )));
    }
    cells.retain(|cell| cell.stack.measures(cell));
    if args.blocking == Some(true) && cells.iter().all(|cell| cell.stack != Stack::Blocking) {
        return Err(Failure::Usage(
            "--blocking measures unary calls one at a time with samehost's stubs, which the other options leave \
             out: leave it out, or ask for those with --kind unary --concurrency 1 --stubs samehost"
                .into(),
        ));
    }
    Ok(cells)
}

fn check_payloads(args: &Args) -> Result<(), Failure> {
    if args.memory && args.kind.0 != [Kind::Bulk] {
        return Err(Failure::Usage("--memory is a form of bulk: add --kind bulk".into()));
    }
    let largest = args.payload.iter().flat_map(|list| &list.0).max();
    match largest.filter(|payload| !args.memory && **payload > PAYLOAD_MAX) {
        Some(payload) => Err(Failure::Usage(format!(
            "{payload} bytes are over 16 MiB: {PAYLOAD_MAX} at most, or hand it over with --memory"
        ))),
        None => Ok(()),
    }
}

fn payloads(args: &Args, kind: Kind) -> Vec<usize> {
    match &args.payload {
        Some(given) => given.0.clone(),
        None if kind != Kind::Bulk => vec![1024],
        None if args.memory => MEMORY_PAYLOADS.to_vec(),
        None if args.report.is_some() => BULK_PAYLOADS.to_vec(),
        None => vec![BULK_PAYLOAD],
    }
}

fn concurrency(args: &Args, kind: Kind) -> Vec<usize> {
    match (&args.concurrency, kind) {
        (Some(given), _) => given.0.clone(),
        (None, Kind::Unary) if args.report.is_some() => vec![1, 16, 64],
        (None, Kind::Unary) => vec![1, 64],
        (None, _) => vec![1],
    }
}

/// The ways by which calls go, or payloads are handed over.
type Way = (Stack, Option<Stubs>, Wait, Transport, Option<Delivery>);

fn series(args: &Args) -> Result<Vec<Way>, Failure> {
    let stacks = stacks(args)?;
    let mut series = Vec::new();
    if args.memory {
        // Descriptors travel only over Unix sockets.
        for read in [false, true] {
            for &(stack, stubs, wait) in &stacks {
                for &by in Carrier::of(stack) {
                    let delivery = Delivery { by, read };
                    series.push((stack, stubs, wait, Transport::Uds, Some(delivery)));
                }
            }
        }
        return Ok(series);
    }
    let transports = match &args.address {
        Some(address) => vec![Transport::of(address)],
        None => Transport::ALL.to_vec(),
    };
    for (stack, stubs, wait) in stacks {
        for &transport in &transports {
            series.push((stack, stubs, wait, transport, None));
        }
    }
    Ok(series)
}

/// Returns the stacks to compare, with their stubs and how their ends wait.
fn stacks(args: &Args) -> Result<Vec<(Stack, Option<Stubs>, Wait)>, Failure> {
    // It is not known whether another server spins, so only its client is described as spinning.
    let waits: &[Wait] = match (&args.address, args.busy_poll) {
        (Some(_), Some(_)) => &[Wait::Spin],
        (None, Some(_)) => &[Wait::Block, Wait::Spin],
        (_, None) => &[Wait::Block],
    };
    let mut stacks = Vec::new();
    for &stubs in &args.stubs.0 {
        stacks.extend(waits.iter().map(|wait| (Stack::Samehost, Some(stubs), *wait)));
    }
    let blocks = args.blocking.unwrap_or(args.address.is_none());
    if blocks && args.stubs.0.contains(&Stubs::Samehost) {
        stacks.push((Stack::Blocking, Some(Stubs::Samehost), Wait::Block));
    }
    match (args.against, &args.address) {
        (Some(Against::Tonic), _) | (None, None) => {
            stacks.push((Stack::Tonic, Some(Stubs::Tonic), Wait::Block));
        }
        (Some(Against::None), _) | (None, Some(_)) => {}
    }
    match (args.raw, &args.address) {
        (Some(true), Some(address)) => {
            return Err(Failure::Usage(format!(
                "--raw needs a server of its own, and {address} is another: leave one out"
            )));
        }
        (Some(false), _) | (None, Some(_)) => {}
        (_, None) => stacks.extend(waits.iter().map(|wait| (Stack::Raw, None, *wait))),
    }
    Ok(stacks)
}
