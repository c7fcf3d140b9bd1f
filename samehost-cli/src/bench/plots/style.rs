//! The colours, for light and dark screens and for paper. An element has its light colour as an
//! attribute, and a CSS variable as its style. A program that knows neither variables nor media
//! queries shows the light colours.

use plotters::style::RGBColor;

use super::super::cell::{Series, Stack, Stubs};

/// A colour during drawing: its number is in the red part until [`finished`] replaces it by the
/// colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colour(u8);

struct Definition {
    colour: Colour,
    variable: &'static str,
    light: &'static str,
    dark: &'static str,
}

pub(super) const PAPER: Colour = Colour(1);
pub(super) const INK: Colour = Colour(2);
pub(super) const GRID: Colour = Colour(3);
const SAMEHOST: Colour = Colour(4);
const TONIC_STUBS: Colour = Colour(5);
const TONIC: Colour = Colour(6);
const RAW: Colour = Colour(7);
pub(super) const IN_PROGRAM: Colour = SAMEHOST;
pub(super) const IN_KERNEL: Colour = TONIC;
pub(super) const WAITING: Colour = Colour(8);
const BLOCKING: Colour = Colour(9);

#[rustfmt::skip]
const DEFINITIONS: [Definition; 9] = [
    Definition { colour: PAPER, variable: "--paper", light: "#ffffff", dark: "#0d1117" },
    Definition { colour: INK, variable: "--ink", light: "#1f2328", dark: "#e6edf3" },
    Definition { colour: GRID, variable: "--grid", light: "#d8dee4", dark: "#30363d" },
    Definition { colour: SAMEHOST, variable: "--samehost", light: "#0969da", dark: "#58a6ff" },
    Definition { colour: TONIC_STUBS, variable: "--tonic-stubs", light: "#8250df", dark: "#bc8cff" },
    Definition { colour: TONIC, variable: "--tonic", light: "#bc4c00", dark: "#f0883e" },
    Definition { colour: RAW, variable: "--raw", light: "#6e7781", dark: "#8b949e" },
    Definition { colour: WAITING, variable: "--waiting", light: "#d0d7de", dark: "#484f58" },
    Definition { colour: BLOCKING, variable: "--blocking", light: "#1a7f37", dark: "#3fb950" },
];

impl Colour {
    pub(super) const fn rgb(self) -> RGBColor {
        RGBColor(self.0, 0, 0)
    }
}

pub(super) fn colour_of(series: Series) -> Colour {
    match (series.stack, series.stubs) {
        (Stack::Samehost, Some(Stubs::Tonic)) => TONIC_STUBS,
        (Stack::Samehost, _) => SAMEHOST,
        (Stack::Blocking, _) => BLOCKING,
        (Stack::Tonic, _) => TONIC,
        (Stack::Raw, _) => RAW,
    }
}

/// Returns the variables, for a plot, or for a page that has plots in it or is in their style.
pub(in super::super) fn style() -> String {
    let variables = |value: fn(&Definition) -> &'static str| -> String {
        let one = |each: &Definition| format!("{}: {}; ", each.variable, value(each));
        DEFINITIONS.iter().map(one).collect()
    };
    format!(
        ":root {{ {}}}\n@media screen and (prefers-color-scheme: dark) {{\n:root {{ {}}}\n}}\n",
        variables(|each| each.light),
        variables(|each| each.dark)
    )
}

/// Returns the file as it is shown: with its colours, and with `title` for people who cannot see
/// it.
pub(super) fn finished(drawn: &str, title: &str) -> String {
    let mut svg = drawn.to_owned();
    for Definition { colour: Colour(number), variable, light, .. } in &DEFINITIONS {
        for attribute in ["fill", "stroke"] {
            svg = svg.replace(
                &format!("{attribute}=\"#{number:02X}0000\""),
                &format!("{attribute}=\"{light}\" style=\"{attribute}:var({variable})\""),
            );
        }
    }
    match svg.split_once('>') {
        Some((start, rest)) => format!(
            "{start} role=\"img\">\n<title>{}</title>\n<style>{}</style>{rest}",
            title.replace('&', "&amp;").replace('<', "&lt;"),
            style()
        ),
        None => svg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_colour_has_its_place() {
        for (index, definition) in DEFINITIONS.iter().enumerate() {
            assert_eq!(usize::from(definition.colour.0), index + 1);
        }
        let svg = finished("<svg a=\"b\"><rect fill=\"#020000\"/></svg>", "A & B");
        assert!(svg.starts_with("<svg a=\"b\" role=\"img\">\n<title>A &amp; B</title>"), "{svg}");
        assert!(svg.contains("fill=\"#1f2328\" style=\"fill:var(--ink)\""), "{svg}");
    }
}
