//! [`Draining`]: how far this end has come in ending the connection gracefully (RFC 9113 §6.8).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draining {
    No,
    /// The end is announced; streams that the peer opened before it knew are still taken.
    Announced,
    /// The last stream is named: none after it are taken.
    Final,
}
