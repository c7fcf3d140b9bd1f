//! Addresses in the words of OpenTelemetry's conventions (v1.45.0).

use std::net::SocketAddr;

use crate::address::{Address, Kind};

/// Returns an address' values of `server.address` and `server.port`. The first is the path of a
/// Unix socket, `@` and the name of an abstract one, or a host or IP address, which also has a
/// port.
pub(crate) fn server_address(address: &Address) -> (String, Option<u16>) {
    match address.kind() {
        Kind::Unix(path) => (path.to_string_lossy().into_owned(), None),
        Kind::UnixAbstract(name) => (format!("@{}", name.escape_ascii()), None),
        Kind::Tcp(address) => (address.ip().to_string(), Some(address.port())),
        Kind::Host(host, port) => (host.clone(), Some(*port)),
    }
}

/// Returns the values of `network.peer.address` and `network.peer.port`.
pub(crate) fn peer_address(peer: SocketAddr) -> (String, u16) {
    (peer.ip().to_string(), peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_address_has_its_name() {
        for (address, name, port) in [
            ("unix:/run/a%20b.sock", "/run/a b.sock", None),
            ("unix-abstract:app", "@app", None),
            ("127.0.0.1:50051", "127.0.0.1", Some(50051)),
            ("[::1]:50051", "::1", Some(50051)),
            ("localhost:50051", "localhost", Some(50051)),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(server_address(&address), (name.to_owned(), port));
        }
    }
}
