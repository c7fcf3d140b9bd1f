//! Text for a terminal of some width: lines are broken between words.

/// The width of a terminal that does not report its width.
const USUAL_WIDTH: usize = 80;

/// Narrower terminals are treated as if they had this width.
const LEAST_WIDTH: usize = 60;

/// Returns how wide lines on standard output may be.
pub(super) fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    // A pager or a pipe gets this width.
    let told = || std::env::var("COLUMNS").ok()?.parse().ok();
    columns.or_else(told).unwrap_or(USUAL_WIDTH).max(LEAST_WIDTH)
}

/// Breaks lines that are longer than `width` characters between words.
pub(super) fn wrapped(text: &str, width: usize) -> String {
    text.lines().map(|line| wrapped_line(line, width)).collect::<Vec<_>>().join("\n")
}

fn wrapped_line(line: &str, width: usize) -> String {
    let (mut text, mut column) = (String::new(), 0);
    for word in line.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text += word;
        column += length;
    }
    text
}

/// Returns a number of bytes, in powers of two: `1 KiB`.
pub(super) fn size(bytes: usize) -> String {
    const KIB: usize = 1024;
    match bytes {
        mib if mib >= KIB * KIB && mib % (KIB * KIB) == 0 => format!("{} MiB", mib / KIB / KIB),
        kib if kib >= KIB && kib % KIB == 0 => format!("{} KiB", kib / KIB),
        other => format!("{other} B"),
    }
}

/// Returns how many characters the longest line has.
pub(super) fn widest(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two() {
        let sizes = [0, 1000, 1024, 65_536, 1 << 20, 16 << 20, (1 << 20) + 1].map(size);
        assert_eq!(sizes, ["0 B", "1000 B", "1 KiB", "64 KiB", "1 MiB", "16 MiB", "1048577 B"]);
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("one two three", 7), "one two\nthree");
        assert_eq!(wrapped("one two\nthree", 80), "one two\nthree");
        assert_eq!(wrapped("much-too-long to fit", 4), "much-too-long\nto\nfit");
        assert_eq!(wrapped("", 4), "");
        assert_eq!(widest(&wrapped("µs × µs × µs", 6)), 4);
    }
}
