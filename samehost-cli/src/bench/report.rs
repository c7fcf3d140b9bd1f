//! Turns [`Sample`]s into [`Row`]s, and has the [`Report`] as JSON.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::cell::{Carrier, Cell, Delivery, Kind, Stack, Stubs, Transport, Wait};
use super::load::Measured;
use super::machine::Machine;
use super::quantile::{quantile, spread};
use super::text::size;
use super::usage::UsagePerCall;

/// The version of the JSON format.
pub(super) const VERSION: u32 = 1;

/// How many points of the latency curve are between two nines, such as p90 and p99.
const POINTS_PER_NINE: u32 = 20;

/// The result of one round of one cell.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    calls: u64,
    calls_per_second: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    /// The curve from the shortest latency to the 99.99th percentile.
    curve_us: Vec<f64>,
    client: UsagePerCall,
    /// `None` if the server cannot be asked.
    server: Option<UsagePerCall>,
}

impl Sample {
    pub(super) fn new(
        measured: &Measured,
        client: UsagePerCall,
        server: Option<UsagePerCall>,
    ) -> Self {
        let at = |quantile| microseconds(&measured.latencies, quantile);
        Self {
            calls: measured.calls,
            calls_per_second: measured.calls as f64 / measured.elapsed.as_secs_f64(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: at(1.0),
            curve_us: (0..=4 * POINTS_PER_NINE)
                .map(|point| at(1.0 - 10f64.powf(-nines(point))))
                .collect(),
            client,
            server,
        }
    }
}

/// Returns the place of a point of the curve: 1 is the 90th percentile, 2 the 99th.
fn nines(point: u32) -> f64 {
    f64::from(point) / f64::from(POINTS_PER_NINE)
}

fn microseconds(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}

/// One cell's result: the median of its rounds, except for `calls` (the sum), `max_us` (the
/// largest) and `spread`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) stack: Stack,
    /// Earlier reports do not have it. Then they are the stubs of the stack.
    #[serde(default)]
    pub(super) stubs: Option<Stubs>,
    pub(super) transport: Transport,
    pub(super) wait: Wait,
    pub(super) kind: Kind,
    /// Only with `--memory`: how a payload travels, and whether the receiver reads every byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) carrier: Option<Carrier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) read: Option<bool>,
    pub(super) payload_bytes: usize,
    pub(super) concurrency: usize,
    pub(super) connections: usize,
    pub(super) threads: u16,
    pub(super) calls: u64,
    pub(super) calls_per_second: f64,
    /// Bytes of payload in one direction.
    pub(super) bytes_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) max_us: f64,
    /// How far apart the middle half of the rounds is in `calls_per_second`, as a fraction of the
    /// median. One round has no spread.
    pub(super) spread: Option<f64>,
    pub(super) client_cpu_us_per_call: f64,
    pub(super) server_cpu_us_per_call: Option<f64>,
    // Earlier reports do not have these, and nothing that reads a report needs them.
    #[serde(skip_deserializing)]
    pub(super) client_context_switches_per_call: f64,
    #[serde(skip_deserializing)]
    pub(super) server_context_switches_per_call: Option<f64>,
    /// After the calls. NaN if unknown, which JSON has as null.
    #[serde(skip_deserializing)]
    pub(super) client_resident_mib: f64,
    #[serde(skip_deserializing)]
    pub(super) server_resident_mib: Option<f64>,
    /// What the plots show besides.
    #[serde(skip)]
    pub(super) detail: Detail,
}

/// The medians from which a [`Row`]'s figures are, with the rest of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Detail {
    /// The latencies: how many nines the percentile has, and the microseconds.
    pub(super) curve: Vec<(f64, f64)>,
    pub(super) client: UsagePerCall,
    pub(super) server: Option<UsagePerCall>,
}

impl Row {
    /// Returns `None` if no round was measured.
    pub(super) fn new(cell: &Cell, threads: u16, samples: &[Sample]) -> Option<Self> {
        let over = |figure: &dyn Fn(&Sample) -> f64| {
            quantile(0.5, samples.iter().map(figure).collect()).map(rounded)
        };
        let calls_per_second = over(&|sample| sample.calls_per_second)?;
        let detail = Detail::new(samples)?;
        Some(Self {
            stack: cell.stack,
            stubs: cell.stubs,
            transport: cell.transport,
            wait: cell.wait,
            kind: cell.kind,
            carrier: cell.delivery.map(|delivery| delivery.by),
            read: cell.delivery.map(|delivery| delivery.read),
            payload_bytes: cell.payload,
            concurrency: cell.concurrency,
            connections: cell.connections,
            threads,
            calls: samples.iter().map(|sample| sample.calls).sum(),
            calls_per_second,
            bytes_per_second: rounded(calls_per_second * cell.payload as f64),
            p50_us: over(&|sample| sample.p50_us)?,
            p90_us: over(&|sample| sample.p90_us)?,
            p99_us: over(&|sample| sample.p99_us)?,
            p999_us: over(&|sample| sample.p999_us)?,
            max_us: samples.iter().map(|sample| sample.max_us).fold(0.0, f64::max),
            spread: spread(samples.iter().map(|sample| sample.calls_per_second).collect())
                .map(rounded),
            client_cpu_us_per_call: rounded(detail.client.cpu_us()),
            server_cpu_us_per_call: detail.server.map(|server| rounded(server.cpu_us())),
            client_context_switches_per_call: rounded(detail.client.context_switches),
            server_context_switches_per_call: detail.server.map(|it| rounded(it.context_switches)),
            client_resident_mib: rounded(detail.client.resident_mib),
            server_resident_mib: detail.server.map(|server| rounded(server.resident_mib)),
            detail,
        })
    }

    /// Returns how many calls or streams are concurrent, and on how many connections if there are
    /// several.
    pub(super) fn at_once(&self) -> String {
        match (self.kind, self.connections) {
            (Kind::Connect, _) | (_, 1) => self.concurrency.to_string(),
            (_, connections) => format!("{} on {connections}", self.concurrency),
        }
    }

    /// Returns what is measured in a few words: kind, payload and concurrent calls.
    pub(super) fn what(&self) -> String {
        let payload = size(self.payload_bytes);
        let at_once = match (self.read, self.concurrency) {
            (Some(_), 1) => String::new(),
            _ => format!(" × {}", self.at_once()),
        };
        match self.read {
            Some(true) => format!("{payload}{at_once}, read"),
            Some(false) => format!("{payload}{at_once}, received"),
            None => format!("{} {payload}{at_once}", self.kind),
        }
    }

    pub(super) fn cell(&self) -> Cell {
        Cell {
            stack: self.stack,
            stubs: self.stubs.or(self.stack.own_stubs()),
            transport: self.transport,
            wait: self.wait,
            kind: self.kind,
            delivery: self.carrier.map(|by| Delivery { by, read: self.read.unwrap_or_default() }),
            payload: self.payload_bytes,
            concurrency: self.concurrency,
            connections: self.connections,
        }
    }
}

impl Detail {
    fn new(samples: &[Sample]) -> Option<Self> {
        let servers = samples.iter().map(|sample| sample.server).collect::<Option<Vec<_>>>();
        // Percentiles that need more calls than a round has would all be the longest latency.
        let calls = samples.iter().map(|sample| sample.calls).min()? as f64;
        let point = |point: u32| {
            let us = samples.iter().map(|sample| sample.curve_us[point as usize]).collect();
            Some((nines(point), quantile(0.5, us)?))
        };
        Some(Self {
            curve: (0..=4 * POINTS_PER_NINE)
                .take_while(|point| nines(*point) <= calls.log10())
                .filter_map(point)
                .collect(),
            client: UsagePerCall::median(samples.iter().map(|sample| sample.client)),
            server: servers.map(|servers| UsagePerCall::median(servers.into_iter())),
        })
    }
}

/// Rounds to three places, which is the precision of the clocks.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The contents of `--json` and `report.json`.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    version: u32,
    pub(super) machine: &'a Machine,
    pub(super) command: String,
    /// Whether a signal or a failure ended it before all rounds were done.
    pub(super) interrupted: bool,
    pub(super) rows: &'a [Row],
}

impl<'a> Report<'a> {
    pub(super) fn new(machine: &'a Machine, rows: &'a [Row], interrupted: bool) -> Self {
        // The path of the command is of no interest to others.
        let arguments = std::env::args_os().skip(1);
        let arguments = arguments.map(|argument| quoted(&argument.to_string_lossy()));
        let command = std::iter::once("samehost".to_owned()).chain(arguments);
        let command = command.collect::<Vec<_>>().join(" ");
        Self { version: VERSION, machine, command, interrupted, rows }
    }
}

/// Returns the argument in a shell's syntax.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/@%+[]".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const CELL: Cell = Cell {
        stack: Stack::Samehost,
        stubs: Some(Stubs::Samehost),
        transport: Transport::Uds,
        wait: Wait::Block,
        kind: Kind::Unary,
        delivery: None,
        payload: 1024,
        concurrency: 16,
        connections: 1,
    };

    fn sample(calls_per_second: f64) -> Sample {
        Sample {
            calls: 10,
            calls_per_second,
            p50_us: 1e6 / calls_per_second,
            p90_us: 2e6 / calls_per_second,
            p99_us: 3e6 / calls_per_second,
            p999_us: 4e6 / calls_per_second,
            max_us: 5e6 / calls_per_second,
            curve_us: vec![1e6 / calls_per_second; 81],
            client: UsagePerCall { user_us: 0.75, system_us: 0.25, ..UsagePerCall::default() },
            server: Some(UsagePerCall { user_us: 2.0, ..UsagePerCall::default() }),
        }
    }

    pub(in super::super) fn row(cell: Cell, calls_per_second: f64) -> Row {
        Row::new(&cell, 1, &[sample(calls_per_second)]).unwrap()
    }

    #[test]
    fn a_row_is_the_median_of_its_rounds() {
        let row = Row::new(&CELL, 1, &[sample(100.0), sample(50.0), sample(200.0)]).unwrap();
        assert_eq!((row.calls, row.calls_per_second, row.p50_us), (30, 100.0, 1e4));
        assert_eq!(row.bytes_per_second, 102_400.0);
        assert_eq!(row.max_us, 1e5, "the largest, not the median");
        assert_eq!(row.spread, Some(0.75));
        assert_eq!(row.detail.curve.last().unwrap().0, 1.0, "10 calls have no 99th percentile");
        assert_eq!(row.cell(), CELL);
        assert!(Row::new(&CELL, 1, &[]).is_none());
    }

    #[test]
    fn what_is_unknown_is_null() {
        let unknown = Sample { server: None, ..sample(1.0) };
        let row = Row::new(&CELL, 1, &[unknown.clone(), unknown]).unwrap();
        let json = serde_json::to_value(&row).unwrap();
        assert!(json["server_cpu_us_per_call"].is_null());
        assert_eq!(json["client_cpu_us_per_call"], 1.0);
        assert_eq!((&json["stack"], &json["stubs"]), (&"samehost".into(), &"samehost".into()));
        assert_eq!(json["transport"], "uds");
        assert_eq!(json["wait"], "block");
        assert_eq!(json["kind"], "unary");
    }

    #[test]
    fn a_row_of_an_earlier_report_has_its_stacks_stubs() {
        let mut json = serde_json::to_value(row(CELL, 1.0)).unwrap();
        json.as_object_mut().unwrap().retain(|key, _| {
            key != "stubs" && !key.contains("context_switches") && !key.contains("resident")
        });
        let read: Row = serde_json::from_value(json).unwrap();
        assert_eq!(read.cell(), CELL);
    }

    #[test]
    fn the_command_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("--payload"), "--payload");
        assert_eq!(quoted("unix:/tmp/a b"), "'unix:/tmp/a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
