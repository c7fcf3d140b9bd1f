//! [`Address`]: where a server listens, as one string that also picks the transport. Parsing and
//! printing only: no IO and no name resolution, which belong to `socket`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest abstract socket name in bytes: `sun_path` less the NUL that marks it as abstract
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
/// In a path or an abstract name, `%XX` stands for the byte with that hexadecimal value; `%`, `?`
/// and `#` have to be written that way. Printing an address and parsing the result gives the same
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
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(Kind);

/// The parsed form. Private to the crate so that an `Address` is always a valid one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A path: not empty, no NUL.
    Unix(PathBuf),
    /// A name in the abstract namespace: 1 to 107 bytes, without the leading NUL.
    UnixAbstract(Vec<u8>),
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A host name to resolve, and a port.
    Host(String, u16),
}

impl Address {
    /// The Unix socket at `path`, absolute or relative to the working directory at the time of each
    /// bind or connect.
    ///
    /// # Errors
    ///
    /// [`AddressParseError::EmptyPath`] and [`AddressParseError::NulInPath`]. How long a path may
    /// be is decided by the file system, when the address is used.
    pub fn unix(path: impl Into<PathBuf>) -> Result<Self, AddressParseError> {
        let path = path.into();
        let input = || path.to_string_lossy().into_owned();
        if path.as_os_str().is_empty() {
            return Err(AddressParseError::EmptyPath { input: input() });
        }
        if path.as_os_str().as_bytes().contains(&0) {
            return Err(AddressParseError::NulInPath { input: input() });
        }
        Ok(Self(Kind::Unix(path)))
    }

    /// The abstract Unix socket of that name, any bytes. Abstract sockets have no file and no
    /// permissions: every process in the network namespace can connect (unix(7)).
    ///
    /// # Errors
    ///
    /// [`AddressParseError::AbstractNameLength`] unless the name has 1 to 107 bytes.
    pub fn unix_abstract(name: impl Into<Vec<u8>>) -> Result<Self, AddressParseError> {
        let name = name.into();
        if name.is_empty() || name.len() > ABSTRACT_NAME_MAX {
            return Err(AddressParseError::AbstractNameLength {
                input: String::from_utf8_lossy(&name).into_owned(),
            });
        }
        Ok(Self(Kind::UnixAbstract(name)))
    }

    /// The path of a Unix socket that has one.
    pub fn as_path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// Whether this is a Unix socket, abstract ones included, rather than TCP.
    pub fn is_unix(&self) -> bool {
        matches!(self.0, Kind::Unix(_) | Kind::UnixAbstract(_))
    }

    /// Whether this is a Unix socket in the abstract namespace.
    pub fn is_unix_abstract(&self) -> bool {
        matches!(self.0, Kind::UnixAbstract(_))
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.0
    }
}

/// The flow label of an IPv6 address is dropped: it has no string form.
impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(Kind::Tcp(match address {
            SocketAddr::V4(_) => address,
            SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        }))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Unix(path) => {
                let bytes = path.as_os_str().as_bytes();
                // A path that starts with two slashes would read as an empty URI authority.
                f.write_str(if bytes.starts_with(b"//") { "unix://" } else { "unix:" })?;
                write_escaped(f, bytes)
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
            Kind::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl FromStr for Address {
    type Err = AddressParseError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        parse(input)
    }
}

/// Why a string is no [`Address`]. The message shows the string and says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressParseError {
    /// Nothing was given.
    #[error("the address is empty: write unix:/path/to/app.sock or 127.0.0.1:50051")]
    Empty,
    /// A Unix address without a path.
    #[error("{}: the path is empty: write unix:/path/to/app.sock", Shown(input))]
    EmptyPath {
        /// What was parsed.
        input: String,
    },
    /// A Unix path with a NUL byte, which no file name can hold.
    #[error("{}: a path cannot hold a NUL byte: leave it out", Shown(input))]
    NulInPath {
        /// What was parsed.
        input: String,
    },
    /// `unix://` followed by something other than an absolute path.
    #[error(
        "{}: what follows unix:// is a host, and a Unix socket has none: \
         write unix:relative/path or unix:///absolute/path",
        Shown(input)
    )]
    UnixHost {
        /// What was parsed.
        input: String,
    },
    /// An abstract name that is empty or longer than 107 bytes.
    #[error("{}: an abstract name has 1 to 107 bytes: write unix-abstract:name", Shown(input))]
    AbstractNameLength {
        /// What was parsed.
        input: String,
    },
    /// `unix-abstract://`.
    #[error(
        "{}: an abstract name follows the colon directly: write unix-abstract:name",
        Shown(input)
    )]
    AbstractHost {
        /// What was parsed.
        input: String,
    },
    /// A `%` without two hexadecimal digits.
    #[error(
        "{}: % must be followed by two hexadecimal digits: write a plain % as %25",
        Shown(input)
    )]
    InvalidEscape {
        /// What was parsed.
        input: String,
    },
    /// `?` or `#` in a Unix address, which other gRPC implementations take for a query.
    #[error("{}: write ? as %3F and # as %23", Shown(input))]
    QueryOrFragment {
        /// What was parsed.
        input: String,
    },
    /// A file path without a scheme.
    #[error("{}: a Unix socket needs its scheme: write unix:{}", Shown(input), Shown(input))]
    BarePath {
        /// What was parsed.
        input: String,
    },
    /// A TCP address without a port.
    #[error("{}: the port is missing: write {}", Shown(input), Shown(suggestion))]
    MissingPort {
        /// What was parsed.
        input: String,
        /// The same with a port.
        suggestion: String,
    },
    /// A port that is not a number from 0 to 65535.
    #[error(
        "{}: the port must be a number from 0 to 65535: write {}",
        Shown(input),
        Shown(suggestion)
    )]
    InvalidPort {
        /// What was parsed.
        input: String,
        /// The same with a valid port.
        suggestion: String,
    },
    /// An IPv6 address without brackets.
    #[error("{}: an IPv6 address needs brackets: write [::1]:50051", Shown(input))]
    UnbracketedIpv6 {
        /// What was parsed.
        input: String,
    },
    /// Not an IPv4 address, IPv6 address or host name, whichever was due.
    #[error("{}: {expected} was expected: write {example}", Shown(input))]
    InvalidHost {
        /// What was parsed.
        input: String,
        /// What should stand there.
        expected: &'static str,
        /// A valid address of that form.
        example: &'static str,
    },
    /// A URI with a path, or a DNS server, after its scheme.
    #[error("{}: only a host and a port may follow the scheme: write {example}", Shown(input))]
    NotHostPort {
        /// What was parsed.
        input: String,
        /// A valid address of that form.
        example: &'static str,
    },
    /// `https:`.
    #[error(
        "{}: there is no TLS between processes of one host: write http://host:port or unix:/path",
        Shown(input)
    )]
    Tls {
        /// What was parsed.
        input: String,
    },
    /// Several addresses in one string.
    #[error("{}: one address at a time: lists are not supported, give each alone", Shown(input))]
    List {
        /// What was parsed.
        input: String,
    },
    /// A scheme that is not known here.
    #[error(
        "{}: unknown scheme: write unix:/path, unix-abstract:name, ipv4:, ipv6:, dns: or http://, \
         or host:port",
        Shown(input)
    )]
    UnknownScheme {
        /// What was parsed.
        input: String,
    },
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

fn parse(input: &str) -> Result<Address, AddressParseError> {
    use AddressParseError as E;
    let whole = || input.to_owned();

    if input.is_empty() {
        return Err(E::Empty);
    }
    if input.starts_with(['/', '.', '~']) {
        return Err(E::BarePath { input: whole() });
    }
    // `host:port` has no scheme; `[::1]:50051` starts with a bracket.
    let (scheme, rest) = match input.split_once(':') {
        Some((scheme, rest)) if !input.starts_with('[') => (scheme, rest),
        _ => ("", input),
    };
    match scheme {
        "unix" => unix(input, rest),
        "unix-abstract" => unix_abstract(input, rest),
        "https" => Err(E::Tls { input: whole() }),
        _ if input.contains(',') => Err(E::List { input: whole() }),
        "ipv4" => match host_port(input, rest)? {
            kind @ Kind::Tcp(SocketAddr::V4(_)) => Ok(Address(kind)),
            _ => Err(E::InvalidHost {
                input: whole(),
                expected: "an IPv4 address",
                example: "ipv4:127.0.0.1:50051",
            }),
        },
        "ipv6" => match host_port(input, rest)? {
            kind @ Kind::Tcp(SocketAddr::V6(_)) => Ok(Address(kind)),
            _ => Err(E::InvalidHost {
                input: whole(),
                expected: "an IPv6 address in brackets",
                example: "ipv6:[::1]:50051",
            }),
        },
        "dns" => {
            let example = "dns:localhost:50051";
            let host = match rest.strip_prefix("//") {
                // dns://SERVER/host names the DNS server to ask; only the empty one is known.
                Some(after) => after
                    .strip_prefix('/')
                    .ok_or_else(|| E::NotHostPort { input: whole(), example })?,
                None => rest,
            };
            no_path(input, host, example)?;
            host_port(input, host).map(Address)
        }
        "http" => {
            let example = "http://localhost:50051";
            let host = rest
                .strip_prefix("//")
                .ok_or_else(|| E::NotHostPort { input: whole(), example })?;
            let host = host.strip_suffix('/').unwrap_or(host);
            no_path(input, host, example)?;
            host_port(input, host).map(Address)
        }
        _ if rest.starts_with('/') => Err(E::UnknownScheme { input: whole() }),
        // A relative path is likelier than a host here, whatever comes before its first slash.
        "" if input.contains('/') => Err(E::BarePath { input: whole() }),
        _ => host_port(input, input).map(Address),
    }
}

fn unix(input: &str, rest: &str) -> Result<Address, AddressParseError> {
    let path = match rest.strip_prefix("//") {
        Some("") => {
            return Err(AddressParseError::EmptyPath { input: input.to_owned() });
        }
        Some(path) if path.starts_with('/') => path,
        Some(_) => {
            return Err(AddressParseError::UnixHost { input: input.to_owned() });
        }
        None => rest,
    };
    let bytes = unescape(input, path)?;
    Address::unix(OsString::from_vec(bytes)).map_err(|error| match error {
        AddressParseError::EmptyPath { .. } => {
            AddressParseError::EmptyPath { input: input.to_owned() }
        }
        _ => AddressParseError::NulInPath { input: input.to_owned() },
    })
}

fn unix_abstract(input: &str, rest: &str) -> Result<Address, AddressParseError> {
    if rest.starts_with("//") {
        return Err(AddressParseError::AbstractHost { input: input.to_owned() });
    }
    Address::unix_abstract(unescape(input, rest)?)
        .map_err(|_| AddressParseError::AbstractNameLength { input: input.to_owned() })
}

/// Refuses what a URI could have after its host and port, and user names before them.
fn no_path(input: &str, host: &str, example: &'static str) -> Result<(), AddressParseError> {
    if host.contains(['/', '?', '#', '@']) {
        return Err(AddressParseError::NotHostPort { input: input.to_owned(), example });
    }
    Ok(())
}

/// Parses `host:port`, where the host is an IPv4 address, an IPv6 address in brackets or a name.
fn host_port(input: &str, text: &str) -> Result<Kind, AddressParseError> {
    use AddressParseError as E;
    let whole = || input.to_owned();
    let invalid = |expected, example| E::InvalidHost { input: whole(), expected, example };

    let (host, port) = match text.strip_prefix('[') {
        Some(after) => {
            let (ip, port) =
                after.split_once(']').ok_or_else(|| invalid("a closing bracket", "[::1]:50051"))?;
            let port = match port.strip_prefix(':') {
                Some(port) => Some(port),
                None if port.is_empty() => None,
                None => return Err(invalid("a colon after the bracket", "[::1]:50051")),
            };
            (Err(ip), port)
        }
        None => match text.split_once(':') {
            Some((first, port)) if port.contains(':') => {
                let hexadecimal = first.bytes().all(|b| b.is_ascii_hexdigit());
                return Err(if hexadecimal {
                    E::UnbracketedIpv6 { input: whole() }
                } else {
                    E::UnknownScheme { input: whole() }
                });
            }
            Some((host, port)) => (Ok(host), Some(port)),
            None => (Ok(text), None),
        },
    };
    if host == Ok("") {
        return Err(invalid("a host before the port", "127.0.0.1:50051"));
    }
    let port = match port {
        None | Some("") => {
            let suggestion = format!("{}:50051", input.strip_suffix(':').unwrap_or(input));
            return Err(E::MissingPort { input: whole(), suggestion });
        }
        // `u16::from_str` takes a plus sign.
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok(),
        Some(_) => None,
    };
    let port: u16 = port.ok_or_else(|| E::InvalidPort {
        input: whole(),
        suggestion: format!("{}:50051", &input[..input.rfind(':').unwrap_or(input.len())]),
    })?;
    match host {
        Err(_) => match text.rsplit_once(':').map(|(ip, _)| format!("{ip}:{port}").parse()) {
            Some(Ok(SocketAddr::V6(v6))) => Ok(Address::from(SocketAddr::V6(v6)).0),
            _ => Err(invalid("an IPv6 address in brackets", "[::1]:50051")),
        },
        Ok(host) => {
            if let Ok(ip) = host.parse::<Ipv4Addr>() {
                return Ok(Kind::Tcp(SocketAddr::from((ip, port))));
            }
            if !is_host_name(host) {
                return Err(invalid("an IP address or a host name", "localhost:50051"));
            }
            Ok(Kind::Host(host.to_owned(), port))
        }
    }
}

/// RFC 1123 §2.1's host names, with the underscore that is common in practice. A name whose last
/// label is a number is meant as an IPv4 address, and reaches here only when it is a wrong one.
fn is_host_name(host: &str) -> bool {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    host.len() <= 253 && host.split('.').all(label_ok) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// Writes bytes so that [`unescape`] reads them back: printable ASCII as it is, except what has a
/// meaning in a URI.
fn write_escaped(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for &byte in bytes {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b'?' | b'#') {
            f.write_char(char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

fn unescape(input: &str, text: &str) -> Result<Vec<u8>, AddressParseError> {
    if text.contains(['?', '#']) {
        return Err(AddressParseError::QueryOrFragment { input: input.to_owned() });
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
            return Err(AddressParseError::InvalidEscape { input: input.to_owned() });
        };
        out.push((high * 16 + low) as u8);
    }
    Ok(out)
}

/// A path as it is shown in messages: the same escapes as in an [`Address`].
pub(crate) fn shown_path(path: &Path) -> impl fmt::Display + '_ {
    struct Escaped<'a>(&'a OsStr);
    impl fmt::Display for Escaped<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_escaped(f, self.0.as_bytes())
        }
    }
    Escaped(path.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(input: &str) -> Address {
        input.parse().unwrap_or_else(|error| panic!("{input}: {error}"))
    }

    #[test]
    fn every_accepted_form_means_what_the_table_says() {
        let unix = |path: &str| Address::unix(path).unwrap();
        let tcp = |text: &str| Address::from(text.parse::<SocketAddr>().unwrap());
        let host = |name: &str, port| Address(Kind::Host(name.to_owned(), port));
        for (input, expected, printed) in [
            ("unix:rel", unix("rel"), "unix:rel"),
            ("unix:dir/rel.sock", unix("dir/rel.sock"), "unix:dir/rel.sock"),
            ("unix:./rel", unix("./rel"), "unix:./rel"),
            ("unix:/abs", unix("/abs"), "unix:/abs"),
            ("unix:///abs", unix("/abs"), "unix:/abs"),
            ("unix:////abs", unix("//abs"), "unix:////abs"),
            ("unix:/a%20b%25", unix("/a b%"), "unix:/a%20b%25"),
            ("unix:/é,a:b", unix("/é,a:b"), "unix:/%C3%A9,a:b"),
            ("unix-abstract:name", Address::unix_abstract("name").unwrap(), "unix-abstract:name"),
            (
                "unix-abstract:/%2F%00",
                Address::unix_abstract("//\0").unwrap(),
                "unix-abstract:/%2F%00",
            ),
            ("127.0.0.1:50051", tcp("127.0.0.1:50051"), "127.0.0.1:50051"),
            ("[::1]:50051", tcp("[::1]:50051"), "[::1]:50051"),
            ("[fe80::1%3]:1", tcp("[fe80::1%3]:1"), "[fe80::1%3]:1"),
            ("ipv4:127.0.0.1:50051", tcp("127.0.0.1:50051"), "127.0.0.1:50051"),
            ("ipv6:[::1]:50051", tcp("[::1]:50051"), "[::1]:50051"),
            ("127.0.0.1:0", tcp("127.0.0.1:0"), "127.0.0.1:0"),
            ("localhost:50051", host("localhost", 50051), "localhost:50051"),
            ("dns:localhost:50051", host("localhost", 50051), "localhost:50051"),
            ("dns:///localhost:50051", host("localhost", 50051), "localhost:50051"),
            ("http://localhost:50051", host("localhost", 50051), "localhost:50051"),
            ("http://localhost:50051/", host("localhost", 50051), "localhost:50051"),
            ("http://127.0.0.1:1", tcp("127.0.0.1:1"), "127.0.0.1:1"),
            ("dns:[::1]:1", tcp("[::1]:1"), "[::1]:1"),
            ("my-host.example.:65535", host("my-host.example.", 65535), "my-host.example.:65535"),
        ] {
            assert_eq!(parsed(input), expected, "{input}");
            assert_eq!(expected.to_string(), printed, "{input}");
            assert_eq!(parsed(printed), expected, "{printed}");
        }
    }

    #[test]
    fn every_rejected_form_says_what_to_write_instead() {
        for (input, remedy) in [
            ("", "write unix:/path/to/app.sock or 127.0.0.1:50051"),
            ("unix:", "write unix:/path/to/app.sock"),
            ("unix://", "write unix:/path/to/app.sock"),
            ("unix://rel", "write unix:relative/path or unix:///absolute/path"),
            ("unix://host/abs", "write unix:relative/path or unix:///absolute/path"),
            ("unix:/a%00b", "leave it out"),
            ("unix:/a%zz", "write a plain % as %25"),
            ("unix:/a%2", "write a plain % as %25"),
            ("unix:/a?b", "write ? as %3F"),
            ("unix:/a#b", "# as %23"),
            ("unix-abstract:", "write unix-abstract:name"),
            ("unix-abstract://name", "write unix-abstract:name"),
            ("/run/app.sock", "write unix:/run/app.sock"),
            ("./app.sock", "write unix:./app.sock"),
            ("run/app.sock", "write unix:run/app.sock"),
            ("localhost", "write localhost:50051"),
            ("localhost:", "write localhost:50051"),
            ("127.0.0.1", "write 127.0.0.1:50051"),
            ("[::1]", "write [::1]:50051"),
            ("http://localhost", "write http://localhost:50051"),
            ("dns:localhost", "write dns:localhost:50051"),
            ("localhost:65536", "write localhost:50051"),
            ("localhost:-1", "write localhost:50051"),
            ("localhost:+1", "write localhost:50051"),
            ("localhost:http", "write localhost:50051"),
            ("::1:50051", "write [::1]:50051"),
            ("::1", "write [::1]:50051"),
            ("[::1:50051", "write [::1]:50051"),
            ("[::1]50051", "write [::1]:50051"),
            ("[127.0.0.1]:1", "write [::1]:50051"),
            ("ipv4:[::1]:1", "write ipv4:127.0.0.1:50051"),
            ("ipv4:localhost:1", "write ipv4:127.0.0.1:50051"),
            ("ipv6:127.0.0.1:1", "write ipv6:[::1]:50051"),
            ("256.0.0.1:1", "write localhost:50051"),
            ("1.2.3:1", "write localhost:50051"),
            (":50051", "write 127.0.0.1:50051"),
            ("bad host:1", "write localhost:50051"),
            ("dns://8.8.8.8/localhost:1", "write dns:localhost:50051"),
            ("http:localhost:1", "write http://localhost:50051"),
            ("http://localhost:1/path", "write http://localhost:50051"),
            ("http://user@localhost:1", "write http://localhost:50051"),
            ("https://localhost:1", "write http://host:port or unix:/path"),
            ("https:localhost:1", "write http://host:port or unix:/path"),
            ("127.0.0.1:1,127.0.0.1:2", "give each alone"),
            ("ipv4:127.0.0.1:1,127.0.0.2:1", "give each alone"),
            ("xds:///service", "unknown scheme"),
            ("vsock:1:2", "unknown scheme"),
            ("http2://localhost:1", "unknown scheme"),
        ] {
            let error = input.parse::<Address>().expect_err(input).to_string();
            assert!(error.contains(remedy), "{input}: {error}");
            assert!(error.contains(input), "{input}: {error}");
        }
    }

    #[test]
    fn errors_stay_on_one_line() {
        let error = "x\ny\u{1b}[2J:\n".parse::<Address>().unwrap_err().to_string();
        assert!(!error.contains(char::is_control), "{error:?}");
    }

    #[test]
    fn abstract_names_have_at_most_107_bytes() {
        assert!(Address::unix_abstract(vec![b'a'; 107]).is_ok());
        assert!(Address::unix_abstract(vec![b'a'; 108]).is_err());
    }

    fn any_address() -> impl Strategy<Value = Address> {
        let path = prop::collection::vec(1u8.., 1..200)
            .prop_map(|bytes| Address::unix(OsString::from_vec(bytes)).unwrap());
        let slashed = "/{0,4}[a-z%?# ]{1,9}".prop_map(|path| Address::unix(path).unwrap());
        let name = prop::collection::vec(any::<u8>(), 1..=107)
            .prop_map(|bytes| Address::unix_abstract(bytes).unwrap());
        let slashed_name = "/{0,4}[a-z%]{1,9}".prop_map(|n| Address::unix_abstract(n).unwrap());
        let tcp = any::<SocketAddr>().prop_map(Address::from);
        let host = ("[a-z][a-z0-9-]{0,20}[a-z]", any::<u16>())
            .prop_map(|(host, port)| Address(Kind::Host(host, port)));
        prop_oneof![path, slashed, name, slashed_name, tcp, host]
    }

    proptest! {
        #[test]
        fn parsing_what_was_printed_gives_the_same_address(address in any_address()) {
            let printed = address.to_string();
            prop_assert_eq!(printed.parse::<Address>(), Ok(address), "{}", printed);
        }

        #[test]
        fn parsing_never_panics(input in any::<String>()) {
            let _ = input.parse::<Address>();
        }

        #[test]
        fn parsing_never_panics_near_the_grammar(
            input in "(unix|unix-abstract|ipv4|ipv6|dns|http|https|)[:/\\[]{0,4}[a-z0-9.:%/\\[\\]é-]{0,12}(:[0-9]{0,6})?"
        ) {
            if let Ok(address) = input.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }
    }
}
