//! [`Listeners`]: the listeners that a server serves on.

use crate::socket::Listener;

/// One listener or several, for [`Server::serve`](crate::Server::serve).
#[derive(Debug)]
pub struct Listeners(pub(super) Vec<Listener>);

impl From<Listener> for Listeners {
    fn from(listener: Listener) -> Self {
        Self(vec![listener])
    }
}

impl From<Vec<Listener>> for Listeners {
    fn from(listeners: Vec<Listener>) -> Self {
        Self(listeners)
    }
}

impl<const N: usize> From<[Listener; N]> for Listeners {
    fn from(listeners: [Listener; N]) -> Self {
        Self(listeners.into())
    }
}
