//! Draws the plots that consist of lines.

use plotters::prelude::*;

use super::super::cell::Transport;
use super::axis::Axis;
use super::frame::{Frame, MARGIN, RIGHT, Result, Y_FIGURES, text_style};
use super::line::Line;
use super::style::{GRID, INK, colour_of};

/// The height of the drawing between the axes, in pixels.
const PLOT_HEIGHT: u32 = 290;

/// The height of the figures below.
const X_FIGURES: u32 = 28;

/// More points than this are drawn as a curve, without a dot for each.
const DOTS_MAX: usize = 20;

/// The lengths of strokes and gaps of a dashed line.
const DASHES: (i32, i32) = (6, 4);

/// Draws the lines. Those of TCP are dashed.
pub(super) fn draw_lines(frame: &Frame, lines: &[Line], x: &Axis, y: &Axis) -> Result<String> {
    frame.draw(MARGIN + PLOT_HEIGHT + X_FIGURES, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_top(MARGIN)
            .margin_left(MARGIN)
            .margin_right(RIGHT)
            .x_label_area_size(X_FIGURES)
            .y_label_area_size(Y_FIGURES)
            .build_cartesian_2d(x.clone(), y.clone())?;
        chart
            .configure_mesh()
            .x_label_formatter(&|value| (x.label)(*value))
            .y_label_formatter(&|value| (y.label)(*value))
            .axis_style(INK.rgb())
            .bold_line_style(GRID.rgb())
            .label_style(text_style())
            .draw()?;
        for line in lines {
            let colour = colour_of(line.series).rgb();
            let style = colour.stroke_width(3);
            let points = line.points.iter().copied();
            if line.points.len() <= DOTS_MAX {
                let dot = |point| Circle::new(point, 4, colour.filled());
                chart.draw_series(points.clone().map(dot))?;
            }
            let (stroke, gap) = DASHES;
            match line.series.transport {
                Transport::Tcp => {
                    chart.draw_series(DashedLineSeries::new(points, stroke, gap, style))?
                }
                Transport::Uds => chart.draw_series(LineSeries::new(points, style))?,
            };
        }
        Ok(())
    })
}
