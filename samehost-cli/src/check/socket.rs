//! Connects: checks that a server listens and accepts connections, and which process it is.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use samehost::Address;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::path::{group_name, this_user, user_name};
use super::{Broken, End, Steps, broken};
use crate::process;

const STEP: &str = "connection";

/// A connection over either transport.
pub(super) trait Connection:
    tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin
{
}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Connection for T {}

pub(super) async fn connect_unix(
    address: &Address,
    patience: Duration,
    steps: &mut Steps,
) -> Result<Box<dyn Connection>, End> {
    let deadline = tokio::time::Instant::now() + patience;
    let stream = loop {
        match connect(address) {
            Ok(stream) => break stream,
            // The queue of the listener is full (unix(7)): connecting is tried again until the
            // deadline.
            Err(Errno::AGAIN) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(errno) => return Err(refused(address, errno, patience).into()),
        }
    };
    steps.good(STEP, "accepted, or in the queue of a listener")?;
    match stream.peer_cred() {
        Ok(peer) => {
            let process = match peer.pid() {
                Some(pid @ 1..) => process::described(pid.unsigned_abs()),
                _ => "a process of another pid namespace".to_owned(),
            };
            let (user, group) = (user_name(peer.uid()), group_name(peer.gid()));
            steps.good("listener", format!("{process}, user {user}, group {group}"))?;
        }
        Err(error) => steps.unknown("listener", format!("not known: {error}"))?,
    }
    Ok(Box::new(stream))
}

fn connect(address: &Address) -> Result<UnixStream, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The descriptor that the address may name must stay open until connect(2).
    let (at, _file) = unix_address(address)?;
    rustix::net::connect(&socket, &at)?;
    UnixStream::from_std(socket.into()).map_err(|_| Errno::IO)
}

/// Returns the socket address. If the path is too long for it, the address names a descriptor,
/// which is returned, too.
fn unix_address(address: &Address) -> Result<(SocketAddrUnix, Option<OwnedFd>), Errno> {
    let Some(path) = address.as_path() else {
        return Ok((SocketAddrUnix::new_abstract_name(&abstract_name(address))?, None));
    };
    if let Ok(at) = SocketAddrUnix::new(path) {
        return Ok((at, None));
    }
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let at = SocketAddrUnix::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok((at, Some(file)))
}

/// Returns the bytes of the name in `unix-abstract:NAME`, where `%XX` stands for a byte.
fn abstract_name(address: &Address) -> Vec<u8> {
    let text = address.to_string();
    let mut text = text.strip_prefix("unix-abstract:").unwrap_or_default();
    let mut name = Vec::new();
    while let Some(first) = text.as_bytes().first() {
        let escaped = text.strip_prefix('%').and_then(|rest| rest.get(..2));
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                name.push(byte);
                text = &text[3..];
            }
            None => {
                name.push(*first);
                // Bytes that are not ASCII are written as `%XX`.
                text = text.get(1..).unwrap_or_default();
            }
        }
    }
    name
}

fn refused(address: &Address, errno: Errno, patience: Duration) -> Broken {
    match errno {
        Errno::CONNREFUSED if address.is_unix_abstract() => broken(
            STEP,
            "no server has this abstract name in this network namespace",
            "start the server, or enter its network namespace",
        ),
        Errno::CONNREFUSED => broken(
            STEP,
            "refused: the socket file is there, but nobody listens behind it",
            "start the server: what it left behind when it was killed, it replaces",
        ),
        Errno::AGAIN => broken(
            STEP,
            format!("the listener's queue stayed full for {patience:?}"),
            "the server accepts nothing: look whether it hangs or is out of descriptors, and \
             restart it",
        ),
        Errno::ACCESS | Errno::PERM => broken(
            STEP,
            format!("not permitted to {}: {errno}", this_user()),
            "run as another user, or look for a rule of AppArmor or SELinux",
        ),
        Errno::PROTOTYPE => broken(
            STEP,
            "the socket is of another type than gRPC needs (SOCK_STREAM)",
            "check the address: this socket belongs to something else, such as a log daemon",
        ),
        errno => broken(STEP, format!("failed: {errno}"), "check the address and the server"),
    }
}

pub(super) async fn connect_tcp(
    address: &Address,
    patience: Duration,
    steps: &mut Steps,
) -> Result<Box<dyn Connection>, End> {
    let text = address.to_string();
    let host = text.rsplit_once("//").map_or(text.as_str(), |(_, host)| host);
    let host = host.strip_prefix("dns:").unwrap_or(host);
    let addresses = found(host, tokio::net::lookup_host(host), patience).await?;
    let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    steps.good(HOST, shown.join(", "))?;
    match timeout(patience, TcpStream::connect(&addresses[..])).await {
        Ok(Ok(stream)) => {
            let peer = stream.peer_addr().map_or(String::new(), |peer| format!(" by {peer}"));
            steps.good(STEP, format!("accepted{peer}"))?;
            Ok(Box::new(stream))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(broken(
            STEP,
            "refused: nobody listens on this port",
            "start the server, or check the port",
        )
        .into()),
        Ok(Err(error)) => {
            Err(broken(STEP, format!("failed: {error}"), "check the address and the network")
                .into())
        }
        Err(_) => Err(broken(
            STEP,
            format!("no answer within {patience:?}"),
            "check the address, and whether a firewall drops what is sent there",
        )
        .into()),
    }
}

/// Waits for the addresses of a host.
async fn found<I: Iterator<Item = SocketAddr>>(
    host: &str,
    lookup: impl Future<Output = io::Result<I>>,
    patience: Duration,
) -> Result<Vec<SocketAddr>, Broken> {
    let addresses: Vec<_> = match timeout(patience, lookup).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(broken(HOST, format!("{host}: {error}"), HOST_REMEDY)),
        Err(_) => {
            return Err(broken(
                HOST,
                format!("{host}: no answer of a name server within {patience:?}"),
                "look at /etc/resolv.conf and at the network, or give an IP address",
            ));
        }
    };
    match addresses.is_empty() {
        true => Err(broken(HOST, format!("{host} has no address"), HOST_REMEDY)),
        false => Ok(addresses),
    }
}

const HOST: &str = "host name";
const HOST_REMEDY: &str = "check the name, or give an IP address";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_server_that_does_not_answer_is_not_waited_for() {
        let (started, patience) = (tokio::time::Instant::now(), Duration::from_secs(5));
        let never = std::future::pending::<io::Result<std::iter::Empty<_>>>();
        let Err(Broken(step)) = found("a.host:1", never, patience).await else {
            panic!("it has an address");
        };
        assert_eq!(started.elapsed(), patience);
        assert_eq!(step.step, "host name");
        assert_eq!(step.found, "a.host:1: no answer of a name server within 5s");
    }

    #[test]
    fn an_abstract_name_is_read_back_from_its_address() {
        for name in [&b"app"[..], b"a%b/c?#", b"\xff\0x", "\u{fc}".as_bytes()] {
            assert_eq!(abstract_name(&Address::unix_abstract(name).unwrap()), name);
        }
    }
}
