//! `--compare`: the changes since an earlier report.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::headline::Ratio;
use super::machine::Machine;
use super::report::{Row, VERSION};
use super::table::{Column, percent, thousands, to_text_within};
use super::text::wrapped;
use crate::failure::Failure;

/// An earlier report.
pub(super) struct Earlier {
    path: PathBuf,
    machine: Machine,
    rows: Vec<Row>,
}

/// The part of the file that is read first.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The part of the file that is read.
#[derive(Deserialize)]
struct File {
    machine: Machine,
    rows: Vec<Row>,
}

impl Earlier {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |problem: &str| {
            let path = path.display();
            Failure::Failed(format!("{path}: {problem}: give a report.json of samehost bench"))
        };
        let text = std::fs::read(path).map_err(|error| failed(&error.to_string()))?;
        let invalid = |error: serde_json::Error| failed(&error.to_string());
        let Versioned { version } = serde_json::from_slice(&text).map_err(invalid)?;
        if version != VERSION {
            return Err(failed(&format!("version {version} is not known, only {VERSION}")));
        }
        let File { machine, rows } = serde_json::from_slice(&text).map_err(invalid)?;
        Ok(Self { path: path.to_owned(), machine, rows })
    }

    /// Returns the change of each cell, and a sentence that sums them up.
    pub(super) fn changes(&self, machine: &Machine, rows: &[Row], width: usize) -> String {
        let changes: Vec<_> =
            rows.iter().filter_map(|now| Change::since(&self.rows, now)).collect();
        let path = self.path.display();
        if changes.is_empty() {
            return format!("Since {path}: no cell of this run is in it.");
        }
        let count = |verdict| changes.iter().filter(|change| change.verdict() == verdict).count();
        let mut text = format!(
            "Since {path}, of {} cells: {} faster, {} slower, {} within the spread.",
            changes.len(),
            count(Verdict::Faster),
            count(Verdict::Slower),
            count(Verdict::WithinTheSpread)
        );
        if rows.len() > changes.len() {
            text += &format!("\nNot in it: {} cells.", rows.len() - changes.len());
        }
        if !self.machine.is_like(machine) {
            text += "\nIt is of another machine.";
        }
        let table = to_text_within(width, &columns(), &changes);
        format!("{}\n\n{table}", wrapped(&text, width))
    }
}

struct Change<'a> {
    then: &'a Row,
    now: &'a Row,
    calls_per_second: Ratio,
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Faster,
    Slower,
    WithinTheSpread,
}

impl<'a> Change<'a> {
    fn since(earlier: &'a [Row], now: &'a Row) -> Option<Self> {
        let is_same = |then: &&Row| then.cell() == now.cell() && then.threads == now.threads;
        let then = earlier.iter().find(is_same)?;
        Some(Self { then, now, calls_per_second: Ratio::between(now, then) })
    }

    fn verdict(&self) -> Verdict {
        match self.calls_per_second {
            ratio if !ratio.is_beyond_the_spread() => Verdict::WithinTheSpread,
            ratio if ratio.times > 1.0 => Verdict::Faster,
            _ => Verdict::Slower,
        }
    }
}

fn columns<'a>() -> Vec<Column<Change<'a>>> {
    vec![
        Column::text("\nwhat", |change| change.now.what()),
        Column::text("\nby", |change| change.now.cell().series().to_string()),
        Column::optional(2, "calls/s\nthen", |change| thousands(change.then.calls_per_second)),
        Column::optional(3, "\nnow", |change| thousands(change.now.calls_per_second)),
        Column::number("\nchange", |change| signed(change.calls_per_second.times)),
        Column::optional(1, "p50\nchange", |change| signed(change.now.p50_us / change.then.p50_us)),
        Column::text("\n", |change| match change.verdict() {
            Verdict::Faster => "faster".to_owned(),
            Verdict::Slower => "slower".to_owned(),
            Verdict::WithinTheSpread => {
                format!("± {}", percent(change.calls_per_second.spread))
            }
        }),
    ]
}

fn signed(times: f64) -> String {
    format!("{:+.1} %", (times - 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::cell::Cell;
    use super::super::report::tests::{CELL, row};
    use super::*;

    fn with_spread(calls_per_second: f64, spread: f64) -> Row {
        Row { spread: Some(spread), ..row(CELL, calls_per_second) }
    }

    fn changes(then: Row, now: Row) -> String {
        let machine = Machine::this();
        Earlier { path: "old.json".into(), machine, rows: vec![then] }.changes(
            &Machine::this(),
            &[now],
            80,
        )
    }

    #[test]
    fn a_change_counts_beyond_the_larger_spread() {
        let text = changes(with_spread(100.0, 0.01), with_spread(150.0, 0.4));
        assert!(
            text.starts_with("Since old.json, of 1 cells: 1 faster, 0 slower, 0 within"),
            "{text}"
        );
        assert!(text.contains("+50.0 %"), "{text}");
        let text = changes(with_spread(100.0, 0.6), with_spread(150.0, 0.4));
        assert!(text.contains(": 0 faster, 0 slower, 1 within"), "{text}");
        let text = changes(with_spread(100.0, 0.1), with_spread(80.0, 0.1));
        assert!(text.contains(": 0 faster, 1 slower, 0 within"), "{text}");
        assert!(text.contains("-20.0 %"), "{text}");
    }

    #[test]
    fn other_cells_are_not_compared() {
        let other = row(Cell { payload: 1, ..CELL }, 1.0);
        let text = changes(other, with_spread(100.0, 0.0));
        assert_eq!(text, "Since old.json: no cell of this run is in it.");
    }
}
