//! The options of `samehost bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use samehost::Address;

use super::cell::{Kind, Stubs};
use super::pin::Pin;
use crate::args::{self, List};

/// The most calls in flight, streams or connections.
const CONCURRENCY_MAX: usize = 4096;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  samehost bench
  samehost bench --busy-poll 50us --report bench
  samehost bench --against none --raw=false --stubs samehost,tonic
  samehost bench --kind unary --payload 0,1024,65536 --concurrency 1 --pin 0,0
  samehost bench --kind bulk --memory
  samehost bench --calls 100000 --json > report.json
  samehost bench --compare report.json
  samehost bench --address unix:/run/app/ping.sock

Server and client are two processes. A cell is one combination of stack, transport, kind, payload,
concurrency and connections; its row shows the median of its rounds. Ctrl-C ends the run and prints
what was measured so far: exit code 0, or 1 where that is nothing. A failure, such as a server that
goes away, prints that too, then its reason: exit code 1.")]
pub(crate) struct Args {
    /// What to measure: unary (a call and its reply), stream (a message and its echo on a
    /// bidirectional stream, up to 256 or 4 MiB in flight), bulk (a message that the server streams
    /// one after the other), connect (a new connection to the first reply)
    #[arg(long, value_name = "KIND,…", default_value = "unary,stream,bulk,connect",
          value_parser = |text: &str| args::list(text, kind))]
    pub(super) kind: List<Kind>,
    /// Bytes of payload: in each direction, for bulk in one [default: 1024, for bulk 1048576, with
    /// --report 64 to 16777216]
    #[arg(long, value_name = "BYTES,…", allow_negative_numbers = true,
          value_parser = |text: &str| args::list(text, args::memory_payload))]
    pub(super) payload: Option<List<usize>>,
    /// Calls in flight, for stream and bulk streams [default: unary 1,64, with --report 1,16,64,
    /// others 1]
    #[arg(long, value_name = "N,…", allow_negative_numbers = true,
          value_parser = |text: &str| args::list(text, |text| number(text, "calls in flight")))]
    pub(super) concurrency: Option<List<usize>>,
    /// Connections that the calls in flight are spread over, where there are as many; connect has
    /// its own
    #[arg(long, value_name = "N,…", default_value = "1", allow_negative_numbers = true,
          value_parser = |text: &str| args::list(text, |text| number(text, "connections")))]
    pub(super) connections: List<usize>,
    /// How many calls to make in each cell, over all rounds
    #[arg(long, value_name = "N", conflicts_with = "duration", allow_negative_numbers = true,
          value_parser = args::count::<u64>)]
    pub(super) calls: Option<u64>,
    /// How long to measure each cell, over all rounds
    #[arg(long, value_name = "DURATION", default_value = "2s", allow_negative_numbers = true,
          value_parser = args::positive_duration)]
    pub(super) duration: Duration,
    /// How often to go through all cells
    #[arg(long, value_name = "N", default_value_t = 5, allow_negative_numbers = true,
          value_parser = |text: &str| args::number::<u32>(text, "rounds", 1..=1000))]
    pub(super) rounds: u32,
    /// Threads of server and client each
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true,
          value_parser = args::threads)]
    pub(super) threads: u16,
    /// Keep each process on one CPU; the same for both shows the work without the wake-up of an
    /// idle CPU
    #[arg(long, value_name = "SERVER_CPU,CLIENT_CPU", value_parser = Pin::parse,
          conflicts_with = "address")]
    pub(super) pin: Option<Pin>,
    /// Also measure with both ends polling for this long before they sleep
    #[arg(long, value_name = "DURATION", value_parser = args::positive_duration)]
    pub(super) busy_poll: Option<Duration>,
    /// Bare sockets too: ping-pong for unary, a one-way stream for bulk; with --busy-poll spinning
    /// as well [default: true, with --address false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(super) raw: Option<bool>,
    /// samehost's blocking client too, for unary calls one at a time
    /// [default: true, with --address false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(super) blocking: Option<bool>,
    /// Another stack too: tonic, on its own transport [default: tonic, with --address none]
    #[arg(long, value_name = "STACK")]
    pub(super) against: Option<Against>,
    /// With --kind bulk, over Unix sockets: payloads of 1 and 64 MiB in sealed memory whose descriptor
    /// travels with a call, beside the same in messages and through a bare socket
    #[arg(long, conflicts_with = "address")]
    pub(super) memory: bool,
    /// Whose stubs both ends of samehost use: samehost, tonic or samehost,tonic [default: samehost]
    #[arg(long, value_name = "STUBS,…", default_value = "samehost", hide_default_value = true,
          value_parser = |text: &str| args::list(text, stubs))]
    pub(super) stubs: List<Stubs>,
    /// Print all columns of the table, however wide it becomes
    #[arg(long)]
    pub(super) wide: bool,
    /// Print the report as one JSON object, and nothing else
    #[arg(long)]
    pub(super) json: bool,
    /// Write report.json, report.html and its plots to this directory
    #[arg(long, value_name = "DIR")]
    pub(super) report: Option<PathBuf>,
    /// Say what has changed since an earlier report
    #[arg(long, value_name = "OLD.json", conflicts_with = "json")]
    pub(super) compare: Option<PathBuf>,
    /// Measure a running server of ping.v1, in any language, instead of starting servers
    #[arg(long, value_name = "ADDRESS", value_parser = args::address)]
    pub(super) address: Option<Address>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Against {
    Tonic,
    None,
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::from_str(text, false)
        .map_err(|_| format!("{text:?} is no kind: write unary, stream, bulk, connect or several"))
}

fn stubs(text: &str) -> Result<Stubs, String> {
    Stubs::from_str(text, false)
        .map_err(|_| format!("{text:?} names no stubs: write samehost, tonic or samehost,tonic"))
}

fn number(text: &str, what: &str) -> Result<usize, String> {
    args::number(text, what, 1..=CONCURRENCY_MAX)
}
