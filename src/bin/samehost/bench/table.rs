//! The report as text: the headline, then the table and what has to be known to read it.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::cell::{Kind, Wait};
use super::headline::{Ratio, headline, warning};
use super::plan::Plan;
use super::report::{Detail, Row};

/// All of it: the headline first.
pub(super) fn text(plan: &Plan, rows: &[Row]) -> String {
    let mut parts: Vec<String> = headline(rows).into_iter().collect();
    parts.extend(warning(rows));
    parts.push(table(rows));
    parts.push(notes(plan, rows));
    parts.join("\n\n")
}

/// What has to be known to read the table.
fn notes(plan: &Plan, rows: &[Row]) -> String {
    let threads = match plan.threads {
        1 => "1 thread".to_owned(),
        threads => format!("{threads} threads"),
    };
    let pinned = plan.pin.map_or("where the scheduler puts them".to_owned(), |pin| pin.to_string());
    let mut text = format!(
        "Server and client: two processes, {threads} each, {pinned}.\n\
         At once: calls, or streams of up to 256 messages or 4 MiB in flight; a bulk message is timed\n\
         from the one before it.\n\
         CPU time and context switches are per call, of client and server. Medians over the rounds;\n\
         spread: how far the middle half of the rounds lies apart in calls/s."
    );
    if let Some(time) = plan.busy_poll {
        let _ = write!(text, "\nspin: both ends read for up to {time:?} before they sleep.");
    }
    if plan.busy_poll_is_off {
        text.push_str("\nBusy polling is off: a process has only one CPU to run on.");
    }
    let resident = |usage: &dyn Fn(&Row) -> Option<f64>| {
        rows.iter().filter_map(usage).filter(|mib| mib.is_finite()).max_by(f64::total_cmp)
    };
    let client = resident(&|row| Some(row.detail.client.resident_mib));
    let server = resident(&|row| Some(row.detail.server?.resident_mib));
    if let Some(client) = client {
        let _ = write!(text, "\nResident memory, at most: client {} MiB", figure(client));
        if let Some(server) = server {
            let _ = write!(text, ", server {} MiB", figure(server));
        }
        text.push('.');
    }
    text
}

fn table(rows: &[Row]) -> String {
    let several_connections =
        rows.iter().any(|row| row.kind != Kind::Connect && row.connections != 1);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "\nkind",
        "\npayload",
        if several_connections { "once on\nconns" } else { "at\nonce" },
        "\nstack",
        "\nvia",
        "\ncalls/s",
        "\nMB/s",
        "against\nTCP",
        "p50\nµs",
        "p99\nµs",
        "CPU µs\nclient",
        "\nserver",
        "switches\nclient",
        "\nserver",
        "\nspread",
    ]);
    for row in rows {
        let Detail { client, server, .. } = &row.detail;
        table.add_row([
            row.kind.to_string(),
            row.payload_bytes.to_string(),
            match several_connections {
                true => format!("{} on {}", row.concurrency, row.connections),
                false => row.concurrency.to_string(),
            },
            match row.wait {
                Wait::Block => row.stack.to_string(),
                Wait::Spin => format!("{} spin", row.stack),
            },
            row.transport.to_string(),
            thousands(row.calls_per_second),
            figure(row.bytes_per_second / 1e6),
            Ratio::to_tcp(row, rows).map_or(String::new(), times),
            figure(row.p50_us),
            figure(row.p99_us),
            figure(row.client_cpu_us_per_call),
            row.server_cpu_us_per_call.map_or_else(unknown, figure),
            figure(client.context_switches),
            server.as_ref().map_or_else(unknown, |server| figure(server.context_switches)),
            row.spread.map_or_else(unknown, |spread| format!("{:.0} %", spread * 100.0)),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding(if index == 0 { (0, 0) } else { (1, 0) });
        let text = matches!(index, 0 | 3 | 4);
        column.set_cell_alignment(if text { CellAlignment::Left } else { CellAlignment::Right });
    }
    table.trim_fmt()
}

/// A question mark where it may be chance.
fn times(ratio: Ratio) -> String {
    let mark = if ratio.is_beyond_the_spread() { "×" } else { "?" };
    format!("{:.2} {mark}", ratio.times)
}

fn unknown() -> String {
    "–".to_owned()
}

/// Three digits at least, and no more after the point than that takes.
fn figure(value: f64) -> String {
    match value {
        small if small < 10.0 => format!("{small:.2}"),
        medium if medium < 100.0 => format!("{medium:.1}"),
        large => thousands(large),
    }
}

/// A whole number, its digits in groups.
fn thousands(value: f64) -> String {
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
    use super::super::headline::tests::pair;
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let text = table(&pair(16, 1_234_567.0, 1000.0));
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("1,234,567"), "{text}");
        assert!(text.contains("UDS"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
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
