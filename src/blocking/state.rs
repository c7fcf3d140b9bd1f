//! [`BlockingState`]: what is known of a connection, and who waits for what.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rustix::io::Errno;

use super::reader::{BlockingRead, BlockingReader};
use super::waiting::{WaitingThreads, WaitsFor};
use super::watched::ConnectionNews;
use crate::driver::{CloseReason, StreamError};
use crate::http2::{self, Failure, ProtocolEvent};

/// The state that a waiting thread checks.
pub(super) struct BlockingState {
    pub(super) h2: http2::Connection,
    /// Whether the server's SETTINGS have come.
    pub(super) ready: bool,
    pub(super) close_reason: Option<CloseReason>,
    /// Why the socket takes no more bytes. The connection ends once the server was heard out.
    pub(super) broken: Option<Errno>,
    /// Whether the server has announced its end. It may do so more than once.
    is_going_away: bool,
    /// The reader, unless a thread is reading with it.
    pub(super) reader: Option<BlockingReader>,
    /// Whether the thread that reads waits for a slot.
    pub(super) reads_for_slot: bool,
    /// Whether that thread is still to be told that a slot is free.
    pub(super) has_free_slot: bool,
    pub(super) waiting: WaitingThreads,
    /// What observers were not told yet. It stays empty if there are none.
    pub(super) news: Vec<ConnectionNews>,
    is_observed: bool,
}

impl BlockingState {
    /// Returns the state of a connection whose server has said nothing yet.
    pub(super) fn new(h2: http2::Connection, reader: BlockingReader, is_observed: bool) -> Self {
        Self {
            h2,
            ready: false,
            close_reason: None,
            broken: None,
            is_going_away: false,
            reader: Some(reader),
            reads_for_slot: false,
            has_free_slot: false,
            waiting: WaitingThreads::default(),
            news: Vec::new(),
            is_observed,
        }
    }

    /// Notes that the connection has ended if a read has failed.
    pub(super) fn note_end(&mut self, received: io::Result<BlockingRead>) {
        match received {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.disconnect(CloseReason::Closed)
            }
            Err(error) => self.disconnect(CloseReason::Io(Arc::new(error))),
        }
    }

    /// Returns whether it will end as soon as the server was heard out.
    pub(super) fn is_ending(&self) -> bool {
        self.broken.is_some() && self.close_reason.is_none()
    }

    /// Returns whether nothing more can be written.
    pub(super) fn has_failed(&self) -> bool {
        self.broken.is_some() || self.close_reason.is_some()
    }

    pub(super) fn parse(&mut self, input: &mut BytesMut) {
        let now = Instant::now();
        while !input.is_empty() {
            match self.h2.receive(input, now) {
                Ok(http2::ReceiveOutcome::Some) => {}
                Ok(http2::ReceiveOutcome::All) => break,
                Err(error) => {
                    let close_reason = if self.ready {
                        CloseReason::Http2(error)
                    } else {
                        CloseReason::NotHttp2(error)
                    };
                    self.disconnect(close_reason);
                    break;
                }
            }
        }
        self.take_events();
    }

    pub(super) fn take_events(&mut self) {
        while let Some(event) = self.h2.poll_event() {
            match event {
                ProtocolEvent::Ready => {
                    self.ready = true;
                    self.note(|| ConnectionNews::Ready);
                }
                ProtocolEvent::GoAway => self.went_away(),
                ProtocolEvent::SlotsAvailable => {
                    self.has_free_slot = true;
                    self.waiting.wake_for_slot();
                }
                ProtocolEvent::Opened(_) => {}
                ProtocolEvent::Readable(key)
                | ProtocolEvent::Writable(key)
                | ProtocolEvent::Reset(key) => self.waiting.wake(key),
            }
        }
    }

    /// Wakes the threads that have to go on after one that no longer waits.
    pub(super) fn hand_on(&mut self, waits_for: WaitsFor, was_woken: bool) {
        if was_woken && waits_for == WaitsFor::Slot {
            self.has_free_slot = true;
            self.waiting.wake_for_slot();
        }
        if self.reader.is_some() {
            self.waiting.wake_reader();
        }
    }

    /// The server may still answer the calls that it has taken (RFC 9113 §6.8).
    fn went_away(&mut self) {
        self.waiting.wake_all();
        if let Some(code) = self.h2.peer_go_away().map(|go_away| go_away.code)
            && !std::mem::replace(&mut self.is_going_away, true)
        {
            self.note(|| ConnectionNews::GoingAway(code));
        }
    }

    /// Returns why it has ended, or takes no more calls because of an error, if so.
    pub(super) fn end(&self) -> Option<CloseReason> {
        self.close_reason.clone().or_else(|| CloseReason::of_go_away(&self.h2))
    }

    pub(super) fn disconnect(&mut self, close_reason: CloseReason) {
        if self.close_reason.is_none() {
            // The GOAWAY tells more.
            let close_reason = CloseReason::of_go_away(&self.h2).unwrap_or(close_reason);
            self.note(|| ConnectionNews::Ended(close_reason.clone()));
            self.close_reason = Some(close_reason);
        }
        self.h2.disconnect();
        self.waiting.wake_all();
    }

    fn note(&mut self, news: impl FnOnce() -> ConnectionNews) {
        if self.is_observed {
            self.news.push(news());
        }
    }

    /// Returns the error for a failure of a stream.
    pub(super) fn error(&self, failure: Failure) -> StreamError {
        StreamError::new(failure, self.end().as_ref())
    }
}
