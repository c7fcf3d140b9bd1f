//! [`AddressParseError`]: why a string is not an [`Address`](super::Address), and what to write
//! instead.

use std::convert::Infallible;
use std::fmt::{self, Write as _};

/// Why a string or a path is not an [`Address`](super::Address). The message shows it and the
/// correct form, on one line.
#[derive(Clone, PartialEq, Eq)]
pub struct AddressParseError {
    kind: AddressParseErrorKind,
    input: String,
    /// The part of the message after the input: what is wrong and what to write.
    text: String,
}

/// The kinds of [`AddressParseError`].
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
    /// An abstract name has `//` before it; the name follows the colon directly.
    AbstractHost,
    /// A `%` is not followed by two hexadecimal digits.
    InvalidEscape,
    /// A Unix address has an unescaped `?` or `#`, which other gRPC implementations take for a
    /// query or fragment.
    QueryOrFragment,
    /// A file path has no scheme.
    BarePath,
    /// There is white space before or after the address.
    WhiteSpace,
    /// A path begins with `~`, which only a shell expands.
    Tilde,
    /// `@` is the first character of a path or of the whole text. Some gRPC implementations take
    /// what follows for an abstract name.
    AtSign,
    /// A TCP address has no port.
    MissingPort,
    /// A port is not a number from 0 to 65535.
    InvalidPort,
    /// An IPv6 address has no brackets.
    UnbracketedIpv6,
    /// An IPv4 address, an IPv6 address or a host name is not valid.
    InvalidHost,
    /// A URI has a path or names a DNS server.
    NotHostPort,
    /// The scheme is `https`, but there is no TLS.
    Tls,
    /// Several addresses are in one string.
    List,
    /// The scheme is unknown.
    UnknownScheme,
}

impl AddressParseError {
    /// Returns an error with the message `input: text`.
    pub(super) fn new(
        kind: AddressParseErrorKind,
        input: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self { kind, input: input.into(), text: text.into() }
    }

    /// Returns the error for a list without addresses.
    pub(crate) fn none_given() -> Self {
        let text = "no address is given: the list is empty, and needs at least one, such as \
                    unix:/path/to/app.sock";
        Self::new(AddressParseErrorKind::Empty, "", text)
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> AddressParseErrorKind {
        self.kind
    }

    /// Returns the string that was parsed. In a path or a name that is not UTF-8, replacement
    /// characters replace the invalid bytes.
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

/// Prints the message, since `main` prints a returned error with `Debug`.
impl fmt::Debug for AddressParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for AddressParseError {}

/// Allows functions to take any type that converts to an [`Address`](super::Address), an `Address`
/// included, whose conversion cannot fail.
impl From<Infallible> for AddressParseError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Foreign text on one line of an error message: control characters are escaped, and the length is
/// limited.
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
