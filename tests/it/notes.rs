//! An observer that writes down its events.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use samehost::{Event, Observer};

/// An observer that writes down its events.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Observer for Notes {
    fn observe(&self, event: &Event<'_>) {
        let note = match event {
            Event::ConnectionOpened { connection, .. } => format!("opened {}", connection.number()),
            Event::ConnectionClosed { connection, error, .. } => {
                let how = error.map_or("well", |_| "by an error");
                format!("closed {} {how}", connection.number())
            }
            Event::ConnectBegan { .. } => "connecting".to_owned(),
            Event::ConnectFailed { error, .. } => format!("failed {:?}", error.kind()),
            Event::BackoffBegan { .. } => "backoff".to_owned(),
            Event::GoAwayReceived { connection, code, .. } => {
                format!("received go away {} {code}", connection.number())
            }
            Event::ConnectionRefused { reason, .. } => format!("refused {reason:?}"),
            Event::GoAwaySent { connection, reason, .. } => {
                format!("go away {} {reason:?}", connection.number())
            }
            Event::CallBegan { call, .. } => {
                let connection = call.connection().map_or(0, |connection| connection.number());
                format!("began {} {connection} {}", call.method(), call.service_is_known())
            }
            Event::CallEnded { call, end, .. } => format!(
                "ended {} {:?} {} {}",
                call.method(),
                end.code(),
                end.sent_bytes(),
                end.received_bytes()
            ),
            Event::DrainBegan { connections, .. } => format!("drain of {connections}"),
            Event::DrainEnded { cut_off, .. } => format!("drained, {cut_off} cut off"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(note);
    }
}

impl Notes {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits for a note, which may come after the other end has finished.
    pub(crate) async fn until(&self, note: &str) {
        let started = std::time::Instant::now();
        while !self.all().iter().any(|one| one == note) {
            let late = started.elapsed() > Duration::from_secs(60);
            assert!(!late, "no {note:?} within 60 s: {:?}", self.all());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
