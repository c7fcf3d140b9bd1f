//! How a stream ends: both of its directions are complete, one of the ends resets it, or the connection
//! is gone; and when it leaves the table of streams.

use bytes::Bytes;

use super::arrived::{Arrived, End, Failure, Reset};
use super::budget::{self, Cost};
use super::connection::Connection;
use super::error::{ConnectionError, ErrorCode};
use super::frame::kind;
use super::key::StreamKey;
use super::news::News;
use super::role::Role;
use super::stream::{Receiving, Sending};

impl Connection {
    /// The driver's side of a stream is gone: no more events for it. A server calls this when the
    /// handler is really dropped, for until then it counts against `max_streams`.
    ///
    /// What was given to be sent is still sent. A request whose response is not complete is
    /// cancelled; a response that was not finished is reset as an internal error; a request whose
    /// rest nobody will read is stopped without blame (RFC 9113 §8.1).
    pub(crate) fn forget(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if stream.forgotten {
            return;
        }
        stream.forgotten = true;
        let unread = std::mem::take(&mut stream.unread);
        let copied = stream.arrived.pieces.copied() as u32;
        stream.arrived = Arrived::default();
        let code = match self.role {
            Role::Client if !stream.is_closed() => Some(ErrorCode::CANCEL),
            Role::Server if matches!(stream.sending, Sending::Head | Sending::Body) => {
                Some(ErrorCode::INTERNAL_ERROR)
            }
            _ => None,
        };
        self.received.release(unread);
        self.received.copied -= copied;
        self.streams.let_go(key);
        match code {
            Some(code) => self.reset_stream(key, code),
            None => self.settle(key),
        }
    }

    /// Ends a stream before its time, unless it has ended already. What is queued for it is
    /// dropped. It is still to be [forgotten](Self::forget), and there is no [`Event::Reset`].
    pub(crate) fn reset(&mut self, key: StreamKey, code: ErrorCode) {
        if self.streams.get(key).is_some_and(|stream| !stream.is_closed()) {
            self.reset_stream(key, code);
        }
    }

    /// Ends a stream before its time, and whoever reads it sees why. It is still to be
    /// [forgotten](Self::forget).
    pub(crate) fn abort(&mut self, key: StreamKey, reset: Reset) {
        if self.streams.get(key).is_some_and(|stream| !stream.is_closed()) {
            self.tell_reset(key, reset);
            self.reset_stream(key, reset.code);
        }
    }

    /// Whether the stream is not forgotten.
    pub(crate) fn is_known(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_some_and(|stream| !stream.forgotten)
    }

    /// A stream ends that nothing can come on any more.
    pub(super) fn lose_stream(&mut self, key: StreamKey) {
        let written = self.write_buffer.written();
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        // The driver need not learn of a request that it has not seen.
        stream.forgotten |= !stream.taken;
        let unprocessed = written <= stream.first_byte;
        stream.arrived.finish(End::Failed(Failure::Lost { unprocessed }));
        self.events.tell(key, stream, News::RESET);
        self.close_stream(key);
        self.settle(key);
    }

    /// RST_STREAM, whatever state the stream is in, and its end.
    pub(super) fn reset_stream(&mut self, key: StreamKey, code: ErrorCode) {
        if self.streams.get(key).is_none() {
            return;
        }
        self.write_control(kind::RST_STREAM, 0, key.id(), &code.0.to_be_bytes());
        if let Some(stream) = self.streams.get_mut(key) {
            stream.reset_by_us = true;
        }
        self.close_stream(key);
        self.settle(key);
    }

    /// Both directions end at once; what is queued is dropped.
    pub(super) fn close_stream(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.sending = Sending::Done;
        stream.receiving = Receiving::Done;
        stream.ready = false;
        stream.wants_writable = false;
        if let Some(backlog) = stream.backlog.take() {
            let queued: usize = backlog.queue.iter().map(Bytes::len).sum();
            self.outflow.dequeue(queued);
        }
    }

    /// Resets a stream in the table for an error of the peer, and tells the driver.
    pub(super) fn stream_error(
        &mut self,
        key: StreamKey,
        code: ErrorCode,
        why: &'static str,
    ) -> Result<(), ConnectionError> {
        let reset = Reset { code, by_peer: false, never_processed: false, why, limit: None };
        self.tell_reset(key, reset);
        self.reset_stream(key, code);
        if self.streams.get(key).is_some_and(|stream| !stream.taken) {
            // No handler has been called for it, and none is.
            self.forget(key);
        }
        self.budget.spend(Cost::Violation)?;
        self.check_control()
    }

    /// The stream ends before its time: the driver is told, unless it has not seen the request.
    pub(super) fn tell_reset(&mut self, key: StreamKey, reset: Reset) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.arrived.finish(End::Failed(Failure::Reset(reset)));
        if stream.taken {
            self.events.tell(key, stream, News::RESET);
        }
    }

    /// Does what a change of a stream's state asks for: a stream that has ended frees its slot, one
    /// that is forgotten as well leaves the table.
    #[inline]
    pub(super) fn settle(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key)
            && stream.sending == Sending::Done
            && (stream.receiving == Receiving::Done || stream.forgotten)
        {
            self.settle_ended(key);
        }
    }

    fn settle_ended(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let early = stream.receiving != Receiving::Done;
        if early {
            // The response is complete, and nobody will read the rest of the request (§8.1).
            stream.reset_by_us = true;
            stream.receiving = Receiving::Done;
        }
        let first = !std::mem::replace(&mut stream.settled, true);
        let complete = early || !(stream.reset_by_us || stream.reset_by_peer);
        if stream.forgotten {
            if stream.reset_by_us && !stream.peer_ended {
                self.closed.reset(stream.id, stream.receive_window.available());
            }
            self.received.note_gone(stream.receive_window.grown());
            self.streams.remove(key);
        }
        if first {
            self.streams.close_one();
            if complete {
                if self.role == Role::Server && self.dead.is_none() {
                    self.server.unwritten.push_back(self.write_buffer.end());
                }
                self.budget.earn(budget::CALL_COMPLETED);
            }
        }
        if early {
            let code = ErrorCode::NO_ERROR.0.to_be_bytes();
            self.write_control(kind::RST_STREAM, 0, key.id(), &code);
        }
        if self.client.wants_slot {
            self.offer_slots();
        }
    }
}
