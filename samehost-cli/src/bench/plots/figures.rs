//! Figures at an axis or a bar: short and round.

use super::super::table::figure;
use super::super::text::size;

/// Returns `99.9 %` for three nines.
pub(super) fn percentile(nines: f64) -> String {
    let percent = 100.0 - 100.0 * 10f64.powf(-nines);
    format!("{} %", (percent * 1e4).round() / 1e4)
}

/// Returns `16 KiB`: a power of two.
pub(in super::super) fn size_of(bytes: f64) -> String {
    size(bytes as usize)
}

/// Returns `10 MB`: a power of ten.
pub(super) fn decimal_bytes(number: f64) -> String {
    match number {
        small if small < 1e6 => format!("{} kB", figure_short(small / 1e3)),
        medium if medium < 1e9 => format!("{} MB", figure_short(medium / 1e6)),
        large => format!("{} GB", figure_short(large / 1e9)),
    }
}

/// Returns `400k` for four hundred thousand.
pub(super) fn short(number: f64) -> String {
    match number {
        small if small < 1e4 => figure_short(small),
        medium if medium < 1e6 => format!("{}k", figure_short(medium / 1e3)),
        large => format!("{}M", figure_short(large / 1e6)),
    }
}

/// Returns the same as [`figure`], without zeros at the end.
pub(super) fn figure_short(value: f64) -> String {
    let text = figure(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_round() {
        let percentiles = [0.0, 1.0, 2.0, 3.0, 4.0].map(percentile);
        assert_eq!(percentiles, ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        assert_eq!([64.0, 16384.0, 16777216.0].map(size_of), ["64 B", "16 KiB", "16 MiB"]);
        assert_eq!([1e5, 1e7, 2.5e9].map(decimal_bytes), ["100 kB", "10 MB", "2.5 GB"]);
        assert_eq!(
            [0.0, 0.5, 2000.0, 4e5, 1.2e6].map(short),
            ["0", "0.5", "2,000", "400k", "1.2M"]
        );
    }
}
