//! [`Axis`]: maps values to positions, and chooses which values are written beside it.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, KeyPointWeight, Ranged};

use super::frame::{PLOT_WIDTH, width_of};
use super::line::Line;

/// The slowest stack must not flatten the others, so beyond this ratio an axis is logarithmic.
const PROPORTIONAL_MAX: f64 = 8.0;

/// The smallest gap between two figures, in pixels.
const GAP: f64 = 12.0;

#[derive(Clone)]
pub(super) struct Axis {
    ends: Range<f64>,
    ticks: Vec<f64>,
    /// The function whose result is proportional to the position of a value.
    scale: fn(f64) -> f64,
    pub(super) label: fn(f64) -> String,
    is_logarithmic: bool,
}

impl Axis {
    /// Returns a horizontal axis of values. Each value has a tick, and equal factors have equal
    /// distances.
    pub(super) fn of_what_was_measured(lines: &[Line], label: fn(f64) -> String) -> Self {
        let values = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
        let mut ticks: Vec<_> = values.collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let ends = range(lines, |point| point.0);
        Self { ends, ticks, scale: f64::log2, label, is_logarithmic: true }.thinned()
    }

    /// Returns a horizontal axis of percentiles, by their number of nines.
    pub(super) fn nines(lines: &[Line], label: fn(f64) -> String) -> Self {
        let most = range(lines, |point| point.0).end.ceil().max(1.0);
        let ticks = (0..=most as u32).map(f64::from).collect();
        Self { ends: 0.0..most, ticks, scale: |nines| nines, label, is_logarithmic: true }
    }

    /// Returns a vertical axis of values above zero.
    pub(super) fn logarithmic(lines: &[Line], label: fn(f64) -> String) -> Self {
        let Range { start, end } = range(lines, |point| point.1);
        let ends = start.max(1e-3) / 1.2..end.max(1e-3) * 1.2;
        let powers = ends.start.log10().floor() as i32..=ends.end.log10() as i32;
        let ticks = |digits: &[f64]| -> Vec<f64> {
            let ticks = powers
                .clone()
                .flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
            ticks.filter(|tick| ends.contains(tick)).collect()
        };
        let mut fine = ticks(&[1.0, 2.0, 5.0]);
        if fine.len() > 9 {
            fine = ticks(&[1.0]);
        }
        Self { ticks: fine, ends, scale: f64::log10, label, is_logarithmic: true }
    }

    /// Returns a vertical axis: proportional, or logarithmic if proportional would flatten the
    /// lower lines.
    pub(super) fn upwards(lines: &[Line], label: fn(f64) -> String) -> Self {
        let peak_of = |line: &Line| line.points.iter().map(|point| point.1).fold(0.0, f64::max);
        let peaks = lines.iter().map(peak_of);
        let lowest = peaks.clone().fold(f64::INFINITY, f64::min);
        let highest = peaks.fold(0.0, f64::max);
        match highest > lowest * PROPORTIONAL_MAX {
            true => Self::logarithmic(lines, label),
            false => Self::from_zero(highest, label),
        }
    }

    /// Returns a proportional axis from zero to a little above the largest value.
    pub(super) fn from_zero(most: f64, label: fn(f64) -> String) -> Self {
        let most = most * 1.05;
        let power = 10f64.powf((most / 6.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
        let step = steps.into_iter().find(|step| most / step <= 6.0).unwrap_or(most);
        let ticks = (0..=(most / step) as u32).map(|tick| f64::from(tick) * step).collect();
        Self { ends: 0.0..most, ticks, scale: |value| value, label, is_logarithmic: false }
    }

    /// Returns what the axis's title has to say in addition.
    pub(super) fn remark(&self) -> &'static str {
        if self.is_logarithmic { ", logarithmic" } else { "" }
    }

    pub(super) fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// Removes the ticks whose figures would touch others. The last one stays.
    fn thinned(mut self) -> Self {
        let mut limit = f64::INFINITY;
        let mut kept = Vec::new();
        for &tick in self.ticks.iter().rev() {
            let place = f64::from(self.map(&tick, (0, PLOT_WIDTH as i32)));
            let half = width_of(&(self.label)(tick)) / 2.0;
            if place + half + GAP <= limit {
                limit = place - half;
                kept.push(tick);
            }
        }
        kept.reverse();
        self.ticks = kept;
        self
    }
}

/// Returns the smallest and the largest value of all points in one dimension.
fn range(lines: &[Line], of: fn(&(f64, f64)) -> f64) -> Range<f64> {
    let values = lines.iter().flat_map(|line| line.points.iter().map(of));
    values.fold(f64::INFINITY..f64::NEG_INFINITY, |range, value| {
        range.start.min(value)..range.end.max(value)
    })
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let [value, start, end] = [*value, self.ends.start, self.ends.end].map(self.scale);
        from + (f64::from(to - from) * (value - start) / (end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight() {
            KeyPointWeight::Bold => self.ticks.clone(),
            KeyPointWeight::Any => Vec::new(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.ends.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::report::tests::CELL;
    use super::super::figures::{short, size_of};
    use super::*;

    fn lines(most: f64) -> [Line; 1] {
        let points = vec![(1.0, most / 50.0), (16.0, most)];
        [Line { series: CELL.series(), points }]
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(Axis::from_zero(83_000.0, short).ticks.last(), Some(&80_000.0));
        let axis = Axis::logarithmic(&lines(1000.0), short);
        assert_eq!(axis.ticks, [20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        let places = [20.0, 100.0, 500.0].map(|value| axis.map(&value, (300, 0)));
        assert_eq!(
            places[0] - places[1],
            places[1] - places[2],
            "the same factor, the same distance"
        );
        assert_eq!(Axis::of_what_was_measured(&lines(1.0), short).ticks, [1.0, 16.0]);
    }

    #[test]
    fn a_slow_stack_makes_the_axis_logarithmic() {
        let [fast] = lines(900.0);
        let slow = |most: f64| Line { points: vec![(1.0, 1.0), (16.0, most)], ..fast.clone() };
        for (most, is_logarithmic) in [(120.0, false), (100.0, true)] {
            let axis = Axis::upwards(&[fast.clone(), slow(most)], short);
            assert_eq!(axis.is_logarithmic, is_logarithmic, "{most}");
        }
    }

    #[test]
    fn figures_do_not_run_into_each_other() {
        let points = (0..19).map(|power| (f64::from(1 << power), 1.0)).collect();
        let lines = [Line { series: CELL.series(), points }];
        let axis = Axis::of_what_was_measured(&lines, size_of);
        assert!(axis.ticks.len() > 3 && axis.ticks.len() < 10, "{:?}", axis.ticks);
        assert_eq!(axis.ticks.last(), Some(&f64::from(1 << 18)));
    }
}
