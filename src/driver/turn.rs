//! What a [`ConnectionTask`](super::connection_task::ConnectionTask) keeps during one turn: [`Turn`], and
//! [`AfterTurn`], what follows it.

use std::time::Instant;

use super::connection_memory::Reading;
use super::error::CloseReason;
use super::output_limit::OutputLimit;

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DriverPhase {
    Open,
    /// The client has closed its writing side. The requests that came before are answered.
    HalfClosed,
    /// The connection has failed, or this end closes it. Only outgoing bytes are still written.
    Closing,
    Over,
}

/// What happened in one turn.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) now: Instant,
    pub(super) reading: Reading,
    /// How much may wait to be sent before no further handler is called.
    pub(super) output_limit: OutputLimit,
    /// Whether the peer has sent something that may not be read now.
    pub(super) unread: bool,
    /// Whether the peer does not continue with what it was asked for.
    pub(super) stalls: bool,
    pub(super) spins: bool,
    /// Whether there may be more to read for which nothing wakes the task.
    pub(super) more: bool,
    /// Whether bytes came.
    pub(super) progress: bool,
    /// Whether the next turn has something to write at once.
    pub(super) has_more_to_write: bool,
    /// Whether this turn takes events that the last one left.
    pub(super) continues: bool,
    /// Whether other tasks get a turn to add to the outgoing bytes before they are written.
    pub(super) lingers: bool,
}

impl Turn {
    /// Returns a turn in which nothing has happened.
    pub(super) fn new(
        now: Instant,
        reading: Reading,
        output_limit: OutputLimit,
        spins: bool,
    ) -> Self {
        Self {
            now,
            reading,
            output_limit,
            unread: false,
            stalls: false,
            spins,
            more: false,
            progress: false,
            has_more_to_write: false,
            continues: false,
            lingers: false,
        }
    }

    pub(super) fn may_read(&self) -> bool {
        self.reading != Reading::Not
    }
}

/// What follows a turn.
#[derive(Debug)]
pub(super) enum AfterTurn {
    /// Another turn, after the other tasks.
    Again,
    /// A turn when something happens.
    Sleep,
    /// No further turn.
    Done(CloseReason),
}
