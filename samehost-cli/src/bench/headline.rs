//! The result of a run in a few sentences. Like is compared with like, each sentence has its
//! conditions, and a result that the figures do not support is called uncertain.

use std::fmt;
use std::time::Duration;

use super::cell::{Carrier, Cell, Delivery, Kind, Stack, Stubs, Transport, Wait};
use super::plan::Plan;
use super::report::{Report, Row};
use super::text::size;

/// If the rounds of a row differ by more than this, the row is not certain.
const SPREAD_MAX: f64 = 0.25;

/// Returns the sentences for the top of the report. There are none if there is nothing to compare.
/// With `client_only` the server is another's, and nothing is known of how it waits.
pub(super) fn headline(
    report: &Report<'_>,
    busy_poll: Option<Duration>,
    client_only: bool,
) -> Vec<String> {
    let comparisons: Vec<_> = [
        Comparison::between(report.rows, Pair::Tonic, Wait::Block),
        Comparison::between(report.rows, Pair::Raw, Wait::Block),
        Comparison::between(report.rows, Pair::Tcp, Wait::Block),
        Comparison::between(report.rows, Pair::Stubs, Wait::Block),
        Comparison::between(report.rows, Pair::Raw, Wait::Spin),
        Comparison::of_memory(report.rows, Pair::Sealed),
        Comparison::of_memory(report.rows, Pair::SealedToMessage),
    ]
    .into_iter()
    .flatten()
    .collect();
    if comparisons.is_empty() {
        return Vec::new();
    }
    let mut sentences = Vec::new();
    sentences.extend(uncertainty(report, &comparisons));
    sentences
        .extend(comparisons.iter().map(|comparison| comparison.sentence(busy_poll, client_only)));
    sentences
}

/// Returns why some of the comparisons are not certain, and what to do about it.
fn uncertainty(report: &Report<'_>, comparisons: &[Comparison]) -> Option<String> {
    let (mut reasons, mut remedies) = (Vec::new(), Vec::new());
    if report.interrupted {
        reasons.push("the run was interrupted".to_owned());
        remedies.push("let it run to its end");
    }
    if let Some((load, cpus)) = report.machine.overload() {
        reasons.push(format!("the load was {load:.1} on {cpus} CPUs before the start"));
        remedies.push("stop what else runs, or wait for it");
    }
    let doubts: Vec<_> = comparisons
        .iter()
        .flat_map(|comparison| comparison.ratios.iter())
        .filter_map(|(_, ratio)| ratio.doubt())
        .collect();
    if doubts.contains(&Doubt::OneRound) {
        reasons.push("there is one round only".to_owned());
        remedies.push("measure several (--rounds 5)");
    }
    if doubts.iter().any(|doubt| *doubt != Doubt::OneRound) {
        reasons.push("rounds differ too much from each other (see below)".to_owned());
        remedies.push("measure longer (--duration 10s) on a quieter machine");
    }
    (!reasons.is_empty())
        .then(|| format!("Not certain: {}. To be sure, {}.", and(&reasons), and(&remedies)))
}

/// Returns the parts as `a, b and c`.
fn and<T: AsRef<str>>(parts: &[T]) -> String {
    let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
    match parts.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// Returns a number with at least two digits after its leading zeros.
fn two_digits(number: f64) -> String {
    let decimals = (1.0 - number.log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{number:.decimals$}")
}

/// Two things to compare.
#[derive(Clone, Copy, PartialEq)]
enum Pair {
    /// samehost with stock tonic, over Unix sockets.
    Tonic,
    /// samehost with the bare socket, over Unix sockets.
    Raw,
    /// samehost over Unix sockets with samehost over TCP.
    Tcp,
    /// samehost on its own stubs with samehost on tonic's, over Unix sockets.
    Stubs,
    /// A payload that was sealed once with the bare socket's copy of it.
    Sealed,
    /// The same with a message that has it.
    SealedToMessage,
}

impl Pair {
    /// Returns the cell that one of ours is compared with.
    fn other(self, ours: Cell) -> Cell {
        match self {
            Self::Tonic => Cell { stack: Stack::Tonic, stubs: Some(Stubs::Tonic), ..ours },
            Self::Raw => Cell { stack: Stack::Raw, stubs: None, ..ours },
            Self::Stubs => Cell { stubs: Some(Stubs::Tonic), ..ours },
            Self::Sealed => {
                let delivery = Some(Delivery { by: Carrier::Socket, read: false });
                Cell { stack: Stack::Raw, stubs: None, delivery, ..ours }
            }
            Self::SealedToMessage => {
                let delivery = Some(Delivery { by: Carrier::Message, read: false });
                Cell { delivery, ..ours }
            }
            Self::Tcp => Cell { transport: Transport::Tcp, ..ours },
        }
    }
}

/// One sentence of the headline.
struct Comparison {
    pair: Pair,
    wait: Wait,
    payload: usize,
    /// The ratios with the number of concurrent calls: for the smallest number, and for the largest
    /// if that differs.
    ratios: Vec<(usize, Ratio)>,
}

impl Comparison {
    /// Compares unary calls with the first payload that both sides have. Returns `None` if no two
    /// rows are alike.
    fn between(rows: &[Row], pair: Pair, wait: Wait) -> Option<Self> {
        let ours = rows.iter().filter(|row| {
            row.stack == Stack::Samehost
                && (row.stubs == Some(Stubs::Samehost) || pair != Pair::Stubs)
                && row.transport == Transport::Uds
                && row.wait == wait
                && row.kind == Kind::Unary
        });
        let pairs: Vec<_> = ours
            .filter_map(|row| {
                let other = pair.other(row.cell());
                Some((row, rows.iter().find(|row| row.cell() == other)?))
            })
            .collect();
        let first = pairs.first()?.0;
        let mut ratios: Vec<_> = pairs
            .iter()
            .filter(|(row, _)| {
                row.payload_bytes == first.payload_bytes
                    && row.connections == first.connections
                    && row.stubs == first.stubs
            })
            .map(|(row, other)| (row.concurrency, Ratio::between(row, other)))
            .collect();
        ratios.sort_by_key(|(at_once, _)| *at_once);
        ratios.drain(1..ratios.len().max(2) - 1);
        Some(Self { pair, wait, payload: first.payload_bytes, ratios })
    }

    /// Compares the largest payload that was handed over in sealed memory and is not read.
    fn of_memory(rows: &[Row], pair: Pair) -> Option<Self> {
        let sealed = Some(Delivery { by: Carrier::SealedOnce, read: false });
        let ours = rows
            .iter()
            .filter(|row| row.cell().delivery == sealed && row.wait == Wait::Block)
            .max_by_key(|row| row.payload_bytes)?;
        let other = pair.other(ours.cell());
        let other = rows.iter().find(|row| row.cell() == other)?;
        let ratios = vec![(ours.concurrency, Ratio::between(ours, other))];
        Some(Self { pair, wait: Wait::Block, payload: ours.payload_bytes, ratios })
    }

    fn sentence(&self, busy_poll: Option<Duration>, client_only: bool) -> String {
        let waiting = match (self.wait, busy_poll) {
            (Wait::Block, _) if client_only => "the client asleep while it waits".to_owned(),
            (Wait::Block, _) => "both asleep while they wait".to_owned(),
            (Wait::Spin, None) => "both spinning while they wait".to_owned(),
            (Wait::Spin, Some(time)) => format!("both spinning while they wait, ours for {time:?}"),
        };
        let subject = match self.pair {
            Pair::Tonic => "samehost against stock tonic over UDS",
            Pair::Raw => "samehost against the bare socket over UDS",
            Pair::Tcp => "samehost over UDS against TCP loopback",
            Pair::Stubs => "samehost's stubs against tonic's, both on samehost over UDS",
            Pair::Sealed => {
                "memory sealed once, sent again and mapped, against the bare socket's copy"
            }
            Pair::SealedToMessage => "memory sealed once, sent again and mapped, against a message",
        };
        let calls = match self.pair {
            Pair::Sealed | Pair::SealedToMessage => "payloads",
            _ => "unary calls",
        };
        let ratios: Vec<_> = self.ratios.iter().map(|ratio| self.clause(ratio)).collect();
        format!("{subject}, {waiting}, {calls} of {}: {}.", size(self.payload), and(&ratios))
    }

    fn clause(&self, (at_once, ratio): &(usize, Ratio)) -> String {
        let figure = match self.pair {
            Pair::Raw => format!("{:.2} × the time of a round trip", 1.0 / ratio.times),
            Pair::Sealed | Pair::SealedToMessage => {
                format!("{} × the payloads/s", two_digits(ratio.times))
            }
            _ => format!("{:.1} × the calls/s", ratio.times),
        };
        let at_once = match at_once {
            1 => "one at a time".to_owned(),
            _ => format!("with {at_once} at once"),
        };
        match ratio.doubt() {
            Some(Doubt::OneRound) | None => format!("{figure} {at_once}"),
            Some(doubt) => format!("{figure} {at_once} (not certain: {doubt})"),
        }
    }
}

/// How many times as many calls per second one side has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    pub(super) times: f64,
    /// The larger spread of the two.
    pub(super) spread: f64,
    /// Whether one of the two has only one round, and so no spread.
    one_round: bool,
}

/// Why a ratio may be wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Doubt {
    OneRound,
    /// The rounds of one side differ by this much.
    Spread(f64),
    /// The sides differ by less than the rounds of one side, which differ by this much.
    WithinTheSpread(f64),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneRound => f.write_str("one round"),
            Self::Spread(spread) => write!(f, "its rounds spread by {:.0}\u{a0}%", spread * 100.0),
            Self::WithinTheSpread(spread) => {
                write!(f, "within the spread of {:.0}\u{a0}%", spread * 100.0)
            }
        }
    }
}

impl Ratio {
    pub(super) fn between(row: &Row, other: &Row) -> Self {
        Self {
            times: row.calls_per_second / other.calls_per_second,
            spread: row.spread.unwrap_or(0.0).max(other.spread.unwrap_or(0.0)),
            one_round: row.spread.is_none() || other.spread.is_none(),
        }
    }

    /// Returns the ratio of a row over UDS to its counterpart over TCP, if there is one.
    pub(super) fn to_tcp(row: &Row, rows: &[Row]) -> Option<Self> {
        if row.transport != Transport::Uds {
            return None;
        }
        let tcp = rows.iter().find(|other| row.cell().is_counterpart(&other.cell()))?;
        Some(Self::between(row, tcp))
    }

    /// Returns whether the difference is larger than the spread.
    pub(super) fn is_beyond_the_spread(self) -> bool {
        (self.times - 1.0).abs() > self.spread
    }

    fn doubt(&self) -> Option<Doubt> {
        match self.spread {
            spread if spread > SPREAD_MAX => Some(Doubt::Spread(spread)),
            _ if self.one_round => Some(Doubt::OneRound),
            spread if !self.is_beyond_the_spread() => Some(Doubt::WithinTheSpread(spread)),
            _ => None,
        }
    }
}

/// Returns why the figures may be misleading.
pub(super) fn warnings(rows: &[Row], plan: &Plan) -> Vec<String> {
    let mut warnings = Vec::new();
    if cfg!(debug_assertions) {
        warnings.push(
            "Warning: this is a debug build, and its figures are not those of a release build \
             (cargo run --release)."
                .to_owned(),
        );
    }
    let ratios = rows.iter().filter_map(|row| Ratio::to_tcp(row, rows));
    let (certain, uncertain): (Vec<_>, Vec<_>) = ratios.partition(|r| r.is_beyond_the_spread());
    let pairs = certain.len() + uncertain.len();
    if plan.wide && !uncertain.is_empty() {
        warnings.push(format!(
            "Warning: the spread is larger than the difference between UDS and TCP in {} of {pairs} \
             pairs, marked \"?\": longer rounds or a quieter machine would tell.",
            uncertain.len()
        ));
    }
    warnings
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::machine::Machine;
    use super::super::report::tests::{CELL, row};
    use super::*;

    /// Returns a row of five rounds that agree.
    fn steady(cell: Cell, calls_per_second: f64) -> Row {
        Row { spread: Some(0.02), ..row(cell, calls_per_second) }
    }

    fn of(stack: Stack, wait: Wait, concurrency: usize, calls_per_second: f64) -> Row {
        let stubs = stack.own_stubs();
        steady(Cell { stack, stubs, wait, concurrency, ..CELL }, calls_per_second)
    }

    pub(in super::super) fn pair(concurrency: usize, uds: f64, tcp: f64) -> [Row; 2] {
        let cell = Cell { concurrency, ..CELL };
        [steady(cell, uds), steady(Cell { transport: Transport::Tcp, ..cell }, tcp)]
    }

    fn quiet() -> Machine {
        Machine::with_load(0.5, 2)
    }

    fn said(rows: &[Row]) -> Vec<String> {
        said_of(rows, &quiet(), false)
    }

    fn said_of(rows: &[Row], machine: &Machine, interrupted: bool) -> Vec<String> {
        let report = Report::new(machine, rows, interrupted);
        headline(&report, Some(Duration::from_micros(50)), false)
    }

    /// Returns rows of sleeping and spinning samehost, sleeping tonic, and sleeping and spinning
    /// sockets.
    fn all() -> Vec<Row> {
        vec![
            of(Stack::Samehost, Wait::Block, 1, 20.0),
            of(Stack::Samehost, Wait::Spin, 1, 100.0),
            of(Stack::Tonic, Wait::Block, 1, 10.0),
            of(Stack::Raw, Wait::Block, 1, 25.0),
            of(Stack::Raw, Wait::Spin, 1, 200.0),
            of(Stack::Samehost, Wait::Block, 16, 200.0),
            of(Stack::Samehost, Wait::Block, 64, 600.0),
            of(Stack::Tonic, Wait::Block, 64, 100.0),
        ]
    }

    #[test]
    fn like_is_compared_with_like() {
        assert_eq!(
            said(&all()),
            [
                "samehost against stock tonic over UDS, both asleep while they wait, unary calls \
                 of 1 KiB: 2.0 × the calls/s one at a time and 6.0 × the calls/s with 64 at once.",
                "samehost against the bare socket over UDS, both asleep while they wait, unary \
                 calls of 1 KiB: 1.25 × the time of a round trip one at a time.",
                "samehost against the bare socket over UDS, both spinning while they wait, ours \
                 for 50µs, unary calls of 1 KiB: 2.00 × the time of a round trip one at a time.",
            ]
        );
    }

    #[test]
    fn what_spins_is_never_set_against_what_sleeps() {
        let rows = [
            of(Stack::Samehost, Wait::Spin, 1, 100.0),
            of(Stack::Tonic, Wait::Block, 1, 10.0),
            of(Stack::Raw, Wait::Block, 1, 20.0),
        ];
        assert!(said(&rows).is_empty(), "{:?}", said(&rows));
    }

    #[test]
    fn both_transports_are_compared_honestly() {
        let said = |uds, tcp| said(&pair(1, uds, tcp)).join("\n");
        let sentence = "samehost over UDS against TCP loopback, both asleep while they wait, unary \
                        calls of 1 KiB: ";
        assert_eq!(said(160.0, 100.0), format!("{sentence}1.6 × the calls/s one at a time."));
        assert_eq!(said(80.0, 100.0), format!("{sentence}0.8 × the calls/s one at a time."));
        let alike = said(99.0, 100.0);
        assert!(alike.contains("1.0 × the calls/s one at a time (not certain: within"), "{alike}");
    }

    #[test]
    fn both_kinds_of_stub_are_compared() {
        let ours = of(Stack::Samehost, Wait::Block, 64, 300.0);
        let tonics = steady(Cell { stubs: Some(Stubs::Tonic), ..ours.cell() }, 100.0);
        assert_eq!(
            said(&[ours, tonics]),
            [
                "samehost's stubs against tonic's, both on samehost over UDS, both asleep while they \
              wait, unary calls of 1 KiB: 3.0 × the calls/s with 64 at once."
            ]
        );
    }

    #[test]
    fn sealed_memory_is_compared_with_the_sockets_copy() {
        let row = |stack: Stack, by, payload, calls_per_second| {
            let delivery = Some(Delivery { by, read: false });
            let stubs = stack.own_stubs();
            let cell = Cell { stack, stubs, kind: Kind::Bulk, delivery, payload, ..CELL };
            steady(Cell { concurrency: 1, ..cell }, calls_per_second)
        };
        let rows = [
            row(Stack::Samehost, Carrier::SealedOnce, 1 << 20, 5000.0),
            row(Stack::Raw, Carrier::Socket, 1 << 20, 4000.0),
            row(Stack::Samehost, Carrier::SealedOnce, 64 << 20, 5000.0),
            row(Stack::Samehost, Carrier::SealedAnew, 64 << 20, 50.0),
            row(Stack::Raw, Carrier::Socket, 64 << 20, 100.0),
        ];
        assert_eq!(
            said(&rows),
            [
                "memory sealed once, sent again and mapped, against the bare socket's copy, both asleep \
              while they wait, payloads of 64 MiB: 50 × the payloads/s one at a time."
            ]
        );
    }

    #[test]
    fn a_ratio_has_two_digits() {
        for (ratio, text) in [(0.042, "0.042"), (0.73, "0.73"), (1.4, "1.4"), (50.3, "50")] {
            assert_eq!(two_digits(ratio), text);
        }
    }

    #[test]
    fn an_outlier_on_either_side_makes_its_sentence_uncertain_and_no_other() {
        for outlier in [1, 4] {
            let mut rows = all();
            rows[outlier].spread = Some(1.52);
            let said = said(&rows);
            assert_eq!(said.len(), 4, "{said:#?}");
            assert!(said[0].starts_with("Not certain: rounds differ too much"), "{said:#?}");
            assert!(said[0].contains("measure longer (--duration 10s)"), "{said:#?}");
            assert!(
                said[3].contains("(not certain: its rounds spread by 152\u{a0}%)"),
                "{said:#?}"
            );
            assert!(!said[1..3].concat().contains("not certain"), "{said:#?}");
        }
    }

    #[test]
    fn one_round_is_not_certain() {
        let rows: Vec<_> = all().into_iter().map(|row| Row { spread: None, ..row }).collect();
        let said = said(&rows);
        assert_eq!(
            said[0],
            "Not certain: there is one round only. To be sure, measure several (--rounds 5)."
        );
    }

    #[test]
    fn an_interrupted_run_is_not_certain() {
        let said = said_of(&all(), &quiet(), true);
        assert!(
            said[0].starts_with("Not certain: the run was interrupted. To be sure, let it run")
        );
    }

    #[test]
    fn a_busy_machine_is_not_certain() {
        let said = said_of(&all(), &Machine::with_load(2.5, 2), false);
        assert!(
            said[0].starts_with("Not certain: the load was 2.5 on 2 CPUs before the start."),
            "{said:#?}"
        );
        assert!(said_of(&all(), &Machine::with_load(2.0, 2), false)[0].starts_with("samehost"));
    }

    #[test]
    fn several_reasons_are_one_sentence() {
        let mut rows = all();
        rows[2].spread = None;
        rows[3].spread = Some(0.4);
        let said = said_of(&rows, &Machine::with_load(9.0, 2), true);
        let first = &said[0];
        assert!(first.contains("interrupted, the load was 9.0 on 2 CPUs"), "{first}");
        assert!(first.contains("one round only and rounds differ"), "{first}");
    }

    #[test]
    fn without_a_pair_there_is_no_headline() {
        let [uds, tcp] = pair(1, 2.0, 1.0);
        assert!(said(&[]).is_empty());
        assert!(said(std::slice::from_ref(&uds)).is_empty());
        assert!(said(std::slice::from_ref(&tcp)).is_empty());
        let [_, other] = pair(2, 2.0, 1.0);
        assert!(said_of(&[uds, other], &Machine::with_load(9.0, 2), true).is_empty());
    }
}
