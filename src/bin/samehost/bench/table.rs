//! The report as text: the headline, then the table.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::cell::Transport;
use super::report::Row;

/// The sentence that says it first, unless there is nothing to compare.
pub(super) fn headline(rows: &[Row]) -> Option<String> {
    let ratios: Vec<f64> = rows.iter().filter_map(|row| against_tcp(row, rows)).collect();
    let least = ratios.iter().copied().min_by(f64::total_cmp)?;
    let most = ratios.iter().copied().max_by(f64::total_cmp)?;
    // Geometric, so that twice as fast and half as fast make even.
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    let mut text = match format!("{mean:.1}").as_str() {
        "1.0" => "UDS is as fast as TCP loopback here".to_owned(),
        times if mean > 1.0 => format!("UDS is {times} × as fast as TCP loopback here"),
        _ => format!("UDS is slower than TCP loopback here, {mean:.2} × as fast"),
    };
    match ratios.len() {
        1 => text += " (calls/s).",
        pairs => {
            let _ = write!(text, " (calls/s, mean of {pairs} pairs: {least:.2} × to {most:.2} ×).");
        }
    }
    Some(text)
}

/// How many times as many calls per second as over TCP, for a row over UDS that has a counterpart.
fn against_tcp(row: &Row, rows: &[Row]) -> Option<f64> {
    if row.transport != Transport::Uds {
        return None;
    }
    let tcp = rows.iter().find(|other| row.cell().is_counterpart(&other.cell()))?;
    Some(row.calls_per_second / tcp.calls_per_second)
}

pub(super) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "\nkind",
        "\npayload",
        "at\nonce",
        "\nvia",
        "\ncalls/s",
        "against\nTCP",
        "p50\nµs",
        "p90\nµs",
        "p99\nµs",
        "client\nCPU µs",
        "server\nCPU µs",
        "\nspread",
    ]);
    for row in rows {
        table.add_row([
            row.kind.to_string(),
            row.payload_bytes.to_string(),
            row.concurrency.to_string(),
            row.transport.to_string(),
            thousands(row.calls_per_second),
            against_tcp(row, rows).map_or(String::new(), |times| format!("{times:.2} ×")),
            figure(row.p50_us),
            figure(row.p90_us),
            figure(row.p99_us),
            figure(row.client_cpu_us_per_call),
            row.server_cpu_us_per_call.map_or_else(unknown, figure),
            row.spread.map_or_else(unknown, |spread| format!("{:.0} %", spread * 100.0)),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding(if index == 0 { (0, 0) } else { (1, 0) });
        let text = matches!(index, 0 | 3);
        column.set_cell_alignment(if text { CellAlignment::Left } else { CellAlignment::Right });
    }
    table.trim_fmt()
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
    use super::super::cell::Cell;
    use super::super::report::tests::{CELL, row};
    use super::*;

    fn pair(concurrency: usize, uds: f64, tcp: f64) -> [Row; 2] {
        let cell = Cell { concurrency, ..CELL };
        [row(cell, uds), row(Cell { transport: Transport::Tcp, ..cell }, tcp)]
    }

    #[test]
    fn the_headline_says_how_many_times_as_fast() {
        assert_eq!(
            headline(&pair(1, 160.0, 100.0)).unwrap(),
            "UDS is 1.6 × as fast as TCP loopback here (calls/s)."
        );
        assert_eq!(
            headline(&[pair(1, 400.0, 100.0), pair(2, 100.0, 100.0)].concat()).unwrap(),
            "UDS is 2.0 × as fast as TCP loopback here (calls/s, mean of 2 pairs: 1.00 × to 4.00 ×)."
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
    fn without_a_pair_there_is_no_headline() {
        let [uds, tcp] = pair(1, 2.0, 1.0);
        assert_eq!(headline(&[]), None);
        assert_eq!(headline(std::slice::from_ref(&uds)), None);
        assert_eq!(headline(std::slice::from_ref(&tcp)), None);
        let [_, other] = pair(2, 2.0, 1.0);
        assert_eq!(headline(&[uds, other]), None);
    }

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let text = table(&pair(16, 1_234_567.0, 1000.0));
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("1,234,567"), "{text}");
        assert!(text.contains("UDS"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 90), "{text}");
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
