//! [`Frame`]: everything around the drawing: title, conditions, titles of the axes, legend.
//!
//! The file scales with its container. Its texts are large enough to be read where it is shown 400 pixels
//! wide, as on a phone.

use std::error::Error;

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::text::wrapped;
use super::style::{Colour, GRID, INK, PAPER, finished};

/// In pixels, like all sizes here.
pub(super) const WIDTH: u32 = 560;
/// The margin on all sides.
pub(super) const MARGIN: u32 = 12;
/// The width of the figures beside a vertical axis.
pub(super) const Y_FIGURES: u32 = 66;
/// Room for half of the last figure below a horizontal axis.
pub(super) const RIGHT: u32 = 36;
/// The width between the axes.
pub(super) const PLOT_WIDTH: u32 = WIDTH - MARGIN - Y_FIGURES - RIGHT;

const TITLE_SIZE: f64 = 20.0;
pub(super) const TEXT_SIZE: f64 = 15.0;
const TITLE_LINE: u32 = 27;
const LINE: u32 = 21;
const LEGEND_LINE: u32 = 25;

/// The width of an average character of a wide font, as a fraction of its size.
const CHARACTER: f64 = 0.58;

/// The result of drawing.
pub(super) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A drawing area of the file.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The texts around a drawing.
pub(super) struct Frame {
    pub(super) title: String,
    pub(super) conditions: Vec<String>,
    /// The title of the vertical axis, or empty.
    pub(super) above: String,
    /// The title of the horizontal axis, or empty.
    pub(super) below: String,
    pub(super) legend: Vec<Entry>,
}

pub(super) struct Entry {
    pub(super) sample: LegendMark,
    pub(super) text: String,
}

pub(super) enum LegendMark {
    Box(Colour),
    Stroke { dashed: bool },
}

impl Frame {
    /// Returns the file, with what `body` draws on an area of this height.
    pub(super) fn draw(
        &self,
        height: u32,
        body: impl FnOnce(&Area<'_>) -> Result<()>,
    ) -> Result<String> {
        let titles = lines(&self.title, TITLE_SIZE * 1.08);
        let conditions: Vec<_> =
            self.conditions.iter().flat_map(|text| lines(text, TEXT_SIZE)).collect();
        let above = u32::from(!self.above.is_empty()) * LINE;
        let below = u32::from(!self.below.is_empty()) * (LINE + 3);
        let legend = self.legend.len().div_ceil(2) as u32 * LEGEND_LINE;
        let head = MARGIN + titles.len() as u32 * TITLE_LINE + conditions.len() as u32 * LINE + 10;
        let total = head + above + height + below + legend + MARGIN;
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, total)).into_drawing_area();
            root.fill(&PAPER.rgb())?;
            let mut y = MARGIN as i32;
            for title in &titles {
                write(&root, title, (MARGIN as i32, y), &title_style())?;
                y += TITLE_LINE as i32;
            }
            for line in &conditions {
                write(&root, line, (MARGIN as i32, y), &text_style())?;
                y += LINE as i32;
            }
            y += 10;
            write(&root, &self.above, (MARGIN as i32, y), &text_style())?;
            y += above as i32;
            body(&root.clone().shrink((0, y), (WIDTH, height)))?;
            y += height as i32;
            let centred = text_style().pos(Pos::new(HPos::Center, VPos::Top));
            let middle = (MARGIN + Y_FIGURES + PLOT_WIDTH / 2) as i32;
            write(&root, &self.below, (middle, y + 3), &centred)?;
            y += below as i32 + 8;
            for (index, entry) in self.legend.iter().enumerate() {
                let column = (index % 2) as i32 * (WIDTH as i32 - 2 * MARGIN as i32) / 2;
                let row = (index / 2) as i32 * LEGEND_LINE as i32;
                entry.draw(&root, (MARGIN as i32 + column, y + row + LINE as i32 / 2))?;
            }
            root.present()?;
        }
        Ok(finished(&svg, &format!("{}. {}", self.title, self.conditions.join(". "))))
    }
}

impl Entry {
    fn draw(&self, root: &Area<'_>, (x, y): (i32, i32)) -> Result<()> {
        match self.sample {
            LegendMark::Box(colour) => {
                let corners = [(x + 4, y - 7), (x + 20, y + 7)];
                root.draw(&Rectangle::new(corners, colour.rgb().filled()))?;
            }
            LegendMark::Stroke { dashed } => {
                let ends = [(x, y), (x + 26, y)];
                let stroke = INK.rgb().stroke_width(2);
                match dashed {
                    true => root.draw(&DashedPathElement::new(ends, 6, 4, stroke))?,
                    false => root.draw(&PathElement::new(ends, stroke))?,
                }
            }
        }
        let style = text_style().pos(Pos::new(HPos::Left, VPos::Center));
        write(root, &self.text, (x + 34, y), &style)
    }
}

/// Returns the lines that a text has in this file.
fn lines(text: &str, size: f64) -> Vec<String> {
    let room = f64::from(WIDTH - 2 * MARGIN) / (size * CHARACTER);
    wrapped(text, room as usize).lines().map(str::to_owned).collect()
}

/// Returns approximately how wide a text of the usual size is.
pub(super) fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * TEXT_SIZE * CHARACTER
}

/// Writes nothing for an empty text.
pub(super) fn write(
    area: &Area<'_>,
    text: &str,
    place: (i32, i32),
    style: &TextStyle<'_>,
) -> Result<()> {
    if !text.is_empty() {
        area.draw(&Text::new(text.to_owned(), place, style.clone()))?;
    }
    Ok(())
}

/// The font sizes in the SVG are smaller than the requested ones by this factor.
const BACKEND_SCALE: f64 = 1.24;

pub(super) fn text_style() -> TextStyle<'static> {
    ("sans-serif", TEXT_SIZE * BACKEND_SCALE).into_font().color(&INK.rgb())
}

pub(super) fn bold_style() -> TextStyle<'static> {
    let font = ("sans-serif", TEXT_SIZE * BACKEND_SCALE).into_font();
    font.style(FontStyle::Bold).color(&INK.rgb())
}

fn title_style() -> TextStyle<'static> {
    let font = ("sans-serif", TITLE_SIZE * BACKEND_SCALE).into_font();
    font.style(FontStyle::Bold).color(&INK.rgb())
}

pub(super) fn grid_style() -> ShapeStyle {
    GRID.rgb().stroke_width(1)
}
