//! The report's plots, as SVG. Colours are CSS variables, which each file defines for light and dark
//! screens and for paper: it looks right on its own and inside a page.

use std::error::Error;
use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, KeyPointWeight, Ranged};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::cell::{Kind, Series, Stack, Transport, Wait};
use super::report::Row;
use super::table::{figure, thousands};

/// In pixels.
const SIZE: (u32, u32) = (860, 400);

/// What is left free on the right for the legend.
const LEGEND_WIDTH: u32 = 170;

/// A colour that stands for a variable: its number is in the red part.
struct Colour(u8, &'static str);

const PAPER: Colour = Colour(1, "var(--paper)");
const INK: Colour = Colour(2, "var(--ink)");
const GRID: Colour = Colour(3, "var(--grid)");
const SAMEHOST: Colour = Colour(4, "var(--samehost)");
const TONIC: Colour = Colour(5, "var(--tonic)");
const RAW: Colour = Colour(6, "var(--raw)");
const RAW_SPIN: Colour = Colour(7, "var(--raw-spin)");
const WAITING: Colour = Colour(8, "var(--waiting)");
const COLOURS: [Colour; 8] = [PAPER, INK, GRID, SAMEHOST, TONIC, RAW, RAW_SPIN, WAITING];

impl Colour {
    const fn rgb(&self) -> RGBColor {
        RGBColor(self.0, 0, 0)
    }
}

/// The variables, for a page that has plots in it or is in their style.
pub(super) const STYLE: &str = include_str!("plots.css");

/// The names of all plots that there may be.
pub(super) const NAMES: [&str; 5] = ["latency", "latency-many", "calls", "bytes", "time"];

pub(super) struct Plot {
    /// Of its file, without the ending.
    pub(super) name: &'static str,
    pub(super) title: String,
    /// What is to be seen, and how to read it.
    pub(super) caption: String,
    pub(super) svg: String,
}

/// All that the rows have figures for.
pub(super) fn plots(rows: &[Row]) -> Result<Vec<Plot>, Box<dyn Error>> {
    let mut plots = Vec::new();
    let unary: Vec<_> = same_but_for_series(rows, Kind::Unary);
    let mut at_once: Vec<_> = unary.iter().map(|row| row.concurrency).collect();
    at_once.sort_unstable();
    at_once.dedup();
    if let (Some(&least), Some(&most)) = (at_once.first(), at_once.last()) {
        plots.push(latencies("latency", &unary, least)?);
        if most > least {
            plots.push(latencies("latency-many", &unary, most)?);
        }
        plots.extend(calls_by_concurrency(&unary)?);
        plots.extend(times(&unary, least)?);
    }
    let bulk: Vec<_> = rows.iter().filter(|row| row.kind == Kind::Bulk).collect();
    if let Some(least) = bulk.iter().map(|row| row.concurrency).min() {
        let bulk: Vec<_> = bulk.into_iter().filter(|row| row.concurrency == least).collect();
        plots.extend(bytes_by_payload(&bulk)?);
    }
    Ok(plots)
}

/// Of one kind, the rows with the first payload and number of connections.
fn same_but_for_series(rows: &[Row], kind: Kind) -> Vec<&Row> {
    let first = rows.iter().find(|row| row.kind == kind);
    let is_like = |row: &&Row| {
        first.is_some_and(|first| {
            row.kind == kind
                && row.payload_bytes == first.payload_bytes
                && row.connections == first.connections
        })
    };
    rows.iter().filter(is_like).collect()
}

/// A line in a plot.
struct Line {
    series: Series,
    points: Vec<(f64, f64)>,
}

impl Line {
    /// One for each series, in the order of the rows.
    fn all(rows: &[&Row], points: impl Fn(&Row) -> Vec<(f64, f64)>) -> Vec<Self> {
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

    fn colour(&self) -> RGBColor {
        match (self.series.stack, self.series.wait) {
            (Stack::Samehost, _) => SAMEHOST,
            (Stack::Tonic, _) => TONIC,
            (Stack::Raw, Wait::Block) => RAW,
            (Stack::Raw, Wait::Spin) => RAW_SPIN,
        }
        .rgb()
    }

    /// The lengths of strokes and gaps.
    fn dashes(&self) -> Option<(i32, i32)> {
        (self.series.transport == Transport::Tcp).then_some((5, 4))
    }
}

/// From the least to the most of all points, in one dimension.
fn range(lines: &[Line], of: fn(&(f64, f64)) -> f64) -> Range<f64> {
    let values = lines.iter().flat_map(|line| line.points.iter().map(of));
    values.fold(f64::INFINITY..f64::NEG_INFINITY, |range, value| {
        range.start.min(value)..range.end.max(value)
    })
}

fn latencies(name: &'static str, rows: &[&Row], at_once: usize) -> Result<Plot, Box<dyn Error>> {
    let rows: Vec<_> = rows.iter().copied().filter(|row| row.concurrency == at_once).collect();
    let lines = Line::all(&rows, |row| row.detail.curve.clone());
    let nines = Axis {
        ends: 0.0..4.0,
        ticks: vec![0.0, 1.0, 2.0, 3.0, 4.0],
        scale: |nines| nines,
        label: percentile,
    };
    let time = Axis::logarithmic(&lines, |us| format!("{} µs", figure_short(us)));
    Ok(Plot {
        name,
        title: match at_once {
            1 => "Latency, one call at a time".to_owned(),
            _ => format!("Latency, {at_once} calls at once"),
        },
        caption: format!(
            "How many calls took at most so long: unary, {} of payload. Each step to the right is \
             another nine.",
            bytes(rows[0].payload_bytes as f64)
        ),
        svg: draw(&lines, &nines, &time, false)?,
    })
}

/// Nothing where only one number was measured.
fn calls_by_concurrency(rows: &[&Row]) -> Result<Option<Plot>, Box<dyn Error>> {
    let mut lines = Line::all(rows, |row| vec![(row.concurrency as f64, row.calls_per_second)]);
    lines.retain(|line| line.points.len() > 1);
    if lines.is_empty() {
        return Ok(None);
    }
    Ok(Some(Plot {
        name: "calls",
        title: "Calls per second by calls at once".to_owned(),
        caption: format!(
            "Unary calls with {} of payload, more and more of them at once.",
            bytes(rows[0].payload_bytes as f64)
        ),
        svg: draw(
            &lines,
            &Axis::of_what_was_measured(&lines, thousands),
            &Axis::from_zero(range(&lines, |point| point.1).end, thousands),
            true,
        )?,
    }))
}

/// Nothing where only one payload was measured.
fn bytes_by_payload(rows: &[&Row]) -> Result<Option<Plot>, Box<dyn Error>> {
    let mut lines = Line::all(rows, |row| vec![(row.payload_bytes as f64, row.bytes_per_second)]);
    // Nothing has no place on a logarithmic axis.
    lines.iter_mut().for_each(|line| line.points.retain(|point| point.0 > 0.0));
    lines.retain(|line| line.points.len() > 1);
    if lines.is_empty() {
        return Ok(None);
    }
    Ok(Some(Plot {
        name: "bytes",
        title: "Bytes per second by payload".to_owned(),
        caption: "The server sends one message after the other (bulk). A bare socket makes a \
                  system call for each of them, and so loses where they are small."
            .to_owned(),
        svg: draw(
            &lines,
            &Axis::of_what_was_measured(&lines, bytes),
            &Axis::logarithmic(&lines, |rate| format!("{}/s", decimal_bytes(rate))),
            true,
        )?,
    }))
}

/// Two bars for each series: what client and server do between one call and the next. Nothing where
/// the server can't be asked.
fn times(rows: &[&Row], at_once: usize) -> Result<Option<Plot>, Box<dyn Error>> {
    struct Bar {
        label: String,
        parts: [f64; 3],
    }
    let mut bars = Vec::new();
    for row in rows.iter().filter(|row| row.concurrency == at_once) {
        let whole = 1e6 / row.calls_per_second;
        let Some(server) = row.detail.server else { continue };
        for (end, usage) in [("client", row.detail.client), ("server", server)] {
            let waiting = (whole - usage.cpu_us()).max(0.0);
            bars.push(Bar {
                label: format!("{}, {end}", row.cell().series()),
                parts: [usage.user_us, usage.system_us, waiting],
            });
        }
    }
    if bars.is_empty() {
        return Ok(None);
    }
    let most = bars.iter().map(|bar| bar.parts.iter().sum()).fold(0.0, f64::max);
    let time = Axis::from_zero(most, |us| format!("{} µs", figure_short(us)));
    let colours = [SAMEHOST.rgb(), TONIC.rgb(), WAITING.rgb()];
    let height = 90 + 22 * bars.len() as u32;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (SIZE.0, height)).into_drawing_area();
        root.fill(&PAPER.rgb())?;
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .margin_right(LEGEND_WIDTH)
            .x_label_area_size(40)
            .set_label_area_size(LabelAreaPosition::Left, 170)
            .build_cartesian_2d(time.clone(), 0.0..bars.len() as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_label_formatter(&|us| (time.label)(*us))
            .axis_style(INK.rgb())
            .bold_line_style(GRID.rgb())
            .label_style(label())
            .draw()?;
        for (index, bar) in bars.iter().enumerate() {
            // From the top down, the two of a series next to each other.
            let gap = if index % 2 == 0 { (0.25, 0.04) } else { (0.04, 0.25) };
            let top = (bars.len() - index) as f64 - gap.0;
            let bottom = (bars.len() - index - 1) as f64 + gap.1;
            let mut from = 0.0;
            for (part, colour) in bar.parts.iter().zip(colours) {
                let corners = [(from, top), (from + part, bottom)];
                chart.draw_series([Rectangle::new(corners, colour.filled())])?;
                from += part;
            }
            let (x, y) = chart.backend_coord(&(0.0, (top + bottom) / 2.0));
            let text = label().pos(Pos::new(HPos::Right, VPos::Center));
            root.draw(&Text::new(bar.label.clone(), (x - 8, y), text))?;
        }
        for (index, name) in ["in the program", "in the kernel", "waiting"].into_iter().enumerate()
        {
            let (x, y) = legend_entry(index);
            let corners = [(x, y - 5), (x + 14, y + 5)];
            root.draw(&Rectangle::new(corners, colours[index].filled()))?;
            legend_text(&root, index, name)?;
        }
        root.present()?;
    }
    Ok(Some(Plot {
        name: "time",
        title: "Where a call's time goes".to_owned(),
        caption:
            "What client and server do from one call to the next, one call at a time: CPU time \
                  by getrusage(2), and the rest, in which a process waits for the other one or for \
                  its CPU to wake up. A process that spins does not wait."
                .to_owned(),
        svg: with_variables(&svg),
    }))
}

#[derive(Clone)]
struct Axis {
    ends: Range<f64>,
    ticks: Vec<f64>,
    /// What is in proportion to the place of a value.
    scale: fn(f64) -> f64,
    label: fn(f64) -> String,
}

impl Axis {
    /// Of values across: a tick for each that there is, the same distance for the same factor.
    fn of_what_was_measured(lines: &[Line], label: fn(f64) -> String) -> Self {
        let values = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
        let mut ticks: Vec<_> = values.collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        Self { ends: range(lines, |point| point.0), ticks, scale: f64::log2, label }
    }

    /// Of values upwards, all above zero.
    fn logarithmic(lines: &[Line], label: fn(f64) -> String) -> Self {
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
        Self { ticks: fine, ends, scale: f64::log10, label }
    }

    /// From nothing to a little above the most, in proportion.
    fn from_zero(most: f64, label: fn(f64) -> String) -> Self {
        let most = most * 1.05;
        let power = 10f64.powf((most / 8.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
        let step = steps.into_iter().find(|step| most / step <= 8.0).unwrap_or(most);
        let ticks = (0..=(most / step) as u32).map(|tick| f64::from(tick) * step).collect();
        Self { ends: 0.0..most, ticks, scale: |value| value, label }
    }
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

/// Draws the lines, with a dot for each point if `dots`.
fn draw(lines: &[Line], x: &Axis, y: &Axis, dots: bool) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&PAPER.rgb())?;
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .margin_right(LEGEND_WIDTH)
            .x_label_area_size(32)
            .y_label_area_size(78)
            .build_cartesian_2d(x.clone(), y.clone())?;
        chart
            .configure_mesh()
            .x_label_formatter(&|value| (x.label)(*value))
            .y_label_formatter(&|value| (y.label)(*value))
            .axis_style(INK.rgb())
            .bold_line_style(GRID.rgb())
            .label_style(label())
            .draw()?;
        for (index, line) in lines.iter().enumerate() {
            let style = line.colour().stroke_width(2);
            let points = line.points.iter().copied();
            if dots {
                let dot = |point| Circle::new(point, 3, line.colour().filled());
                chart.draw_series(points.clone().map(dot))?;
            }
            let (left, height) = legend_entry(index);
            let sample = [(left, height), (left + 22, height)];
            match line.dashes() {
                Some((stroke, gap)) => {
                    chart.draw_series(DashedLineSeries::new(points, stroke, gap, style))?;
                    let sample = sample.into_iter();
                    root.draw(&DashedPathElement::new(sample, stroke, gap, style))?;
                }
                None => {
                    chart.draw_series(LineSeries::new(points, style))?;
                    root.draw(&PathElement::new(sample, style))?;
                }
            }
            legend_text(&root, index, &line.series.to_string())?;
        }
        root.present()?;
    }
    Ok(with_variables(&svg))
}

fn label() -> TextStyle<'static> {
    ("sans-serif", 13).into_font().color(&INK.rgb())
}

fn legend_entry(index: usize) -> (i32, i32) {
    ((SIZE.0 - LEGEND_WIDTH) as i32 + 14, 24 + 22 * index as i32)
}

fn legend_text<DB: DrawingBackend>(
    root: &DrawingArea<DB, plotters::coord::Shift>,
    index: usize,
    text: &str,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    let (x, y) = legend_entry(index);
    let style = label().pos(Pos::new(HPos::Left, VPos::Center));
    root.draw(&Text::new(text.to_owned(), (x + 30, y), style))
}

/// Puts the variables in place of the colours that stand for them, and their values at the start.
fn with_variables(svg: &str) -> String {
    let mut svg = svg.to_owned();
    for Colour(number, variable) in COLOURS {
        svg = svg.replace(&format!("\"#{number:02X}0000\""), &format!("\"{variable}\""));
    }
    match svg.split_once('>') {
        Some((start, rest)) => format!("{start} role=\"img\">\n<style>{STYLE}</style>{rest}"),
        None => svg,
    }
}

/// `99.9 %` for three nines.
fn percentile(nines: f64) -> String {
    let percent = 100.0 - 100.0 * 10f64.powf(-nines);
    format!("{} %", (percent * 1e4).round() / 1e4)
}

/// `16 KiB`: a power of two.
fn bytes(number: f64) -> String {
    match number {
        small if small < 1024.0 => format!("{small} B"),
        medium if medium < 1024.0 * 1024.0 => format!("{} KiB", medium / 1024.0),
        large => format!("{} MiB", large / 1024.0 / 1024.0),
    }
}

/// `10 MB`: a power of ten.
fn decimal_bytes(number: f64) -> String {
    match number {
        small if small < 1e6 => format!("{} kB", figure_short(small / 1e3)),
        medium if medium < 1e9 => format!("{} MB", figure_short(medium / 1e6)),
        large => format!("{} GB", figure_short(large / 1e9)),
    }
}

/// As [`figure`], without zeros at the end.
fn figure_short(value: f64) -> String {
    let text = figure(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::Cell;
    use super::super::report::tests::{CELL, row};
    use super::*;

    #[test]
    fn what_was_measured_is_plotted() {
        let mut rows = Vec::new();
        for transport in Transport::ALL {
            for (concurrency, calls) in [(1, 1000.0), (16, 9000.0)] {
                rows.push(row(Cell { transport, concurrency, ..CELL }, calls));
            }
            for payload in [64, 1024] {
                let kind = Kind::Bulk;
                rows.push(row(Cell { transport, kind, payload, concurrency: 1, ..CELL }, 5e4));
            }
        }
        let plots = plots(&rows).unwrap();
        let names: Vec<_> = plots.iter().map(|plot| plot.name).collect();
        assert_eq!(names, ["latency", "latency-many", "calls", "time", "bytes"]);
        for plot in &plots {
            assert!(plot.svg.contains("samehost UDS"), "{}", plot.name);
            assert!(plot.svg.contains("var(--ink)"), "{}", plot.name);
            assert!(!plot.svg.contains("\"#0"), "a colour without a variable: {}", plot.name);
        }
        assert!(super::plots(&[]).unwrap().is_empty());
        let names = |rows: &[Row]| -> Vec<_> {
            super::plots(rows).unwrap().iter().map(|plot| plot.name).collect()
        };
        assert_eq!(names(&rows[..1]), ["latency", "time"]);
        // A run that was interrupted, and one of a server that can't be asked.
        let tcp = Cell { transport: Transport::Tcp, ..rows[1].cell() };
        let mut two = [rows[0].clone(), row(tcp, 1.0)];
        two.iter_mut().for_each(|row| row.detail.server = None);
        assert_eq!(names(&two), ["latency", "latency-many"]);
    }

    #[test]
    fn ticks_are_round() {
        let lines = |most: f64| {
            let points = vec![(1.0, most / 50.0), (16.0, most)];
            [Line { series: CELL.series(), points }]
        };
        let axis = Axis::from_zero(83_000.0, thousands);
        assert_eq!(axis.ticks.last(), Some(&80_000.0));
        let axis = Axis::logarithmic(&lines(1000.0), thousands);
        assert_eq!(axis.ticks, [20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        let places = [20.0, 100.0, 500.0].map(|value| axis.map(&value, (300, 0)));
        assert_eq!(
            places[0] - places[1],
            places[1] - places[2],
            "the same factor, the same distance"
        );
        let axis = Axis::of_what_was_measured(&lines(1.0), thousands);
        assert_eq!(axis.ticks, [1.0, 16.0]);
    }

    #[test]
    fn axes_have_round_figures() {
        let percentiles = [0.0, 1.0, 2.0, 3.0, 4.0].map(percentile);
        assert_eq!(percentiles, ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        assert_eq!([64.0, 16384.0, 16777216.0].map(bytes), ["64 B", "16 KiB", "16 MiB"]);
        assert_eq!([1e5, 1e7, 2.5e9].map(decimal_bytes), ["100 kB", "10 MB", "2.5 GB"]);
    }
}
