//! How a stream ends: both directions are complete, one end resets it, or the connection has ended.
//! Then it leaves the table of streams.

use bytes::Bytes;

use super::arrived::{Arrived, Failure, MessageEnd, Reset};
use super::budget::{self, Cost};
use super::connection::Connection;
use super::error::{ConnectionError, ErrorCode};
use super::frame::kind;
use super::key::StreamKey;
use super::news::News;
use super::role::Role;
use super::stream::{Receiving, Sending};

impl Connection {
    /// Forgets a stream that the driver has no more use for: there are no more events for it. A
    /// server calls this when the handler is dropped, because the stream counts against
    /// `max_streams` until then.
    ///
    /// What was given to be sent is still sent. A request whose response is not complete is
    /// cancelled. A response that was not finished is reset as an internal error. If the rest of a
    /// request will not be read, the stream is reset without an error (RFC 9113 §8.1).
    pub(crate) fn forget(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if stream.forgotten {
            return;
        }
        stream.forgotten = true;
        self.received.release(std::mem::take(&mut stream.unread));
        self.received.copied -= stream.arrived.pieces.copied();
        if stream.is_closed() {
            // It leaves the table at once, with all that it holds.
            return self.settle_ended(key);
        }
        stream.arrived = Arrived::default();
        let code = match self.role {
            Role::Client => Some(ErrorCode::CANCEL),
            Role::Server if matches!(stream.sending, Sending::Head | Sending::Body) => {
                Some(ErrorCode::INTERNAL_ERROR)
            }
            Role::Server => None,
        };
        self.streams.let_go(key);
        match code {
            Some(code) => self.reset_stream(key, code),
            None => self.settle(key),
        }
    }

    /// Ends a stream early, unless it has ended already. Its queued data is dropped. It still has
    /// to be [forgotten](Self::forget), and there is no [`ProtocolEvent::Reset`](super::ProtocolEvent::Reset).
    pub(crate) fn reset(&mut self, key: StreamKey, code: ErrorCode) {
        if self.streams.get(key).is_some_and(|stream| !stream.is_closed()) {
            self.reset_stream(key, code);
        }
    }

    /// Ends a stream early. Reading it returns the reason. It still has to be
    /// [forgotten](Self::forget).
    pub(crate) fn abort(&mut self, key: StreamKey, reset: Reset) {
        if self.streams.get(key).is_some_and(|stream| !stream.is_closed()) {
            self.tell_reset(key, reset);
            self.reset_stream(key, reset.code);
        }
    }

    /// Returns whether the stream is not forgotten.
    pub(crate) fn is_known(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_some_and(|stream| !stream.forgotten)
    }

    /// Ends a stream on which nothing more can arrive.
    pub(super) fn end_stream(&mut self, key: StreamKey) {
        let handed_over = self.write_buffer.handed_over();
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if !stream.taken {
            // The driver need not be told of a request that it has not seen.
            self.close_stream(key);
            return self.forget(key);
        }
        let unprocessed = handed_over <= stream.first_byte;
        stream.arrived.finish(MessageEnd::Failed(Failure::ConnectionEnded { unprocessed }));
        self.events.tell(key, stream, News::RESET);
        self.close_stream(key);
        self.settle(key);
    }

    /// Sends RST_STREAM, whatever state the stream is in, and ends the stream.
    pub(super) fn reset_stream(&mut self, key: StreamKey, code: ErrorCode) {
        if self.streams.get(key).is_none() {
            return;
        }
        self.write_control(kind::RST_STREAM, 0, key.id(), &code.0.to_be_bytes());
        self.give_up_descriptors(key.id());
        if let Some(stream) = self.streams.get_mut(key) {
            stream.reset_by_us = true;
        }
        self.close_stream(key);
        self.settle(key);
    }

    /// Ends both directions at once. Queued data is dropped.
    pub(super) fn close_stream(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.sending = Sending::Done;
        stream.receiving = Receiving::Done;
        self.drop_queued(key);
    }

    /// Drops the data of a stream that waits to be sent.
    pub(super) fn drop_queued(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.ready = false;
        stream.wants_writable = false;
        if let Some(queued) = stream.queued.take() {
            let bytes: usize = queued.chunks.iter().map(Bytes::len).sum();
            self.outflow.dequeue(bytes);
            self.outflow.end(queued.begun);
        }
    }

    /// Resets a stream in the table because of an error of the peer, and tells the driver.
    pub(super) fn stream_error(
        &mut self,
        key: StreamKey,
        code: ErrorCode,
        why: &'static str,
    ) -> Result<(), ConnectionError> {
        self.reject(key, Reset::new(code, why));
        self.budget.spend(Cost::Violation)?;
        self.check_control()
    }

    /// Resets a stream in the table because of what the peer sent, and tells the driver.
    pub(super) fn reject(&mut self, key: StreamKey, reset: Reset) {
        self.tell_reset(key, reset);
        self.reset_stream(key, reset.code);
        if self.streams.get(key).is_some_and(|stream| !stream.taken) {
            // No handler was called for it, and none will be.
            self.forget(key);
        }
    }

    /// Tells the driver that a stream ended early, unless the driver has not seen the request.
    pub(super) fn tell_reset(&mut self, key: StreamKey, reset: Reset) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.arrived.finish(MessageEnd::Failed(Failure::Reset(reset)));
        if stream.taken {
            self.events.tell(key, stream, News::RESET);
        }
    }

    /// Acts on a change of a stream's state. A stream that has ended frees its slot. If it is also
    /// forgotten, it leaves the table.
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
            // The response is complete, and the rest of the request will not be read (§8.1).
            stream.reset_by_us = true;
            stream.receiving = Receiving::Done;
        }
        let first = !std::mem::replace(&mut stream.settled, true);
        let complete = early || !(stream.reset_by_us || stream.reset_by_peer);
        if stream.forgotten {
            if !stream.peer_ended {
                let window = stream.receive_window.available();
                if stream.reset_by_us {
                    self.closed.reset(stream.id, window);
                }
                if stream.reset_by_peer {
                    self.closed.reset_by_peer(stream.id, window);
                }
            }
            self.received.note_ended(stream.receive_window.grown());
            self.streams.remove(key);
        }
        if first {
            self.streams.close_one();
            if complete {
                self.count_complete(key.id());
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

    /// Notes that the client no longer counts a stream. Returns whether its response is not written
    /// yet, the first time.
    pub(super) fn cancel_unwritten(&mut self, stream: u32) -> bool {
        self.role == Role::Server && self.server.unwritten.cancel(stream)
    }

    /// Counts a call both of whose messages are complete.
    #[inline]
    pub(super) fn count_complete(&mut self, stream: u32) {
        if self.role == Role::Server && self.dead.is_none() {
            self.server.unwritten.push(stream, self.write_buffer.end());
        }
        self.budget.earn(budget::CALL_COMPLETED);
    }
}
