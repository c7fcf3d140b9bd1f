//! The spans of connections, on both ends.

use tracing::{Level, Span};

use super::Side;
use super::names::{peer_address, server_address};
use super::peer_name::PeerName;
use crate::address::Address;
use crate::socket::Peer;

/// Returns the span of a connection if spans are collected (INFO). Its field names are
/// OpenTelemetry's, where it has conventions for them. A server's span is named "connection", and a
/// channel's "channel connection". A channel's span has no parent, because the connection outlives
/// the call that has opened it.
pub(crate) fn connection_span(side: Side, address: Option<&Address>, peer: &Peer) -> Span {
    if !tracing::enabled!(Level::INFO) {
        return Span::none();
    }
    let PeerName { uid, gid, pid, command } = PeerName::of(peer.identity());
    let (transport, remote) = match peer {
        Peer::Unix(_) => (Some("unix"), None),
        Peer::Tcp(peer) => (Some("tcp"), Some(peer_address(peer.remote_addr()))),
        Peer::Unknown => (None, None),
    };
    let address = address.map(server_address);
    macro_rules! span {
        ($($name:tt)+) => {
            tracing::info_span!(
                $($name)+,
                network.transport = transport,
                server.address = address.as_ref().map(|(address, _)| address),
                server.port = address.as_ref().and_then(|(_, port)| *port),
                network.peer.address = remote.as_ref().map(|(address, _)| address),
                network.peer.port = remote.as_ref().map(|(_, port)| *port),
                uid,
                gid,
                pid,
                command,
            )
        };
    }
    match side {
        Side::Server => span!("connection"),
        Side::Client => span!(parent: None, "channel connection"),
    }
}
