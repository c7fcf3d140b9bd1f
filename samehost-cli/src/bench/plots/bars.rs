//! [`Bars`]: plots of bars with a figure at the end of each.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::figures::short;
use super::frame::{
    Area, Frame, MARGIN, Result, WIDTH, bold_style, grid_style, text_style, width_of, write,
};
use super::style::{Colour, PAPER};

/// If the longest bar is more than this many times as long as the shortest, long bars are cut.
const LENGTH_MAX: f64 = 8.0;

/// They are cut at this many times the median, or at [`LENGTH_MAX`] times the shortest.
const MEDIANS: f64 = 3.0;

/// In pixels, like all sizes here.
const HEADING: i32 = 26;
const BAR: i32 = 23;
const GAP: i32 = 12;
/// The height of the figures below an axis.
const FIGURES: i32 = 28;

pub(super) struct Bars {
    pub(super) groups: Vec<Group>,
    /// Whether all groups share one scale, with an axis below. Otherwise each has its own, without
    /// an axis.
    pub(super) is_one_scale: bool,
}

pub(super) struct Group {
    pub(super) heading: String,
    pub(super) bars: Vec<Bar>,
}

/// A colour and its value in a bar.
pub(super) type Part = (Colour, f64);

pub(super) struct Bar {
    pub(super) label: String,
    pub(super) parts: Vec<Part>,
    /// The text at its end.
    pub(super) value: String,
}

impl Bar {
    fn length(&self) -> f64 {
        self.parts.iter().map(|part| part.1).sum()
    }
}

impl Group {
    fn height(&self) -> i32 {
        HEADING + BAR * self.bars.len() as i32 + GAP
    }
}

/// Maps values to pixels.
struct Scale {
    /// Longer bars are cut at this value.
    most: f64,
    pixels: f64,
}

impl Scale {
    fn of<'a>(bars: impl Iterator<Item = &'a Bar>, pixels: f64) -> Self {
        let mut lengths: Vec<_> = bars.map(Bar::length).collect();
        lengths.sort_by(f64::total_cmp);
        let [shortest, .., longest] = lengths[..] else {
            let most = lengths.first().copied().unwrap_or(1.0);
            return Self { most, pixels };
        };
        let median = lengths[(lengths.len() - 1) / 2];
        let most = match longest > shortest * LENGTH_MAX {
            true => longest.min((shortest * LENGTH_MAX).max(median * MEDIANS)),
            false => longest,
        };
        Self { most: most.max(f64::MIN_POSITIVE), pixels }
    }

    fn place(&self, value: f64) -> i32 {
        (value.min(self.most) / self.most * self.pixels).round() as i32
    }
}

impl Bars {
    pub(super) fn draw(&self, frame: &Frame) -> Result<String> {
        let all = || self.groups.iter().flat_map(|group| &group.bars);
        let label_width = all().map(|bar| width_of(&bar.label)).fold(0.0, f64::max) + 12.0;
        let left = MARGIN as i32 + label_width as i32;
        let value_width = all().map(|bar| width_of(&bar.value)).fold(0.0, f64::max) + 10.0;
        let pixels = f64::from(WIDTH as i32 - MARGIN as i32 - left) - value_width;
        let bars_height: i32 = self.groups.iter().map(Group::height).sum();
        let axis_height = if self.is_one_scale { FIGURES } else { 0 };
        frame.draw((bars_height + axis_height) as u32, |area| {
            if self.is_one_scale {
                draw_axis(area, &Scale::of(all(), pixels), left, bars_height)?;
            }
            let mut y = 0;
            for group in &self.groups {
                let scale = match self.is_one_scale {
                    true => Scale::of(all(), pixels),
                    false => Scale::of(group.bars.iter(), pixels),
                };
                write(area, &group.heading, (MARGIN as i32, y + 3), &bold_style())?;
                y += HEADING;
                for bar in &group.bars {
                    bar.draw(area, &scale, (left, y))?;
                    y += BAR;
                }
                y += GAP;
            }
            Ok(())
        })
    }
}

fn draw_axis(area: &Area<'_>, scale: &Scale, left: i32, bottom: i32) -> Result<()> {
    let axis = Axis::from_zero(scale.most / 1.05, short);
    let below = text_style().pos(Pos::new(HPos::Center, VPos::Top));
    for &tick in axis.ticks() {
        let x = left + scale.place(tick);
        area.draw(&PathElement::new([(x, 0), (x, bottom)], grid_style()))?;
        write(area, &(axis.label)(tick), (x, bottom + 5), &below)?;
    }
    Ok(())
}

impl Bar {
    fn draw(&self, area: &Area<'_>, scale: &Scale, (left, top): (i32, i32)) -> Result<()> {
        let middle = top + BAR / 2;
        let centred = text_style().pos(Pos::new(HPos::Left, VPos::Center));
        write(area, &self.label, (MARGIN as i32, middle), &centred)?;
        let mut from = 0.0;
        for (colour, part) in &self.parts {
            let corners = [
                (left + scale.place(from), top + 2),
                (left + scale.place(from + part), top + BAR - 2),
            ];
            area.draw(&Rectangle::new(corners, colour.rgb().filled()))?;
            from += part;
        }
        let end = left + scale.place(from);
        if from > scale.most {
            // Two slanted lines show that it continues.
            for x in [end - 20, end - 12] {
                let cut = [(x, top + BAR), (x + 6, top)];
                area.draw(&PathElement::new(cut, PAPER.rgb().stroke_width(3)))?;
            }
        }
        write(area, &self.value, (end + 8, middle), &centred)
    }
}

#[cfg(test)]
mod tests {
    use super::super::style::IN_PROGRAM;
    use super::*;

    fn scale(lengths: &[f64]) -> Scale {
        let bar = |length: &f64| Bar {
            label: String::new(),
            parts: vec![(IN_PROGRAM, *length)],
            value: String::new(),
        };
        let bars: Vec<_> = lengths.iter().map(bar).collect();
        Scale::of(bars.iter(), 100.0)
    }

    #[test]
    fn a_bar_that_would_flatten_the_others_is_broken() {
        assert_eq!(scale(&[10.0, 30.0, 80.0]).most, 80.0);
        assert_eq!(scale(&[10.0, 100.0]).most, 80.0);
        assert_eq!(scale(&[5.0, 300.0, 400.0, 4000.0]).most, 900.0);
        assert_eq!(scale(&[7.0]).most, 7.0);
        let scale = scale(&[10.0, 100.0]);
        assert_eq!([10.0, 80.0, 100.0].map(|value| scale.place(value)), [13, 100, 100]);
    }
}
