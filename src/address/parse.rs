//! The grammar of an [`Address`]'s string form.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::str::FromStr;

use super::error::{AddressParseError, AddressParseErrorKind as E};
use super::escape::{is_list, unescape};
use super::{Address, Kind};

type Parsed<T> = Result<T, AddressParseError>;

impl FromStr for Address {
    type Err = AddressParseError;

    fn from_str(input: &str) -> Parsed<Self> {
        let trimmed = input.trim();
        if trimmed.is_empty() {
            let text = "the address is empty: write unix:/path/to/app.sock or 127.0.0.1:50051";
            return Err(AddressParseError::new(E::Empty, input, text));
        }
        if trimmed != input {
            let text = "there is white space before or after the address, such as the end of a line: leave it \
                        out, as str::trim does (in a path, a space is %20)";
            return Err(AddressParseError::new(E::WhiteSpace, input, text));
        }
        if is_list(input) {
            return Err(list(input));
        }
        if input.starts_with(['/', '.', '~']) {
            return Err(bare_path(input));
        }
        if let Some(name) = input.strip_prefix('@') {
            return Err(at_sign(input, name));
        }
        // `host:port` has no scheme; `[::1]:50051` starts with a bracket.
        let (scheme, rest) = match input.split_once(':') {
            Some((scheme, rest)) if !input.starts_with('[') => (scheme, rest),
            _ => ("", input),
        };
        match scheme {
            "unix" => unix(input, rest),
            "unix-abstract" => unix_abstract(input, rest),
            "https" => {
                let text = "there is no TLS between processes of one host: \
                            write http://host:port or unix:/path";
                Err(AddressParseError::new(E::Tls, input, text))
            }
            _ if input.contains(',') => Err(list(input)),
            "ipv4" => match host_port(input, rest)? {
                kind @ Kind::Tcp(SocketAddr::V4(_)) => Ok(Self(kind)),
                _ => Err(invalid_host(input, "an IPv4 address", "ipv4:127.0.0.1:50051")),
            },
            "ipv6" => match host_port(input, rest)? {
                kind @ Kind::Tcp(SocketAddr::V6(_)) => Ok(Self(kind)),
                _ => Err(invalid_host(input, "an IPv6 address in brackets", "ipv6:[::1]:50051")),
            },
            "dns" => dns(input, rest),
            "http" => http(input, rest),
            _ if rest.starts_with('/') => Err(unknown_scheme(input)),
            // A text with a slash is more likely a relative path than a host.
            "" if input.contains('/') => Err(bare_path(input)),
            _ => host_port(input, input).map(Self),
        }
    }
}

/// Returns the error for several addresses in one string.
fn list(input: &str) -> AddressParseError {
    let text = "one address is expected here: give each alone (a channel takes several, as in \
                Channel::builder([\"unix:/a\", \"unix:/b\"])); in a path, a comma is %2C";
    AddressParseError::new(E::List, input, text)
}

fn bare_path(input: &str) -> AddressParseError {
    if input.starts_with('~') {
        return tilde(input, input);
    }
    AddressParseError::new(E::BarePath, input, scheme_is_missing(input))
}

fn scheme_is_missing(path: &str) -> String {
    format!("a Unix socket needs its scheme: write unix:{path}")
}

/// Returns the error for a path that only a shell would expand.
fn tilde(input: &str, path: &str) -> AddressParseError {
    let (user, rest) = path.split_once('/').unwrap_or((path, "app.sock"));
    let text = if user == "~" {
        format!(
            "~ is the shell's: write unix:/home/NAME/{rest}, or unix:$HOME/{rest} in a shell \
             (a directory of that name is ./~)"
        )
    } else {
        format!("{user} is the shell's: write unix: and the path of that user's directory, /{rest}")
    };
    AddressParseError::new(E::Tilde, input, text)
}

/// Returns the error for a name that grpc-go, Node and ttrpc would take for an abstract one.
fn at_sign(input: &str, name: &str) -> AddressParseError {
    let name = if name.is_empty() { "NAME" } else { name };
    let text = format!(
        "elsewhere @ begins the name of an abstract socket: write unix-abstract:{name} (or \
         unix:./@{name} for a file)"
    );
    AddressParseError::new(E::AtSign, input, text)
}

fn unknown_scheme(input: &str) -> AddressParseError {
    let text = "unknown scheme: write unix:/path, unix-abstract:name, ipv4:, ipv6:, dns: or \
                http://, or host:port";
    AddressParseError::new(E::UnknownScheme, input, text)
}

fn invalid_host(input: &str, expected: &str, example: &str) -> AddressParseError {
    let text = format!("{expected} was expected: write {example}");
    AddressParseError::new(E::InvalidHost, input, text)
}

fn not_host_port(input: &str, example: &str) -> AddressParseError {
    let text = format!("only a host and a port may follow the scheme: write {example}");
    AddressParseError::new(E::NotHostPort, input, text)
}

fn unix(input: &str, rest: &str) -> Parsed<Address> {
    if let Some(name) = rest.strip_prefix("//").unwrap_or(rest).strip_prefix('@') {
        return Err(at_sign(input, name));
    }
    let path = match rest.strip_prefix("//") {
        Some(path) if path.is_empty() || path.starts_with('/') => path,
        Some(_) => {
            let text = "what follows unix:// is a host, and a Unix socket has none: \
                        write unix:relative/path or unix:///absolute/path";
            return Err(AddressParseError::new(E::UnixHost, input, text));
        }
        None if rest.starts_with('~') => return Err(tilde(input, rest)),
        None => rest,
    };
    Address::unix_as(OsString::from_vec(unescape(input, path)?).into(), input)
}

fn unix_abstract(input: &str, rest: &str) -> Parsed<Address> {
    if rest.starts_with("//") {
        let text = "an abstract name follows the colon directly: write unix-abstract:name";
        return Err(AddressParseError::new(E::AbstractHost, input, text));
    }
    Address::unix_abstract_as(unescape(input, rest)?, input)
}

fn dns(input: &str, rest: &str) -> Parsed<Address> {
    let example = "dns:localhost:50051";
    let host = match rest.strip_prefix("//") {
        // dns://SERVER/host names a DNS server; only an empty SERVER is supported.
        Some(after) => after.strip_prefix('/').ok_or_else(|| not_host_port(input, example))?,
        None => rest,
    };
    no_path(input, host, example)?;
    host_port(input, host).map(Address)
}

fn http(input: &str, rest: &str) -> Parsed<Address> {
    let example = "http://localhost:50051";
    let host = rest.strip_prefix("//").ok_or_else(|| not_host_port(input, example))?;
    let host = host.strip_suffix('/').unwrap_or(host);
    no_path(input, host, example)?;
    host_port(input, host).map(Address)
}

/// Refuses the parts of a URI after its host and port, and user names before them.
fn no_path(input: &str, host: &str, example: &str) -> Parsed<()> {
    if host.contains(['/', '?', '#', '@']) {
        return Err(not_host_port(input, example));
    }
    Ok(())
}

/// Parses `host:port`, where the host is an IPv4 address, an IPv6 address in brackets or a name.
fn host_port(input: &str, text: &str) -> Parsed<Kind> {
    let Split { host, port } = split_host_port(input, text)?;
    if host == Ok("") {
        return Err(invalid_host(input, "a host before the port", "127.0.0.1:50051"));
    }
    let port = port_number(input, port)?;
    match host {
        Err(ip) => match format!("[{ip}]:{port}").parse() {
            Ok(SocketAddr::V6(v6)) => Ok(Address::from(SocketAddr::V6(v6)).0),
            _ => Err(invalid_host(input, "an IPv6 address in brackets", "[::1]:50051")),
        },
        Ok(host) => {
            if let Ok(ip) = host.parse::<Ipv4Addr>() {
                return Ok(Kind::Tcp(SocketAddr::from((ip, port))));
            }
            if !is_host_name(host) {
                let expected = "an IP address or a host name";
                return Err(invalid_host(input, expected, "localhost:50051"));
            }
            Ok(Kind::Host(host.to_owned(), port))
        }
    }
}

struct Split<'a> {
    /// `Err` has the text in brackets.
    host: Result<&'a str, &'a str>,
    port: Option<&'a str>,
}

fn split_host_port<'a>(input: &str, text: &'a str) -> Parsed<Split<'a>> {
    if let Some(after) = text.strip_prefix('[') {
        let invalid = |expected| invalid_host(input, expected, "[::1]:50051");
        let (ip, rest) = after.split_once(']').ok_or_else(|| invalid("a closing bracket"))?;
        let port = rest.strip_prefix(':');
        if port.is_none() && !rest.is_empty() {
            return Err(invalid("a colon after the bracket"));
        }
        return Ok(Split { host: Err(ip), port });
    }
    match text.split_once(':') {
        Some((first, port)) if port.contains(':') => {
            if !first.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(unknown_scheme(input));
            }
            let text = "an IPv6 address needs brackets: write [::1]:50051";
            Err(AddressParseError::new(E::UnbracketedIpv6, input, text))
        }
        Some((host, port)) => Ok(Split { host: Ok(host), port: Some(port) }),
        None => Ok(Split { host: Ok(text), port: None }),
    }
}

fn port_number(input: &str, port: Option<&str>) -> Parsed<u16> {
    let port = match port {
        None | Some("") => {
            let text = match input.parse::<u16>() {
                // The input is only a port.
                Ok(port) => format!("the host is missing: write 127.0.0.1:{port}"),
                Err(_) if input.bytes().all(|b| b.is_ascii_digit()) => {
                    "a port is at most 65535, and needs its host: write 127.0.0.1:50051".to_owned()
                }
                Err(_) if input.ends_with(".sock") || input.ends_with(".socket") => {
                    scheme_is_missing(input)
                }
                Err(_) => {
                    let host = input.strip_suffix(':').unwrap_or(input);
                    format!("the port is missing: write {host}:50051")
                }
            };
            return Err(AddressParseError::new(E::MissingPort, input, text));
        }
        // `u16::from_str` would accept a plus sign.
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok(),
        Some(_) => None,
    };
    port.ok_or_else(|| {
        let host = &input[..input.rfind(':').unwrap_or(input.len())];
        let text = format!("the port must be a number from 0 to 65535: write {host}:50051");
        AddressParseError::new(E::InvalidPort, input, text)
    })
}

/// Checks a host name by RFC 1123 §2.1, and also allows the underscore, which is common in
/// practice. A name whose last label is a number is an invalid IPv4 address: valid ones are parsed
/// before.
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
