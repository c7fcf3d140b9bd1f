//! [`LiveHandlers`]: tells when the tasks of a server's handlers have ended.

use tokio::sync::watch;

/// The handlers that are not dropped yet.
#[derive(Debug)]
pub(crate) struct LiveHandlers(watch::Sender<()>);

/// A connection keeps one, and so does the task of each handler until it has dropped the handler.
#[derive(Clone, Debug)]
pub(crate) struct LiveHandler {
    _receiver: watch::Receiver<()>,
}

impl LiveHandlers {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    pub(crate) fn add(&self) -> LiveHandler {
        LiveHandler { _receiver: self.0.subscribe() }
    }

    /// Completes when there is none.
    pub(crate) async fn all_ended(&self) {
        self.0.closed().await;
    }
}
