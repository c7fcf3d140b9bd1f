//! [`Line`]: the points of one series in a plot.

use super::super::cell::Series;
use super::super::report::Row;

#[derive(Clone)]
pub(super) struct Line {
    pub(super) series: Series,
    pub(super) points: Vec<(f64, f64)>,
}

impl Line {
    /// Returns a line for each series, in the order of the rows.
    pub(super) fn all(rows: &[&Row], points: impl Fn(&Row) -> Vec<(f64, f64)>) -> Vec<Self> {
        let mut lines: Vec<Self> = Vec::new();
        for row in rows {
            let series = row.cell().series();
            match lines.iter_mut().find(|line| line.series == series) {
                Some(line) => line.points.extend(points(row)),
                None => lines.push(Self { series, points: points(row) }),
            }
        }
        for line in &mut lines {
            line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        lines.retain(|line| !line.points.is_empty());
        lines
    }
}
