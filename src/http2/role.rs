//! [`Role`]: which end of the connection this is.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The end that opens streams.
    Client,
    /// The end that answers them.
    Server,
}
