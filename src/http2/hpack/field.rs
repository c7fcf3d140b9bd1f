//! One header field, as the decoder returns it and its table stores it.
//!
//! Whether the bytes of a field are valid in HTTP/2 is checked here, once. The connection checks
//! the list of fields: their order, duplicates, `connection`.

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

/// One header field. [`HeaderValue::is_sensitive`] means "never indexed" (RFC 7541 §7.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Pseudo(Pseudo, HeaderValue),
    Header(HeaderName, HeaderValue),
    /// A field with bytes that RFC 9113 §8.2.1 forbids: upper case or no token in the name, an
    /// unknown pseudo-header, or a control character in the value. It enters the table, since
    /// otherwise the indexes of both ends would differ. Only the stream that it came on fails.
    ///
    /// Spaces around a value are accepted, although §8.2.1 forbids them too: gRPC leaves spaces in
    /// `grpc-message` unchanged, also at its ends.
    Malformed {
        name: Name,
        value: Bytes,
    },
}

impl Field {
    /// Returns the size of name and value plus 32 (RFC 7541 §4.1), which counts for the table and
    /// for a header list limit.
    pub(crate) fn size(&self) -> usize {
        self.name().len() + self.value().len() + ENTRY_OVERHEAD
    }

    pub(crate) fn name(&self) -> &[u8] {
        match self {
            Self::Pseudo(name, _) => name.as_str().as_bytes(),
            Self::Header(name, _) => name.as_str().as_bytes(),
            Self::Malformed { name, .. } => name.as_bytes(),
        }
    }

    pub(crate) fn value(&self) -> &[u8] {
        match self {
            Self::Pseudo(_, value) | Self::Header(_, value) => value.as_bytes(),
            Self::Malformed { value, .. } => value,
        }
    }
}

/// The name of a field whose value is not read yet, or is malformed. A clone of it copies no bytes,
/// because a few bytes of a block can refer to a long name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
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

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Pseudo(name) => name.as_str().as_bytes(),
            Self::Header(name) => name.as_str().as_bytes(),
            Self::Malformed(name) => name,
        }
    }

    /// Returns the name of an earlier field. The name may be valid even if the field is malformed.
    pub(super) fn of(field: &Field) -> Self {
        match field {
            Field::Pseudo(name, _) => Self::Pseudo(*name),
            Field::Header(name, _) => Self::Header(name.clone()),
            Field::Malformed { name, .. } => name.clone(),
        }
    }

    /// Returns a field with a copy of `value`, so that the field does not keep the read buffer
    /// alive.
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
        Field::Malformed { name: self, value: Bytes::copy_from_slice(value) }
    }
}
