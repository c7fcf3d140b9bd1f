//! [`Address`]: where a server listens, as one string that also selects the transport. This module
//! only parses and prints; `socket` does IO and name resolution.

mod error;
mod escape;
mod parse;
#[cfg(feature = "serde")]
mod serde;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use error::{AddressParseError, AddressParseErrorKind};
pub(crate) use escape::shown_path;
use escape::{is_scheme, write_escaped};

/// The longest abstract socket name in bytes: `sun_path` without the NUL that marks it as abstract
/// (unix(7)).
const ABSTRACT_NAME_MAX: usize = 107;

/// Where a server listens and a client connects: a Unix socket, an abstract Unix socket or a TCP
/// port. The string form follows gRPC's naming, so the same string works in other gRPC languages.
///
/// | string | means |
/// |---|---|
/// | `unix:/run/app.sock`, `unix:///run/app.sock`, `unix:app.sock` | Unix socket at that path |
/// | `unix-abstract:app` | abstract Unix socket (Linux) |
/// | `127.0.0.1:50051`, `[::1]:50051`, `ipv4:127.0.0.1:50051`, `ipv6:[::1]:50051` | TCP |
/// | `localhost:50051`, `dns:localhost:50051`, `dns:///localhost:50051`, `http://localhost:50051` | TCP, the name resolved at bind or connect |
///
/// In a path or an abstract name, `%XX` is the byte with that hexadecimal value; `%`, `?` and `#`
/// must be written in this way, and a `~` at the beginning, white space at the end, and a comma before
/// what looks like another address. Printing an address and parsing the result gives the same
/// address, whatever bytes a path holds.
///
/// ```
/// use samehost::Address;
///
/// let address: Address = "unix:///run/app.sock".parse()?;
/// assert_eq!(address, Address::unix("/run/app.sock")?);
/// assert_eq!(address.to_string(), "unix:/run/app.sock");
/// # Ok::<(), samehost::AddressParseError>(())
/// ```
///
/// A function that takes an address takes any type that converts to one: a string in one of these
/// forms, a [`Path`] or [`PathBuf`] of a Unix socket, a [`SocketAddr`], an `Address` or a reference
/// to one.
///
/// With the feature `serde` it is serialized as its string, so that a configuration can hold it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(Kind);

/// The parsed form. It is private to the crate, so that an `Address` is always valid.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A path that is not empty and has no NUL.
    Unix(PathBuf),
    /// A name in the abstract namespace, of 1 to 107 bytes without the leading NUL.
    UnixAbstract(Vec<u8>),
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A host name to resolve, and a port.
    Host(String, u16),
}

impl Address {
    /// Returns the address of the Unix socket at `path`. A relative path is relative to the working
    /// directory at the time of each bind or connect. One that begins with `@` gets `./` before it,
    /// since some gRPC implementations read `unix:@name` as an abstract socket.
    ///
    /// # Errors
    ///
    /// Returns [`EmptyPath`](AddressParseErrorKind::EmptyPath) or
    /// [`NulInPath`](AddressParseErrorKind::NulInPath). The file system limits the length of a path
    /// when the address is used.
    pub fn unix(path: impl Into<PathBuf>) -> Result<Self, AddressParseError> {
        let path = path.into();
        let input = path.to_string_lossy().into_owned();
        Self::unix_as(path, &input)
    }

    /// Does the same as `unix` with a path that was written as `input`.
    fn unix_as(path: PathBuf, input: &str) -> Result<Self, AddressParseError> {
        if path.as_os_str().is_empty() {
            let text = "the path is empty: write unix:/path/to/app.sock";
            return Err(AddressParseError::new(AddressParseErrorKind::EmptyPath, input, text));
        }
        if path.as_os_str().as_bytes().contains(&0) {
            let text = "a path cannot hold a NUL byte: leave it out";
            return Err(AddressParseError::new(AddressParseErrorKind::NulInPath, input, text));
        }
        Ok(Self(Kind::Unix(match path.as_os_str().as_bytes() {
            [b'@', ..] => Path::new(".").join(path),
            _ => path,
        })))
    }

    /// Returns the address of the abstract Unix socket of that name, which may have any bytes.
    /// Abstract sockets have no file and no permissions: every process in the network namespace can
    /// connect (unix(7)).
    ///
    /// # Errors
    ///
    /// Returns [`AbstractNameLength`](AddressParseErrorKind::AbstractNameLength) unless the name
    /// has 1 to 107 bytes.
    pub fn unix_abstract(name: impl Into<Vec<u8>>) -> Result<Self, AddressParseError> {
        let name = name.into();
        let input = String::from_utf8_lossy(&name).into_owned();
        Self::unix_abstract_as(name, &input)
    }

    /// Does the same as `unix_abstract` with a name that was written as `input`.
    fn unix_abstract_as(name: Vec<u8>, input: &str) -> Result<Self, AddressParseError> {
        if name.is_empty() || name.len() > ABSTRACT_NAME_MAX {
            let kind = AddressParseErrorKind::AbstractNameLength;
            let text = "an abstract name has 1 to 107 bytes: write unix-abstract:name";
            return Err(AddressParseError::new(kind, input, text));
        }
        Ok(Self(Kind::UnixAbstract(name)))
    }

    /// Returns the path of a Unix socket that has one.
    pub fn as_path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// Returns whether this is a Unix socket, abstract ones included.
    pub fn is_unix(&self) -> bool {
        matches!(self.0, Kind::Unix(_) | Kind::UnixAbstract(_))
    }

    /// Returns whether this is a Unix socket in the abstract namespace.
    pub fn is_unix_abstract(&self) -> bool {
        matches!(self.0, Kind::UnixAbstract(_))
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.0
    }
}

/// Drops the flow label of an IPv6 address, which has no string form.
impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(Kind::Tcp(match address {
            SocketAddr::V4(_) => address,
            SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        }))
    }
}

impl From<&Self> for Address {
    fn from(address: &Self) -> Self {
        address.clone()
    }
}

macro_rules! parsed_from {
    ($($text:ty),+) => {$(
        /// Does the same as [`str::parse`].
        impl TryFrom<$text> for Address {
            type Error = AddressParseError;

            fn try_from(text: $text) -> Result<Self, AddressParseError> {
                text.parse()
            }
        }
    )+};
}
parsed_from!(&str, &String, String);

macro_rules! unix_from {
    ($($path:ty),+) => {$(
        /// Returns the Unix socket at that path, which needs no `unix:` before it: see
        /// [`Address::unix`].
        impl TryFrom<$path> for Address {
            type Error = AddressParseError;

            fn try_from(path: $path) -> Result<Self, AddressParseError> {
                Self::unix(path)
            }
        }
    )+};
}
unix_from!(&Path, &PathBuf, PathBuf);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Unix(path) => {
                let bytes = path.as_os_str().as_bytes();
                // A path that starts with two slashes would be read as an empty URI authority.
                f.write_str(if bytes.starts_with(b"//") { "unix://" } else { "unix:" })?;
                match bytes.strip_prefix(b"~") {
                    Some(rest) => {
                        f.write_str("%7E")?;
                        write_escaped(f, rest)
                    }
                    None => write_escaped(f, bytes),
                }
            }
            Kind::UnixAbstract(name) => {
                f.write_str("unix-abstract:")?;
                if let Some(rest) = name.strip_prefix(b"//") {
                    f.write_str("/%2F")?;
                    write_escaped(f, rest)
                } else {
                    write_escaped(f, name)
                }
            }
            Kind::Tcp(address) => write!(f, "{address}"),
            Kind::Host(host, port) => {
                // A host of that name would be read as a scheme.
                f.write_str(if is_scheme(host) { "dns:" } else { "" })?;
                write!(f, "{host}:{port}")
            }
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}
