//! Parses the values of the command's options: durations, modes, groups, sizes and lists.

use std::fmt::Display;
use std::num::{IntErrorKind, ParseIntError};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use nix::unistd::{self, User};
use samehost::Address;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::failure::in_options;

/// The longest duration that is accepted: a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Parses a duration: `50us`, `1.5ms`, `2s`, `3m`, or a number of seconds without a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 50us, 1.5ms, 2s or a number of seconds");
    let unit_at = text.find(char::is_alphabetic).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds_per_unit = match unit {
        "ns" => 1e-9,
        // With the micro sign or with the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    if number < 0.0 {
        return Err(format!("{text:?} is negative: a duration is zero or more"));
    }
    match Duration::try_from_secs_f64(number * seconds_per_unit) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err(format!("{text:?} is too long: a year at most")),
        Err(_) => Err(wrong()),
    }
}

/// Parses a [`duration`] longer than zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("{text:?} is zero: give a longer duration")),
        duration => Ok(duration),
    }
}

/// Parses an address.
pub(crate) fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error: samehost::AddressParseError| in_options(&error.to_string()))
}

/// Parses a number of something.
pub(crate) fn number<T>(text: &str, what: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "{text:?} is no number of {what}: write {} to {}",
            range.start(),
            range.end()
        )),
    }
}

/// Parses a number of at least one.
pub(crate) fn count<T>(text: &str) -> Result<T, String>
where
    T: FromStr<Err = ParseIntError> + PartialOrd + From<u8>,
{
    match text.parse::<T>() {
        Ok(count) if count >= T::from(1) => Ok(count),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(format!("{text:?} is too large: write a smaller number"))
        }
        _ => Err(format!("{text:?} is no number from 1 on: write 1 or more")),
    }
}

/// Parses a number of bytes that is at least one.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    count(text).map_err(|error| match text.ends_with(|c: char| c.is_alphabetic()) {
        true => format!("{text:?} has a unit: write the number of bytes, such as 268435456"),
        false => error,
    })
}

/// Parses a number of threads.
pub(crate) fn threads(text: &str) -> Result<u16, String> {
    number(text, "threads", 1..=1024)
}

/// Parses what is to be logged. A word of its own is a level: as the name of a target, which the
/// parser of filters would take it for, it would turn all other logging off.
pub(crate) fn log_filter(text: &str) -> Result<EnvFilter, String> {
    const LEVELS: &str = "write error, warn, info, debug, trace, off, or samehost=debug";
    let mut directives = text.split(',').map(str::trim).filter(|part| !part.is_empty()).peekable();
    if directives.peek().is_none() {
        return Err(format!("no level is given: {LEVELS}"));
    }
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_word = |part: &&str| !part.contains(['=', '[', ']', '{', '}']) && !part.contains("::");
    if let Some(word) = directives.filter(is_word).find(|word| !is_level(word)) {
        let hint = if word.eq_ignore_ascii_case("warning") { "did you mean warn? " } else { "" };
        return Err(format!("{word:?} is no level: {hint}{LEVELS}"));
    }
    EnvFilter::try_new(text).map_err(|error| format!("{text:?} is no filter ({error}): {LEVELS}"))
}

/// Parses permission bits in octal, as chmod(1) does.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        // `from_str_radix` would accept a plus sign.
        Ok(mode) if mode <= 0o777 && digits.starts_with(|c: char| c.is_ascii_digit()) => Ok(mode),
        _ => Err(format!("{text:?} is no mode: write octal permission bits, such as 0660")),
    }
}

/// Parses a user's name or number, and returns the number.
pub(crate) fn user(text: &str) -> Result<u32, String> {
    id("user", text, |name| Ok(User::from_name(name)?.map(|user| user.uid.as_raw())))
}

/// Parses a group's name or number, and returns the number.
pub(crate) fn group(text: &str) -> Result<u32, String> {
    id("group", text, |name| Ok(unistd::Group::from_name(name)?.map(|group| group.gid.as_raw())))
}

fn id(
    kind: &str,
    text: &str,
    look_up: impl FnOnce(&str) -> nix::Result<Option<u32>>,
) -> Result<u32, String> {
    let id = match text.parse() {
        // No user and no group has this id: chown(2) takes it to mean "leave it as it is".
        Ok(u32::MAX) => None,
        Ok(id) => Some(id),
        Err(_) => look_up(text).map_err(|error| {
            format!("the {kind} {text:?} cannot be looked up ({error}): give its number")
        })?,
    };
    id.ok_or_else(|| format!("there is no {kind} {text:?}: create it or give its number"))
}

/// Parses the size of a payload that fits the default message limit of 4 MiB with the fields around
/// it.
pub(crate) fn payload(text: &str) -> Result<usize, String> {
    payload_up_to(4 * 1024 * 1024 - 64, "the message limit of 4 MiB", text)
}

/// The largest payload that `bench` sends in a message without `--memory`, in bytes.
pub(crate) const PAYLOAD_MAX: usize = 16 * 1024 * 1024;

/// The largest payload of `bench --memory`, in each way that it is handed over, in bytes.
pub(crate) const MEMORY_MAX: usize = 64 * 1024 * 1024;

/// Parses the size of a payload of `bench`, up to the largest that `--memory` allows.
pub(crate) fn memory_payload(text: &str) -> Result<usize, String> {
    payload_up_to(MEMORY_MAX, "64 MiB", text)
}

fn payload_up_to(max: usize, limit: &str, text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if bytes <= max => Ok(bytes),
        Ok(_) => Err(format!("{text} bytes are over {limit}: {max} at most")),
        Err(_) => Err(format!("{text:?} is no size in bytes: write 0 to {max}")),
    }
}

/// The values of an option that takes several: at least one, and each only once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

/// Parses a comma-separated [`List`], whose values `item` parses.
pub(crate) fn list<T: PartialEq>(
    text: &str,
    item: impl Fn(&str) -> Result<T, String>,
) -> Result<List<T>, String> {
    let mut values = Vec::new();
    for part in text.split(',') {
        if part.is_empty() {
            return Err("a value is missing: write a list such as 1,2,3".to_owned());
        }
        let value = item(part)?;
        if values.contains(&value) {
            return Err(format!("{part} is there twice: give each value once"));
        }
        values.push(value);
    }
    Ok(List(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, nanoseconds) in [
            ("50us", 50_000),
            ("50\u{b5}s", 50_000),
            ("50\u{3bc}s", 50_000),
            ("1.5ms", 1_500_000),
            ("2s", 2_000_000_000),
            ("0.25", 250_000_000),
            ("0", 0),
            ("3m", 180_000_000_000),
            ("10ns", 10),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1x", "1 s", "inf", "nan", "1e400", "400000h", "1e3x"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0us").is_err());
    }

    #[test]
    fn a_word_in_a_filter_is_a_level() {
        for text in [
            "error",
            "WARN",
            "off",
            "samehost=debug",
            "samehost[connection]=debug",
            "warn,samehost::server=info",
            "info,samehost[call{method=\"x\"}]=trace",
            "samehost::server",
            "[connection]",
        ] {
            assert!(log_filter(text).is_ok(), "{text}");
        }
        for text in ["warning", "verbose", "loud", "9", "", " ", ",", "info,loud", "samehost"] {
            let refused = log_filter(text).unwrap_err();
            assert!(refused.contains("write error, warn, info, debug, trace, off"), "{refused}");
            assert_eq!(refused.contains("did you mean warn?"), text == "warning", "{refused}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0600"), Ok(0o600));
        assert_eq!(mode("660"), Ok(0o660));
        assert_eq!(mode("0o777"), Ok(0o777));
        for text in ["", "8", "+600", "-1", "1777", "rw"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_have_each_value_once() {
        let parse = |text: &str| list(text, payload);
        assert_eq!(parse("1024"), Ok(List(vec![1024])));
        assert_eq!(parse("0,64,4096"), Ok(List(vec![0, 64, 4096])));
        for text in ["", ",", "1,", ",1", "1,,2", "1,01", "1 2", "-1", "1,4194304"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn users_and_groups_become_numbers() {
        assert_eq!((user("root"), group("root")), (Ok(0), Ok(0)));
        assert_eq!((user("12"), group("4294967294")), (Ok(12), Ok(u32::MAX - 1)));
        for text in ["", "-1", "no such name", "4294967295", "4294967296"] {
            assert!(user(text).is_err() && group(text).is_err(), "{text}");
        }
    }
}
