//! The report's plots as SVG: which plots there are. Each plot names the conditions under which it
//! was measured, so that it can be shown without the page.

mod axis;
mod bars;
mod figures;
mod frame;
mod line;
mod lines;
mod style;

pub(super) use self::figures::size_of;
pub(super) use self::style::style;

use self::axis::Axis;
use self::bars::{Bar, Bars, Group};
use self::figures::{decimal_bytes, figure_short, percentile, short};
use self::frame::{Entry, Frame, LegendMark, Result};
use self::line::Line;
use self::lines::draw_lines;
use self::style::{IN_KERNEL, IN_PROGRAM, WAITING, colour_of};
use super::cell::{Kind, Series, Stack, Stubs, Transport, Wait};
use super::machine::Machine;
use super::plan::Plan;
use super::report::Row;
use super::text::size;

/// The names of all possible plots.
pub(super) const NAMES: [&str; 12] = [
    "overview",
    "latency",
    "latency-spinning",
    "latency-many",
    "latency-many-spinning",
    "calls",
    "calls-spinning",
    "bytes",
    "bytes-spinning",
    "time",
    "time-spinning",
    "memory",
];

pub(super) struct Plot {
    /// The name of its file, without the ending.
    pub(super) name: String,
    /// How to read it.
    pub(super) caption: String,
    pub(super) svg: String,
}

/// The conditions under which the rows were measured.
pub(super) struct Conditions {
    machine: String,
    asleep: String,
    spinning: String,
}

impl Conditions {
    pub(super) fn new(machine: &Machine, plan: &Plan) -> Self {
        let threads = plan.threads_in_words();
        let place = plan.pin.map_or(String::new(), |pin| format!(", {pin}"));
        let time = plan.busy_poll.map_or(String::new(), |time| format!(" up to {time:?}"));
        let (asleep, spinning) = match &plan.address {
            Some(_) => {
                let rest = format!("while it waits; {threads}; the server was running");
                (format!("The client sleeps {rest}"), format!("The client spins{time} {rest}"))
            }
            None => {
                let rest = format!("while they wait; {threads} each{place}");
                (format!("Both ends sleep {rest}"), format!("Both ends spin{time} {rest}"))
            }
        };
        Self { machine: machine.in_short(), asleep, spinning }
    }

    /// Returns the text above a plot of calls that are `what`.
    fn lines(&self, what: &str, wait: Wait) -> Vec<String> {
        let wait = match wait {
            Wait::Block => &self.asleep,
            Wait::Spin => &self.spinning,
        };
        vec![what.to_owned(), wait.clone(), self.machine.clone()]
    }
}

/// Returns all plots that the rows have figures for.
pub(super) fn plots(rows: &[Row], conditions: &Conditions) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    plots.extend(overview(&alike(rows, Kind::Unary, Wait::Block), conditions)?);
    for wait in [Wait::Block, Wait::Spin] {
        let unary = alike(rows, Kind::Unary, wait);
        let mut at_once: Vec<_> = unary.iter().map(|row| row.concurrency).collect();
        at_once.sort_unstable();
        at_once.dedup();
        if let (Some(&least), Some(&most)) = (at_once.first(), at_once.last()) {
            plots.push(latencies("latency", &unary, least, wait, conditions)?);
            if most > least {
                plots.push(latencies("latency-many", &unary, most, wait, conditions)?);
            }
            plots.extend(calls_by_concurrency(&unary, wait, conditions)?);
            plots.extend(times(&unary, least, wait, conditions)?);
        }
        let is_bulk =
            |row: &&Row| row.kind == Kind::Bulk && row.carrier.is_none() && row.wait == wait;
        let bulk: Vec<_> = rows.iter().filter(is_bulk).collect();
        if let Some(least) = bulk.iter().map(|row| row.concurrency).min() {
            let bulk: Vec<_> = bulk.into_iter().filter(|row| row.concurrency == least).collect();
            plots.extend(bytes_by_payload(&bulk, wait, conditions)?);
        }
    }
    plots.extend(memory(rows, conditions)?);
    Ok(plots)
}

/// Returns the rows of one kind and way to wait, with the first payload and number of connections.
fn alike(rows: &[Row], kind: Kind, wait: Wait) -> Vec<&Row> {
    let mut rows = rows.iter().filter(|row| row.kind == kind && row.wait == wait).peekable();
    let Some(&first) = rows.peek() else {
        return Vec::new();
    };
    rows.filter(|row| {
        row.payload_bytes == first.payload_bytes && row.connections == first.connections
    })
    .collect()
}

fn name(plot: &str, wait: Wait) -> String {
    match wait {
        Wait::Block => plot.to_owned(),
        Wait::Spin => format!("{plot}-spinning"),
    }
}

/// Returns the long name of a stack.
fn long_name(series: Series) -> &'static str {
    match (series.stack, series.stubs) {
        (Stack::Samehost, Some(Stubs::Tonic)) => "samehost, tonic's stubs",
        (Stack::Samehost, _) => "samehost",
        (Stack::Blocking, _) => "samehost, blocking client",
        (Stack::Tonic, _) => "stock tonic",
        (Stack::Raw, _) => "bare socket",
    }
}

/// Returns the colours of the stacks, then the strokes of the transports.
fn legend(lines: &[Line]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for Line { series, .. } in lines {
        let text = long_name(*series);
        if entries.iter().all(|entry| entry.text != text) {
            entries
                .push(Entry { sample: LegendMark::Box(colour_of(*series)), text: text.to_owned() });
        }
    }
    for transport in Transport::ALL {
        if lines.iter().any(|line| line.series.transport == transport) {
            let text = match transport {
                Transport::Uds => "Unix socket (UDS)",
                Transport::Tcp => "TCP loopback",
            };
            let sample = LegendMark::Stroke { dashed: transport == Transport::Tcp };
            entries.push(Entry { sample, text: text.to_owned() });
        }
    }
    entries
}

fn latencies(
    plot: &'static str,
    rows: &[&Row],
    at_once: usize,
    wait: Wait,
    conditions: &Conditions,
) -> Result<Plot> {
    let rows: Vec<_> = rows.iter().copied().filter(|row| row.concurrency == at_once).collect();
    let lines = Line::all(&rows, |row| row.detail.curve.clone());
    let calls = match at_once {
        1 => "one call at a time".to_owned(),
        _ => format!("{at_once} calls at once"),
    };
    let what = format!("Unary calls, {} each way", size(rows[0].payload_bytes));
    let frame = Frame {
        title: format!("Latency, {calls}"),
        conditions: conditions.lines(&what, wait),
        above: "latency in µs, logarithmic".to_owned(),
        below: "part of the calls that took at most so long".to_owned(),
        legend: legend(&lines),
    };
    let svg = draw_lines(
        &frame,
        &lines,
        &Axis::nines(&lines, percentile),
        &Axis::logarithmic(&lines, short),
    )?;
    Ok(Plot {
        name: name(plot, wait),
        caption: "Each step to the right is another nine: a tenth of the calls is left.".to_owned(),
        svg,
    })
}

/// Returns no plot if only one number was measured.
fn calls_by_concurrency(
    rows: &[&Row],
    wait: Wait,
    conditions: &Conditions,
) -> Result<Option<Plot>> {
    let mut lines = Line::all(rows, |row| vec![(row.concurrency as f64, row.calls_per_second)]);
    lines.retain(|line| line.points.len() > 1);
    if lines.is_empty() {
        return Ok(None);
    }
    let rates = Axis::upwards(&lines, short);
    let what = format!("Unary calls, {} each way", size(rows[0].payload_bytes));
    let frame = Frame {
        title: "Calls per second by calls at once".to_owned(),
        conditions: conditions.lines(&what, wait),
        above: format!("calls per second{}", rates.remark()),
        below: "calls at once, logarithmic".to_owned(),
        legend: legend(&lines),
    };
    Ok(Some(Plot {
        name: name("calls", wait),
        caption: "More and more calls at once, on one connection unless the table says otherwise."
            .to_owned(),
        svg: draw_lines(&frame, &lines, &Axis::of_what_was_measured(&lines, short), &rates)?,
    }))
}

/// Returns no plot if only one payload was measured.
fn bytes_by_payload(rows: &[&Row], wait: Wait, conditions: &Conditions) -> Result<Option<Plot>> {
    let mut lines = Line::all(rows, |row| vec![(row.payload_bytes as f64, row.bytes_per_second)]);
    // Zero cannot be shown on a logarithmic axis.
    lines.iter_mut().for_each(|line| line.points.retain(|point| point.0 > 0.0));
    lines.retain(|line| line.points.len() > 1);
    if lines.is_empty() {
        return Ok(None);
    }
    let frame = Frame {
        title: "Bytes per second by payload".to_owned(),
        conditions: conditions.lines("One message after the other from the server", wait),
        above: "payload per second, logarithmic".to_owned(),
        below: "payload of a message, logarithmic".to_owned(),
        legend: legend(&lines),
    };
    Ok(Some(Plot {
        name: name("bytes", wait),
        caption: "The server sends one message after the other (bulk). A bare socket makes a \
                  system call for each of them, and so loses where they are small."
            .to_owned(),
        svg: draw_lines(
            &frame,
            &lines,
            &Axis::of_what_was_measured(&lines, size_of),
            &Axis::logarithmic(&lines, decimal_bytes),
        )?,
    }))
}

/// Plots what client and server do between one call and the next. Returns no plot if the server
/// cannot be asked.
fn times(
    rows: &[&Row],
    at_once: usize,
    wait: Wait,
    conditions: &Conditions,
) -> Result<Option<Plot>> {
    let mut groups = Vec::new();
    for row in rows.iter().filter(|row| row.concurrency == at_once) {
        let whole = 1e6 / row.calls_per_second;
        let Some(server) = row.detail.server else { continue };
        let bar = |end: &str, usage: super::usage::UsagePerCall| {
            let waiting = (whole - usage.cpu_us()).max(0.0);
            let parts = [usage.user_us, usage.system_us, waiting];
            Bar {
                label: end.to_owned(),
                value: figure_short(parts.iter().sum()),
                parts: [IN_PROGRAM, IN_KERNEL, WAITING].into_iter().zip(parts).collect(),
            }
        };
        let series = row.cell().series();
        groups.push(Group {
            heading: format!("{}, {}", long_name(series), series.transport),
            bars: vec![bar("client", row.detail.client), bar("server", server)],
        });
    }
    if groups.is_empty() {
        return Ok(None);
    }
    let entry =
        |colour, text: &str| Entry { sample: LegendMark::Box(colour), text: text.to_owned() };
    let calls = match at_once {
        1 => "one at a time".to_owned(),
        _ => format!("{at_once} at once"),
    };
    let what = format!("Unary calls, {} each way, {calls}", size(rows[0].payload_bytes));
    let frame = Frame {
        title: "Where a call's time goes".to_owned(),
        conditions: conditions.lines(&what, wait),
        above: String::new(),
        below: "µs from one call to the next".to_owned(),
        legend: vec![
            entry(IN_PROGRAM, "in the program"),
            entry(IN_KERNEL, "in the kernel"),
            entry(WAITING, "waiting"),
        ],
    };
    Ok(Some(Plot {
        name: name("time", wait),
        caption:
            "CPU time by getrusage(2), and the rest, in which a process waits for the other one \
                  or for its CPU to wake up. A process that spins does not wait."
                .to_owned(),
        svg: Bars { groups, is_one_scale: true }.draw(&frame)?,
    }))
}

/// Plots the whole comparison in one picture: ours, stock tonic and the bare socket, over Unix
/// sockets. Returns no plot if there is nothing to compare.
fn overview(rows: &[&Row], conditions: &Conditions) -> Result<Option<Plot>> {
    let rows: Vec<_> = rows.iter().copied().filter(|row| row.transport == Transport::Uds).collect();
    let at = |at_once: usize| rows.iter().filter(move |row| row.concurrency == at_once);
    let bars = |at_once, value: fn(&Row) -> f64, text: fn(f64) -> String| -> Vec<Bar> {
        let bar = |row: &&Row| {
            let series = row.cell().series();
            Bar {
                label: long_name(series).to_owned(),
                parts: vec![(colour_of(series), value(row))],
                value: text(value(row)),
            }
        };
        at(at_once).map(bar).collect()
    };
    let mut groups = Vec::new();
    let (Some(least), Some(most)) = (
        rows.iter().map(|row| row.concurrency).min(),
        rows.iter().map(|row| row.concurrency).max(),
    ) else {
        return Ok(None);
    };
    let us = |us| format!("{} µs", figure_short(us));
    groups.push(Group {
        heading: match least {
            1 => "One call at a time: median latency in µs".to_owned(),
            _ => format!("{least} calls at once: median latency in µs"),
        },
        bars: bars(least, |row| row.p50_us, us),
    });
    if most > least {
        groups.push(Group {
            heading: format!("{most} calls at once: calls per second"),
            bars: bars(most, |row| row.calls_per_second, super::table::thousands),
        });
    }
    groups.retain(|group| group.bars.len() > 1);
    if groups.is_empty() {
        return Ok(None);
    }
    let what = format!("Unary calls, {} each way, over a Unix socket", size(rows[0].payload_bytes));
    let frame = Frame {
        title: "What a local gRPC call costs".to_owned(),
        conditions: conditions.lines(&what, Wait::Block),
        above: String::new(),
        below: String::new(),
        legend: Vec::new(),
    };
    Ok(Some(Plot {
        name: "overview".to_owned(),
        caption: "Shorter is better in latency, longer in calls per second.".to_owned(),
        svg: Bars { groups, is_one_scale: false }.draw(&frame)?,
    }))
}

/// Plots how long it takes until the server has a payload, or has read it, in each way.
fn memory(rows: &[Row], conditions: &Conditions) -> Result<Option<Plot>> {
    let rows = rows.iter().filter(|row| row.wait == Wait::Block && row.concurrency == 1);
    let mut groups: Vec<Group> = Vec::new();
    for (row, read) in rows.filter_map(|row| Some((row, row.read?))) {
        let heading = match read {
            false => format!("{}, the server has it: ms", size(row.payload_bytes)),
            true => format!("{}, the server reads every byte: ms", size(row.payload_bytes)),
        };
        let series = row.cell().series();
        let label = match series.carrier {
            Some(carrier) if series.stack == Stack::Samehost => match series.stubs {
                Some(Stubs::Tonic) => format!("{carrier}, tonic's stubs"),
                _ => carrier.to_string(),
            },
            _ => long_name(series).to_owned(),
        };
        let ms = 1e3 / row.calls_per_second;
        let value = format!("{} ms", figure_short(ms));
        let bar = Bar { label, parts: vec![(colour_of(series), ms)], value };
        match groups.iter_mut().find(|group| group.heading == heading) {
            Some(group) => group.bars.push(bar),
            None => groups.push(Group { heading, bars: vec![bar] }),
        }
    }
    if groups.is_empty() {
        return Ok(None);
    }
    let frame = Frame {
        title: "Until a server has a large payload".to_owned(),
        conditions: conditions
            .lines("One payload after the other, over a Unix socket", Wait::Block),
        above: String::new(),
        below: String::new(),
        legend: Vec::new(),
    };
    Ok(Some(Plot {
        name: "memory".to_owned(),
        caption:
            "From one payload to the next, in ms: shorter is better. Memory is sealed once for all \
                  calls, or made anew for each; a message is decoded; a bare socket copies."
                .to_owned(),
        svg: Bars { groups, is_one_scale: false }.draw(&frame)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::cell::Cell;
    use super::super::report::tests::{CELL, row};
    use super::*;

    fn conditions() -> Conditions {
        Conditions {
            machine: "a machine".to_owned(),
            asleep: "both sleep".to_owned(),
            spinning: "both spin".to_owned(),
        }
    }

    fn names(rows: &[Row]) -> Vec<String> {
        let plots = plots(rows, &conditions()).unwrap();
        assert!(plots.iter().all(|plot| NAMES.contains(&plot.name.as_str())));
        plots.into_iter().map(|plot| plot.name).collect()
    }

    /// Returns all of our rows with this way to wait.
    fn rows(wait: Wait) -> Vec<Row> {
        let mut rows = Vec::new();
        for transport in Transport::ALL {
            let cell = Cell { transport, wait, ..CELL };
            for (concurrency, calls) in [(1, 1000.0), (16, 9000.0)] {
                rows.push(row(Cell { concurrency, ..cell }, calls));
            }
            for payload in [64, 1024] {
                rows.push(row(Cell { kind: Kind::Bulk, payload, concurrency: 1, ..cell }, 5e4));
            }
        }
        rows
    }

    #[test]
    fn what_was_measured_is_plotted() {
        let asleep = rows(Wait::Block);
        assert_eq!(names(&asleep), ["latency", "latency-many", "calls", "time", "bytes"]);
        assert!(names(&[]).is_empty());
        assert_eq!(names(&asleep[..1]), ["latency", "time"]);
        // A run that was interrupted, and one of a server that cannot be asked.
        let tcp = Cell { transport: Transport::Tcp, ..asleep[1].cell() };
        let mut two = [asleep[0].clone(), row(tcp, 1.0)];
        two.iter_mut().for_each(|row| row.detail.server = None);
        assert_eq!(names(&two), ["latency", "latency-many"]);
        // Now there is something to compare with.
        let tonic = Cell { stack: Stack::Tonic, stubs: Some(Stubs::Tonic), ..asleep[0].cell() };
        assert_eq!(names(&[asleep[0].clone(), row(tonic, 1.0)])[0], "overview");
    }

    #[test]
    fn where_the_time_goes_says_how_many_calls_there_were() {
        for (concurrency, calls) in [(1, "one at a time"), (16, "16 at once")] {
            let rows = [row(Cell { concurrency, ..CELL }, 1000.0)];
            let plots = plots(&rows, &conditions()).unwrap();
            let time = plots.iter().find(|plot| plot.name == "time").unwrap();
            assert!(time.svg.contains(calls), "{}", time.svg);
            assert_eq!(time.svg.contains("one at a time"), concurrency == 1);
        }
    }

    #[test]
    fn each_plot_says_what_it_is_and_how_it_was_measured() {
        let rows = [rows(Wait::Block), rows(Wait::Spin)].concat();
        let plots = plots(&rows, &conditions()).unwrap();
        assert_eq!(plots.len(), 10);
        for Plot { name, svg, .. } in &plots {
            let spins = name.ends_with("-spinning");
            assert_eq!(svg.contains("both spin"), spins, "{name}");
            assert_eq!(svg.contains("both sleep"), !spins, "{name}");
            for part in ["<title>", "a machine", "samehost", "var(--ink)"] {
                assert!(svg.contains(part), "{part} is missing in {name}");
            }
            let is_proportional = name.starts_with("time");
            assert_eq!(svg.contains("logarithmic"), !is_proportional, "{name}");
            let is_raw = |number| svg.contains(&format!("\"#{number:02X}0000\""));
            assert!(!(0..=9).any(is_raw), "a colour without a variable: {name}");
        }
    }
}
