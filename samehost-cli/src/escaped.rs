//! Escapes text that a peer may have chosen, for a terminal or a log: characters that move the
//! cursor, change colours, begin a line or change the direction of writing.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns the text with such characters escaped, as `\n`, `\u{1b}` and the like.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unfit) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            unfit if is_unfit(unfit) => {
                let _ = write!(escaped, "{}", unfit.escape_default());
            }
            fit => escaped.push(fit),
        }
    }
    Cow::Owned(escaped)
}

/// Returns whether a character is a control (C0, DEL, C1), a line or paragraph separator, or sets
/// the direction of writing (UAX #9 §2).
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped_and_the_rest_is_not() {
        for (text, shown) in [
            ("plain text, ünïcode: 漢字 × µ \\ \"'", "plain text, ünïcode: 漢字 × µ \\ \"'"),
            ("\x1b[31mred\x07", "\\u{1b}[31mred\\u{7}"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("\u{202e}txt.exe\u{2066}", "\\u{202e}txt.exe\\u{2066}"),
            ("one\u{2028}two", "one\\u{2028}two"),
        ] {
            assert_eq!(escaped(text), shown);
        }
    }
}
