//! Writes and reads `%XX` in paths and abstract names, for bytes that are not printable ASCII.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::error::{AddressParseError, AddressParseErrorKind as E};

/// Writes bytes so that [`unescape`] reads them back. Printable ASCII stays as it is, except
/// characters with a meaning in a URI.
pub(super) fn write_escaped(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for &byte in bytes {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b'?' | b'#') {
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
