//! [`Together`]: several addresses are bound, or none of them.

use tokio::sync::watch;

/// Lets bindings wait for each other: no socket is taken over before all the others are bound or ready to
/// be taken over. A binding that fails is dropped together with those that wait, and then nothing has
/// changed at any address.
pub(super) struct Together(watch::Sender<usize>);

impl Together {
    /// Returns what a number of bindings wait for.
    pub(super) fn new(bindings: usize) -> Self {
        Self(watch::Sender::new(bindings))
    }

    /// Returns the part of one of the bindings.
    pub(super) fn part(&self) -> Part<'_> {
        Part { together: self, is_ready: false }
    }
}

/// One of the bindings.
pub(super) struct Part<'a> {
    together: &'a Together,
    is_ready: bool,
}

impl Part<'_> {
    /// Notes that this binding is ready, and completes when all are.
    pub(super) async fn ready(&mut self) {
        let Together(unready) = self.together;
        if !std::mem::replace(&mut self.is_ready, true) {
            unready.send_modify(|unready| *unready -= 1);
        }
        // The sender lives as long as its parts.
        let _ = unready.subscribe().wait_for(|unready| *unready == 0).await;
    }
}
