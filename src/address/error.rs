//! [`AddressParseError`]: why a string is no [`Address`](super::Address), and what to write instead.

use std::convert::Infallible;
use std::fmt::{self, Write as _};

/// Why something is no [`Address`](super::Address). The message shows it and says what to write
/// instead, on one line.
#[derive(Clone, PartialEq, Eq)]
pub struct AddressParseError {
    kind: AddressParseErrorKind,
    input: String,
    /// What follows the input in the message: what is wrong and what to write.
    text: String,
}

/// What is wrong with a string that is no [`Address`](super::Address).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressParseErrorKind {
    /// Nothing was given.
    Empty,
    /// A Unix address has no path.
    EmptyPath,
    /// A Unix path has a NUL byte, which no file name can hold.
    NulInPath,
    /// `unix://` is followed by something other than an absolute path.
    UnixHost,
    /// An abstract name is empty or longer than 107 bytes.
    AbstractNameLength,
    /// `unix-abstract://`: an abstract name follows its colon directly.
    AbstractHost,
    /// A `%` is not followed by two hexadecimal digits.
    InvalidEscape,
    /// A Unix address has a plain `?` or `#`, which other gRPC implementations take for a query.
    QueryOrFragment,
    /// A file path has no scheme.
    BarePath,
    /// A TCP address has no port.
    MissingPort,
    /// A port is not a number from 0 to 65535.
    InvalidPort,
    /// An IPv6 address has no brackets.
    UnbracketedIpv6,
    /// An IPv4 address, an IPv6 address or a host name is not valid.
    InvalidHost,
    /// A URI has a path, or names a DNS server.
    NotHostPort,
    /// `https:`: there is no TLS.
    Tls,
    /// Several addresses are in one string.
    List,
    /// The scheme is not known.
    UnknownScheme,
}

impl AddressParseError {
    /// The message is `input: text`.
    pub(super) fn new(
        kind: AddressParseErrorKind,
        input: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self { kind, input: input.into(), text: text.into() }
    }

    /// What is wrong.
    pub fn kind(&self) -> AddressParseErrorKind {
        self.kind
    }

    /// What was to be parsed. A path or a name that is not UTF-8 has replacement characters.
    pub fn input(&self) -> &str {
        &self.input
    }
}

impl fmt::Display for AddressParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.input.is_empty() {
            return f.write_str(&self.text);
        }
        write!(f, "{}: {}", Shown(&self.input), Shown(&self.text))
    }
}

/// The message, as `main` prints the error that it returns.
impl fmt::Debug for AddressParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for AddressParseError {}

/// For functions that take whatever becomes an [`Address`](super::Address): an `Address` itself
/// cannot fail to be one.
impl From<Infallible> for AddressParseError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Text from outside on one line of an error message: control characters escaped, length bounded.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 256;
        for (index, c) in self.0.chars().enumerate() {
            if index == LONGEST {
                return f.write_char('…');
            }
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}
