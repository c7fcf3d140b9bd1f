//! Writes and reads `%XX` in paths and abstract names, for bytes that are not printable ASCII.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::error::{AddressParseError, AddressParseErrorKind as E};

/// What addresses begin with, before a colon.
const SCHEMES: [&str; 7] = ["unix", "unix-abstract", "ipv4", "ipv6", "dns", "http", "https"];

/// Returns whether several addresses are in one text.
pub(super) fn is_list(text: &str) -> bool {
    let mut rest = text.split(is_separator);
    rest.next();
    rest.any(|text| begins_with_scheme(text.as_bytes()))
}

/// Returns whether people put this between addresses.
fn is_separator(letter: char) -> bool {
    matches!(letter, ',' | ';') || letter.is_whitespace()
}

fn begins_with_scheme(text: &[u8]) -> bool {
    let rest = |scheme: &&str| text.strip_prefix(scheme.as_bytes());
    SCHEMES.iter().filter_map(rest).any(|rest| rest.starts_with(b":"))
}

/// Returns whether it is a scheme. Before a port it would not be read as a host.
pub(super) fn is_scheme(host: &str) -> bool {
    SCHEMES.contains(&host)
}

/// Writes bytes so that [`unescape`] reads them back. Printable ASCII stays as it is, except
/// characters with a meaning in a URI, and a comma or semicolon that would begin another address.
pub(super) fn write_escaped(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for (index, &byte) in bytes.iter().enumerate() {
        let is_special = match byte {
            b'%' | b'?' | b'#' => true,
            _ => is_separator(char::from(byte)) && begins_with_scheme(&bytes[index + 1..]),
        };
        if byte.is_ascii_graphic() && !is_special {
            f.write_char(char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

/// Replaces each `%XX` by the byte of that value.
pub(super) fn unescape(input: &str, text: &str) -> Result<Vec<u8>, AddressParseError> {
    if text.contains(['?', '#']) {
        let text = "write ? as %3F and # as %23";
        return Err(AddressParseError::new(E::QueryOrFragment, input, text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            let text = "% must be followed by two hexadecimal digits: write a plain % as %25";
            return Err(AddressParseError::new(E::InvalidEscape, input, text));
        };
        out.push((high * 16 + low) as u8);
    }
    Ok(out)
}

/// Shows a path with the same escapes as in an [`Address`](super::Address).
pub(crate) fn shown_path(path: &Path) -> impl fmt::Display + '_ {
    struct Escaped<'a>(&'a OsStr);
    impl fmt::Display for Escaped<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_escaped(f, self.0.as_bytes())
        }
    }
    Escaped(path.as_os_str())
}
