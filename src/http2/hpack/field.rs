//! One header field, as the decoder hands it out and as its table keeps it.
//!
//! Bytes are sorted into "may stand in HTTP/2" and "may not" here, once; whether a well-formed
//! field makes sense where it stands (order, duplicates, `connection`) is for the connection.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::ENTRY_OVERHEAD;

/// The pseudo-headers (RFC 9113 §8.3, RFC 8441 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pseudo {
    Authority,
    Method,
    Path,
    Scheme,
    Status,
    Protocol,
}

impl Pseudo {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Authority => ":authority",
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Scheme => ":scheme",
            Self::Status => ":status",
            Self::Protocol => ":protocol",
        }
    }

    fn parse(name: &[u8]) -> Option<Self> {
        Some(match name {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":scheme" => Self::Scheme,
            b":status" => Self::Status,
            b":protocol" => Self::Protocol,
            _ => return None,
        })
    }
}

/// One header field. [`HeaderValue::is_sensitive`] says "never indexed" (RFC 7541 §7.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Pseudo(Pseudo, HeaderValue),
    Header(HeaderName, HeaderValue),
    /// Bytes that RFC 9113 §8.2.1 forbids: upper case, no token, an unknown pseudo-header, a
    /// control character in the value. HPACK itself is unharmed: the field enters the table, or
    /// the indexes of both ends would part, and the stream it came on is what fails.
    ///
    /// Space around a value is let through although §8.2.1 forbids that too: gRPC leaves spaces
    /// in `grpc-message` as they are, at its ends as well.
    Malformed {
        name: Bytes,
        value: Bytes,
    },
}

impl Field {
    /// Name, value and 32 (RFC 7541 §4.1): what it takes of the table and of a header list limit.
    pub(crate) fn size(&self) -> usize {
        self.name().len() + self.value().len() + ENTRY_OVERHEAD
    }

    pub(crate) fn name(&self) -> &[u8] {
        match self {
            Self::Pseudo(name, _) => name.as_str().as_bytes(),
            Self::Header(name, _) => name.as_str().as_bytes(),
            Self::Malformed { name, .. } => name,
        }
    }

    pub(crate) fn value(&self) -> &[u8] {
        match self {
            Self::Pseudo(_, value) | Self::Header(_, value) => value.as_bytes(),
            Self::Malformed { value, .. } => value,
        }
    }
}

/// A name on its own: what a literal has before its value is read.
#[derive(Clone, Debug)]
pub(super) enum Name {
    Pseudo(Pseudo),
    Header(HeaderName),
    Malformed(Bytes),
}

impl Name {
    pub(super) fn parse(name: &[u8]) -> Self {
        if name.first() == Some(&b':') {
            if let Some(pseudo) = Pseudo::parse(name) {
                return Self::Pseudo(pseudo);
            }
        } else if let Ok(name) = HeaderName::from_lowercase(name) {
            return Self::Header(name);
        }
        Self::Malformed(Bytes::copy_from_slice(name))
    }

    /// The name of an earlier field. One malformed for its value alone lends a good name.
    pub(super) fn of(field: &Field) -> Self {
        match field {
            Field::Pseudo(name, _) => Self::Pseudo(*name),
            Field::Header(name, _) => Self::Header(name.clone()),
            Field::Malformed { name, .. } => Self::parse(name),
        }
    }

    /// Copies `value`, so that the field outlives, and does not pin, the buffer it was read from.
    pub(super) fn with_value(self, value: &[u8], sensitive: bool) -> Field {
        if !matches!(self, Self::Malformed(_))
            && let Ok(mut value) = HeaderValue::from_bytes(value)
        {
            value.set_sensitive(sensitive);
            match self {
                Self::Pseudo(name) => return Field::Pseudo(name, value),
                Self::Header(name) => return Field::Header(name, value),
                Self::Malformed(_) => unreachable!("excluded above"),
            }
        }
        let name = match self {
            Self::Pseudo(name) => Bytes::from_static(name.as_str().as_bytes()),
            Self::Header(name) => Bytes::copy_from_slice(name.as_str().as_bytes()),
            Self::Malformed(name) => name,
        };
        Field::Malformed { name, value: Bytes::copy_from_slice(value) }
    }
}
