//! [`Together`]: several addresses are bound, or none of them.

use tokio::sync::watch;

/// Lets bindings wait for each other: no socket is taken over before all the others are bound or ready to
/// be taken over. A binding that fails is dropped together with those that wait, and then nothing has
/// changed at any address. They go in order, so that of two processes which want the same sockets in the
/// same order, one gets all.
pub(super) struct Together {
    bindings: usize,
    /// How many are ready.
    ready: watch::Sender<usize>,
}

impl Together {
    /// Returns what a number of bindings wait for.
    pub(super) fn new(bindings: usize) -> Self {
        Self { bindings, ready: watch::Sender::new(0) }
    }

    /// Returns the part of the binding at this position, counted from 0.
    pub(super) fn part(&self, position: usize) -> Part<'_> {
        Part { together: self, position, is_ready: false }
    }

    /// Completes when so many bindings are ready.
    async fn wait_for(&self, bindings: usize) {
        // The sender lives as long as its parts.
        let _ = self.ready.subscribe().wait_for(|ready| *ready >= bindings).await;
    }
}

/// One of the bindings.
pub(super) struct Part<'a> {
    together: &'a Together,
    position: usize,
    is_ready: bool,
}

impl Part<'_> {
    /// Completes when all before it are ready.
    pub(super) async fn those_before(&self) {
        self.together.wait_for(self.position).await;
    }

    /// Notes that this binding is ready, and completes when all are.
    pub(super) async fn ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.together.ready.send_modify(|ready| *ready += 1);
        }
        self.together.wait_for(self.together.bindings).await;
    }
}
