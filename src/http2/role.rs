//! [`Role`]: which end of the connection this is.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Opens streams.
    Client,
    /// Answers them.
    Server,
}
