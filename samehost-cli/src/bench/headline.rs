//! What a run found, in a sentence or two, and whether the figures bear it out.

use super::cell::{Kind, Stack, Transport, Wait};
use super::report::Row;

/// The sentences that say it first; none where there is nothing to compare.
pub(super) fn headline(rows: &[Row]) -> Option<String> {
    let mut clauses = Vec::new();
    clauses.extend(against_tcp(rows));
    clauses.extend(against_raw(rows));
    let mut text = match clauses.is_empty() {
        true => String::new(),
        false => clauses.join("; ") + ".",
    };
    if let Some(sentence) = against_tonic(rows) {
        text = format!("{text}\n{sentence}").trim_start().to_owned();
    }
    (!text.is_empty()).then_some(text)
}

fn against_tcp(rows: &[Row]) -> Option<String> {
    let pairs = rows.iter().filter(|row| row.stack == Stack::Samehost);
    let ratios: Vec<_> = pairs.filter_map(|row| Ratio::to_tcp(row, rows)).collect();
    let times = mean(&ratios)?;
    Some(match format!("{times:.1}").as_str() {
        "1.0" => "UDS is as fast as TCP loopback here".to_owned(),
        shown if times > 1.0 => format!("UDS is {shown} × as fast as TCP loopback here"),
        _ => format!("UDS is slower than TCP loopback here, {times:.2} × as fast"),
    })
}

fn against_raw(rows: &[Row]) -> Option<String> {
    let ours = one_call(rows, Stack::Samehost, None)?;
    let to = |wait| {
        let raw = one_call(rows, Stack::Raw, Some(wait))?;
        (raw.payload_bytes == ours.payload_bytes).then(|| ours.p50_us / raw.p50_us)
    };
    let block = to(Wait::Block)?;
    Some(match to(Wait::Spin).filter(|_| ours.wait == Wait::Spin) {
        Some(spin) => format!(
            "a call costs {spin:.2} × a bare socket round trip, both spinning, and {block:.2} × one \
             that sleeps"
        ),
        None => format!("a call costs {block:.2} × a bare socket round trip"),
    })
}

fn against_tonic(rows: &[Row]) -> Option<String> {
    let times: Vec<_> = rows
        .iter()
        .filter(|row| row.kind == Kind::Unary && row.transport == Transport::Uds)
        .filter_map(|row| Some((row.concurrency, Ratio::to_tonic(row, rows)?.times)))
        .collect();
    let (least, most) = (times.iter().min_by_key(at)?, times.iter().max_by_key(at)?);
    let clause = |(at_once, times): &(usize, f64)| match at_once {
        1 => format!("{times:.1} × the calls/s one at a time"),
        _ => format!("{times:.1} × with {at_once} at once"),
    };
    let clauses = match least.0 == most.0 {
        true => clause(least),
        false => format!("{} and {}", clause(least), clause(most)),
    };
    Some(format!("Against stock tonic over UDS: {clauses}."))
}

fn at(times: &&(usize, f64)) -> usize {
    times.0
}

/// The row that shows a single call: the first with one in flight.
fn one_call(rows: &[Row], stack: Stack, wait: Option<Wait>) -> Option<&Row> {
    rows.iter().find(|row| {
        row.stack == stack
            && row.transport == Transport::Uds
            && wait.is_none_or(|wait| row.wait == wait)
            && row.kind == Kind::Unary
            && row.concurrency == 1
    })
}

/// Geometric, so that twice as fast and half as fast make even.
fn mean(ratios: &[Ratio]) -> Option<f64> {
    let sum: f64 = ratios.iter().map(|ratio| ratio.times.ln()).sum();
    (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
}

/// How many times as many calls per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    pub(super) times: f64,
    /// The larger spread of the two.
    pub(super) spread: f64,
}

impl Ratio {
    pub(super) fn between(row: &Row, other: &Row) -> Self {
        let spread = |row: &Row| row.spread.unwrap_or(0.0);
        Self {
            times: row.calls_per_second / other.calls_per_second,
            spread: spread(row).max(spread(other)),
        }
    }

    /// Of a row over UDS to its counterpart over TCP, where there is one.
    pub(super) fn to_tcp(row: &Row, rows: &[Row]) -> Option<Self> {
        if row.transport != Transport::Uds {
            return None;
        }
        let tcp = rows.iter().find(|other| row.cell().is_counterpart(&other.cell()))?;
        Some(Self::between(row, tcp))
    }

    /// Of a row of ours to tonic's, where there is one.
    pub(super) fn to_tonic(row: &Row, rows: &[Row]) -> Option<Self> {
        if row.stack != Stack::Samehost {
            return None;
        }
        let mut cell = row.cell();
        (cell.stack, cell.wait) = (Stack::Tonic, Wait::Block);
        Some(Self::between(row, rows.iter().find(|other| other.cell() == cell)?))
    }

    /// Whether the difference is larger than the spread.
    pub(super) fn is_beyond_the_spread(self) -> bool {
        (self.times - 1.0).abs() > self.spread
    }
}

/// Why the figures may not say what they seem to.
pub(super) fn warnings(rows: &[Row]) -> Vec<String> {
    let mut warnings = Vec::new();
    if cfg!(debug_assertions) {
        warnings.push(
            "Warning: this is a debug build, and its figures are not those of a release \
                       build (cargo run --release)."
                .to_owned(),
        );
    }
    let ratios = rows.iter().filter_map(|row| Ratio::to_tcp(row, rows));
    let (certain, uncertain): (Vec<_>, Vec<_>) = ratios.partition(|r| r.is_beyond_the_spread());
    let pairs = certain.len() + uncertain.len();
    if !uncertain.is_empty() {
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
    use super::super::cell::Cell;
    use super::super::report::tests::{CELL, row};
    use super::*;

    pub(in super::super) fn pair(concurrency: usize, uds: f64, tcp: f64) -> [Row; 2] {
        let cell = Cell { concurrency, ..CELL };
        [row(cell, uds), row(Cell { transport: Transport::Tcp, ..cell }, tcp)]
    }

    /// A row of one call at a time.
    fn single(stack: Stack, wait: Wait, calls_per_second: f64) -> Row {
        row(Cell { stack, wait, concurrency: 1, ..CELL }, calls_per_second)
    }

    #[test]
    fn the_headline_says_how_many_times_as_fast() {
        assert_eq!(
            headline(&pair(1, 160.0, 100.0)).unwrap(),
            "UDS is 1.6 × as fast as TCP loopback here."
        );
        assert_eq!(
            headline(&[pair(1, 400.0, 100.0), pair(2, 100.0, 100.0)].concat()).unwrap(),
            "UDS is 2.0 × as fast as TCP loopback here."
        );
    }

    #[test]
    fn the_headline_is_honest() {
        let text = headline(&pair(1, 80.0, 100.0)).unwrap();
        assert!(text.starts_with("UDS is slower than TCP loopback here, 0.80 × as fast"), "{text}");
        let text = headline(&pair(1, 98.0, 100.0)).unwrap();
        assert!(text.starts_with("UDS is as fast as TCP"), "{text}");
    }

    #[test]
    fn a_call_is_compared_with_a_bare_socket_that_waits_alike() {
        let ours = pair(1, 100.0, 50.0).to_vec();
        let raw = single(Stack::Raw, Wait::Block, 105.0);
        assert_eq!(
            headline(&[ours, vec![raw.clone()]].concat()).unwrap(),
            "UDS is 2.0 × as fast as TCP loopback here; a call costs 1.05 × a bare socket round trip."
        );
        let ours = single(Stack::Samehost, Wait::Spin, 1000.0);
        let spinning = single(Stack::Raw, Wait::Spin, 2000.0);
        assert_eq!(
            headline(&[ours.clone(), raw.clone(), spinning]).unwrap(),
            "a call costs 2.00 × a bare socket round trip, both spinning, and 0.10 × one that \
             sleeps."
        );
        let other = row(Cell { payload: 1, ..raw.cell() }, 1.0);
        assert_eq!(headline(&[ours, other]), None, "another payload");
    }

    #[test]
    fn tonic_is_compared_at_both_ends() {
        let of = |stack, concurrency, calls| row(Cell { stack, concurrency, ..CELL }, calls);
        let rows = [
            of(Stack::Samehost, 1, 20.0),
            of(Stack::Tonic, 1, 10.0),
            of(Stack::Samehost, 64, 600.0),
            of(Stack::Tonic, 64, 100.0),
        ];
        assert_eq!(
            headline(&rows).unwrap(),
            "Against stock tonic over UDS: 2.0 × the calls/s one at a time and 6.0 × with 64 at once."
        );
    }

    #[test]
    fn without_a_pair_there_is_no_headline() {
        let [uds, tcp] = pair(1, 2.0, 1.0);
        assert_eq!(headline(&[]), None);
        assert_eq!(headline(std::slice::from_ref(&uds)), None);
        assert_eq!(headline(std::slice::from_ref(&tcp)), None);
        let [_, other] = pair(2, 2.0, 1.0);
        assert_eq!(headline(&[uds, other]), None);
    }

    #[test]
    fn a_difference_within_the_spread_is_warned_of() {
        let [mut uds, mut tcp] = pair(1, 120.0, 100.0);
        (uds.spread, tcp.spread) = (Some(0.1), Some(0.15));
        let warned = |rows: &[Row]| warnings(rows).iter().any(|text| text.contains("of 1 pairs"));
        assert!(!warned(&[uds.clone(), tcp.clone()]));
        tcp.spread = Some(0.25);
        assert!(warned(&[uds, tcp]));
    }
}
