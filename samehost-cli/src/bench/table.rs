//! The report as text: the headline, then the table and the notes that are needed to read it.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::cell::{Stack, Stubs};
use super::headline::{Ratio, headline, warnings};
use super::plan::Plan;
use super::report::{Report, Row};
use super::text::{widest, wrapped};

/// Returns the whole text, the headline first. No line is longer than `width`, except in the wide
/// table.
pub(super) fn text(plan: &Plan, report: &Report<'_>, width: usize) -> String {
    let mut parts = Vec::new();
    let sentences = headline(report, plan.busy_poll, plan.address.is_some());
    parts.extend(sentences.iter().map(|sentence| wrapped(sentence, width)));
    parts.extend(warnings(report.rows, plan).iter().map(|warning| wrapped(warning, width)));
    let lines = TableLine::all(report.rows);
    parts.push(match plan.wide {
        true => to_text(&columns(), &lines),
        false => to_text_within(width, &few_columns(), &lines),
    });
    parts.push(wrapped(&notes(plan, report.rows).join("\n"), width));
    parts.join("\n\n")
}

/// Returns the notes that are needed to read the table, as sentences.
pub(super) fn notes(plan: &Plan, rows: &[Row]) -> Vec<String> {
    let threads = plan.threads_in_words();
    let place = plan.pin.map_or("where the scheduler puts them".to_owned(), |pin| pin.to_string());
    let mut notes = vec![
        match &plan.address {
            Some(_) => format!("The client: {threads}; the server is one that was running."),
            None => format!("Server and client: two processes, {threads} each, {place}."),
        },
        "At once (×): calls, or streams of up to 256 messages or 4 MiB in flight; a bulk message is \
         timed from the one before it."
            .to_owned(),
        "CPU time and context switches are per call. Medians over the rounds; spread: how far the \
         middle half of the rounds lies apart in calls/s."
            .to_owned(),
    ];
    if !plan.wide {
        notes.push("--wide shows all columns, --json all figures.".to_owned());
    }
    if let Some(time) = plan.busy_poll {
        let who = if plan.address.is_some() { "the client reads" } else { "both ends read" };
        notes.push(format!("Spin: {who} for up to {time:?} before sleep."));
    }
    let is_mixed = |row: &Row| row.stack == Stack::Samehost && row.stubs == Some(Stubs::Tonic);
    if rows.iter().any(is_mixed) {
        notes.push("samehost/tonic: samehost with the stubs that tonic generates.".to_owned());
    }
    if rows.iter().any(|row| row.stack == Stack::Blocking) {
        let text = "samehost/blocking: samehost's client without a runtime, which reads and writes itself.";
        notes.push(text.to_owned());
    }
    if rows.iter().any(|row| row.carrier.is_some()) {
        notes.push(
            "A call is one payload to the server and its answer. Sealed once: the same memory for all \
             calls; sealed anew: new memory for each. Received: the server has it, mapped or in its own \
             memory; read: it reads every byte."
                .to_owned(),
        );
    }
    if plan.busy_poll_is_off {
        notes.push("Busy polling is off: a process has only one CPU to run on.".to_owned());
    }
    let resident = |mib: fn(&Row) -> Option<f64>| {
        rows.iter().filter_map(mib).filter(|mib| mib.is_finite()).max_by(f64::total_cmp)
    };
    if let Some(client) = resident(|row| Some(row.detail.client.resident_mib)) {
        let mut note = format!("Resident memory, at most: client {} MiB", figure(client));
        if let Some(server) = resident(|row| Some(row.detail.server?.resident_mib)) {
            let _ = write!(note, ", server {} MiB", figure(server));
        }
        notes.push(note + ".");
    }
    notes
}

/// One column of a table of `T`s.
pub(super) struct Column<T> {
    /// The title, in two lines.
    pub(super) title: &'static str,
    pub(super) is_text: bool,
    /// The columns with the lowest rank are left out first if there is no room for all. `None`
    /// stays.
    rank: Option<u8>,
    pub(super) show: fn(&T) -> String,
}

impl<T> Column<T> {
    pub(super) fn text(title: &'static str, show: fn(&T) -> String) -> Self {
        Self { title, is_text: true, rank: None, show }
    }

    pub(super) fn number(title: &'static str, show: fn(&T) -> String) -> Self {
        Self { title, is_text: false, rank: None, show }
    }

    /// Returns a column of numbers that may be left out.
    pub(super) fn optional(rank: u8, title: &'static str, show: fn(&T) -> String) -> Self {
        Self { title, is_text: false, rank: Some(rank), show }
    }
}

/// Returns the table for a terminal of this width, with as many columns as there is room for.
pub(super) fn to_text_within<T>(width: usize, columns: &[Column<T>], lines: &[T]) -> String {
    let mut shown: Vec<_> = columns.iter().collect();
    loop {
        let text = table(&shown, lines);
        let least = shown.iter().filter_map(|column| column.rank).min();
        match least {
            Some(least) if widest(&text) > width => {
                shown.retain(|column| column.rank != Some(least));
            }
            _ => return text,
        }
    }
}

/// Returns the table for a terminal, whatever its width.
pub(super) fn to_text<T>(columns: &[Column<T>], lines: &[T]) -> String {
    table(&columns.iter().collect::<Vec<_>>(), lines)
}

fn table<T>(columns: &[&Column<T>], lines: &[T]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(columns.iter().map(|column| column.title));
    for line in lines {
        table.add_row(columns.iter().map(|column| (column.show)(line)));
    }
    for (index, (column, Column { is_text, .. })) in
        table.column_iter_mut().zip(columns.iter().copied()).enumerate()
    {
        column.set_padding(if index == 0 { (0, 0) } else { (1, 0) });
        column.set_cell_alignment(match is_text {
            true => CellAlignment::Left,
            false => CellAlignment::Right,
        });
    }
    table.trim_fmt()
}

/// The data of a line of the main table.
pub(super) struct TableLine<'a> {
    pub(super) row: &'a Row,
    to_tcp: Option<Ratio>,
}

impl<'a> TableLine<'a> {
    pub(super) fn all(rows: &'a [Row]) -> Vec<Self> {
        rows.iter().map(|row| Self { row, to_tcp: Ratio::to_tcp(row, rows) }).collect()
    }
}

/// Returns the most important columns, which fit on a usual terminal.
fn few_columns<'a>() -> Vec<Column<TableLine<'a>>> {
    vec![
        Column::text("\nwhat", |line| line.row.what()),
        Column::text("\nstack", |line| line.row.cell().series().stack_and_wait()),
        Column::text("\nvia", |line| line.row.transport.to_string()),
        Column::number("\ncalls/s", |line| thousands(line.row.calls_per_second)),
        Column::number("p50\nµs", |line| figure(line.row.p50_us)),
        Column::optional(2, "p99\nµs", |line| figure(line.row.p99_us)),
        Column::optional(1, "CPU\nµs", |line| {
            let client = line.row.client_cpu_us_per_call;
            or_dash(line.row.server_cpu_us_per_call.map(|server| client + server), figure)
        }),
        Column::optional(3, "\nspread", |line| or_dash(line.row.spread, percent)),
    ]
}

/// Returns all columns.
pub(super) fn columns<'a>() -> Vec<Column<TableLine<'a>>> {
    vec![
        Column::text("\nkind", |line| match line.row.read {
            Some(true) => format!("{}, read", line.row.kind),
            Some(false) => format!("{}, received", line.row.kind),
            None => line.row.kind.to_string(),
        }),
        Column::number("\npayload", |line| line.row.payload_bytes.to_string()),
        Column::number("at\nonce", |line| line.row.at_once()),
        Column::text("\nstack", |line| line.row.cell().series().stack_and_wait()),
        Column::text("\nvia", |line| line.row.transport.to_string()),
        Column::number("\ncalls/s", |line| thousands(line.row.calls_per_second)),
        Column::number("\nMB/s", |line| figure(line.row.bytes_per_second / 1e6)),
        // A question mark means that it may be chance.
        Column::number("against\nTCP", |line| match line.to_tcp {
            Some(ratio) if ratio.is_beyond_the_spread() => format!("{:.2} ×", ratio.times),
            Some(ratio) => format!("{:.2} ?", ratio.times),
            None => String::new(),
        }),
        Column::number("p50\nµs", |line| figure(line.row.p50_us)),
        Column::number("p99\nµs", |line| figure(line.row.p99_us)),
        Column::number("client\nCPU µs", |line| figure(line.row.client_cpu_us_per_call)),
        Column::number("server\nCPU µs", |line| or_dash(line.row.server_cpu_us_per_call, figure)),
        Column::number("client\nswitches", |line| figure(line.row.detail.client.context_switches)),
        Column::number("server\nswitches", |line| {
            or_dash(line.row.detail.server.map(|server| server.context_switches), figure)
        }),
        Column::number("\nspread", |line| or_dash(line.row.spread, percent)),
    ]
}

/// Returns a dash if the value is unknown.
pub(super) fn or_dash(value: Option<f64>, show: fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), show)
}

pub(super) fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// Returns a number with at least three digits, and no more decimals than that needs.
pub(super) fn figure(value: f64) -> String {
    match value {
        small if small < 10.0 => format!("{small:.2}"),
        medium if medium < 100.0 => format!("{medium:.1}"),
        large => thousands(large),
    }
}

/// Returns a whole number, with its digits in groups.
pub(super) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Kind, Wait};
    use super::super::headline::tests::pair;
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let text = to_text(&columns(), &TableLine::all(&pair(16, 1_234_567.0, 1000.0)));
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("1,234,567"), "{text}");
        assert!(text.contains("UDS"), "{text}");
    }

    #[test]
    fn a_narrow_terminal_has_fewer_columns_and_no_broken_line() {
        let mut rows = pair(4096, 12_345_678.0, 1000.0).to_vec();
        rows[0].wait = Wait::Spin;
        rows[0].kind = Kind::Connect;
        rows[0].connections = 4096;
        rows[1].payload_bytes = 65_536;
        rows.iter_mut().for_each(|row| {
            (row.p50_us, row.p99_us, row.spread) = (123_456.0, 12_345_678.0, Some(1.52));
        });
        let at = |width| to_text_within(width, &few_columns(), &TableLine::all(&rows));
        for (width, shown, left_out) in
            [(80, vec!["spread", "p99"], vec![]), (60, vec!["p50"], vec!["CPU"])]
        {
            let text = at(width);
            assert!(widest(&text) <= width, "{text}");
            assert_eq!(text.lines().count(), 4, "{text}");
            assert!(shown.iter().all(|title| text.contains(title)), "{text}");
            assert!(!left_out.iter().any(|title: &&str| text.contains(title)), "{text}");
        }
    }

    #[test]
    fn figures_keep_three_digits() {
        for (value, text) in [
            (0.0, "0.00"),
            (9.87, "9.87"),
            (98.76, "98.8"),
            (987.6, "988"),
            (1000.0, "1,000"),
            (123_456.0, "123,456"),
        ] {
            assert_eq!(figure(value), text);
        }
    }
}
