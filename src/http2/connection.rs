//! The connection itself: what it consists of, its beginning and its end, and how streams end.
//! Receiving is in `receive` and `headers`, reading in `read`, sending in `send`, deadlines in `time`.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::arrived::{Arrived, End, Failure, Reset};
use super::block::Block;
use super::budget::{self, Budget, Cost};
use super::closed::ClosedStreams;
use super::config::Config;
use super::draining::Draining;
use super::error::{Cause, ConnectionError, ErrorCode};
use super::event::{Event, Events, GoAway};
use super::flow::{Inflow, MAX_WINDOW};
use super::frame::{self, FrameHeader, kind};
use super::handshake::Handshake;
use super::header_cache::HeaderCache;
use super::hpack::{Decoder, Encoder};
use super::key::StreamKey;
use super::news::News;
use super::outflow::Outflow;
use super::passing::Passing;
use super::pinned::Pinned;
use super::pressure::Pressure;
use super::receive::{MAX_FIELDS, MAX_OPENED};
use super::role::Role;
use super::sent_heads::SentHeads;
use super::settings::{self, PeerSettings};
use super::spare::trim;
use super::stream::{Receiving, Sending, Stream, Streams};
use super::timers::Timers;
use super::write_buffer::WriteBuffer;

/// Answers that may wait for a peer which does not read. As much as one pass of the driver can
/// provoke: no answer is longer than the frames it answers.
pub(super) const MAX_CONTROL: usize = 256 * 1024;

/// The PING whose answer says that the peer has seen the first GOAWAY of a graceful end.
pub(super) const SHUTDOWN_PING: [u8; 8] = *b"goodbye.";

/// The PING that asks a silent peer whether it lives.
pub(super) const KEEP_ALIVE_PING: [u8; 8] = *b"alive?..";

/// One end of an HTTP/2 connection. The module's first lines say how it is used.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) role: Role,
    pub(super) config: Config,
    /// Set once the connection has failed or been closed. Nothing is received or sent any more.
    pub(super) dead: Option<ConnectionError>,
    pub(super) handshake: Handshake,
    pub(super) draining: Draining,
    pub(super) events: Events,
    pub(super) budget: Budget,
    pub(super) timers: Timers,

    // Receiving.
    pub(super) decoder: Decoder,
    pub(super) header_cache: HeaderCache,
    /// A header block that continues in another frame.
    pub(super) block: Option<Box<Block>>,
    pub(super) received: Inflow,
    pub(super) pinned: Pinned,
    pub(super) pressure: Pressure,

    // Both.
    pub(super) passing: Passing,

    // Sending.
    pub(super) peer: PeerSettings,
    pub(super) encoder: Encoder,
    pub(super) sent_heads: SentHeads,
    pub(super) write_buffer: WriteBuffer,
    pub(super) outflow: Outflow,

    // Streams.
    pub(super) streams: Streams,
    pub(super) closed: ClosedStreams,
    pub(super) client: ClientSide,
    pub(super) server: ServerSide,
}

/// What only a client has.
#[derive(Debug)]
pub(super) struct ClientSide {
    /// Of the next request: odd (RFC 9113 §5.1.1).
    pub(super) next_id: u32,
    /// What the server's GOAWAY said.
    pub(super) go_away: Option<GoAway>,
    /// A request was turned away for want of a slot.
    pub(super) wants_slot: bool,
}

/// What only a server has.
#[derive(Debug)]
pub(super) struct ServerSide {
    /// The highest identifier that the peer has used.
    pub(super) last_id: u32,
    /// The highest one that was not refused.
    pub(super) last_accepted: u32,
    /// Where, in all that was ever sent, complete answers end that are not written yet.
    pub(super) unwritten: VecDeque<u64>,
    /// Streams that the peer has opened in this turn.
    pub(super) opened: u32,
    /// Fields that were decoded in this turn.
    pub(super) fields: u32,
}

impl ServerSide {
    /// Whether further requests are for the next turn.
    #[inline]
    pub(super) fn is_turn_over(&self) -> bool {
        self.opened == MAX_OPENED || self.fields > MAX_FIELDS
    }
}

impl Connection {
    /// The end that sends requests.
    pub(crate) fn client(config: Config, now: Instant) -> Self {
        let mut connection = Self::new(Role::Client, config, now);
        connection.write_buffer.buffer().put_slice(frame::PREFACE);
        connection.introduce();
        connection
    }

    /// The end that answers them.
    pub(crate) fn server(config: Config, now: Instant) -> Self {
        let mut connection = Self::new(Role::Server, config, now);
        connection.introduce();
        connection
    }

    fn new(role: Role, config: Config, now: Instant) -> Self {
        Self {
            role,
            config,
            dead: None,
            handshake: Handshake::new(role),
            draining: Draining::No,
            events: Events::default(),
            budget: Budget::new(now),
            timers: Timers::new(now),
            decoder: Decoder::new(4096),
            header_cache: HeaderCache::default(),
            block: None,
            received: Inflow::new(config.connection_window),
            pinned: Pinned::default(),
            pressure: Pressure::default(),
            passing: Passing::default(),
            peer: PeerSettings {
                max_concurrent_streams: config.initial_max_streams,
                ..PeerSettings::new()
            },
            encoder: Encoder::new(),
            sent_heads: SentHeads::default(),
            write_buffer: WriteBuffer::default(),
            outflow: Outflow::new(),
            streams: Streams::default(),
            closed: ClosedStreams::default(),
            client: ClientSide { next_id: 1, go_away: None, wants_slot: false },
            server: ServerSide {
                last_id: 0,
                last_accepted: 0,
                unwritten: VecDeque::new(),
                opened: 0,
                fields: 0,
            },
        }
    }

    /// Sends our SETTINGS and the connection's window.
    fn introduce(&mut self) {
        settings::write_ours(&self.config, self.role, self.write_buffer.buffer());
        let more = self.received.first_increment();
        if more > 0 {
            self.write_control(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }

    // ---- Events ----------------------------------------------------------------------------

    /// What happened. Ask after [`receive`](Self::receive), [`advance`](Self::advance) and
    /// [`on_timeout`](Self::on_timeout), until there is nothing.
    #[inline]
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.poll(&mut self.streams)
    }

    /// Whether [`poll_event`](Self::poll_event) may have something.
    #[inline]
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// What the peer said when it announced the connection's end, if it did.
    pub(crate) fn peer_go_away(&self) -> Option<&GoAway> {
        self.client.go_away.as_ref()
    }

    // ---- What the application does to a stream ---------------------------------------------

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

    // ---- The connection's end --------------------------------------------------------------

    /// Lets what is in flight finish, and takes no more. [`is_done`](Self::is_done) says when.
    ///
    /// A server first says so without naming a last stream, and names it when the peer has answered
    /// a PING, so that no request under way is lost (RFC 9113 §6.8).
    pub(crate) fn go_away(&mut self) {
        if self.dead.is_some() || self.draining != Draining::No {
            return;
        }
        match self.role {
            Role::Client => {
                self.draining = Draining::Final;
                self.write_go_away(0, ErrorCode::NO_ERROR, "");
            }
            Role::Server => {
                self.draining = Draining::Announced;
                self.write_go_away(MAX_WINDOW, ErrorCode::NO_ERROR, "");
                if self.handshake.is_introduced() {
                    self.write_control(kind::PING, 0, 0, &SHUTDOWN_PING);
                } else {
                    // Nothing can be under way from a peer that has not sent its SETTINGS.
                    self.name_last_stream();
                }
            }
        }
    }

    /// The second GOAWAY.
    pub(super) fn name_last_stream(&mut self) {
        if self.draining == Draining::Announced {
            self.draining = Draining::Final;
            self.write_go_away(self.server.last_accepted, ErrorCode::NO_ERROR, "");
        }
    }

    /// Ends the connection now. Only what [`outgoing`](Self::outgoing) has is still to be written.
    pub(crate) fn close(&mut self, code: ErrorCode, why: &'static str) {
        self.fail(ConnectionError { code, cause: Cause::Local, why });
    }

    /// Whether nothing is left to do: no more streams will come, none is open, all is written.
    pub(crate) fn is_done(&self) -> bool {
        let ends = self.dead.is_some()
            || self.draining == Draining::Final
            || self.client.go_away.is_some();
        ends && (self.dead.is_some() || self.streams.len() == 0) && self.write_buffer.len() == 0
    }

    /// Whether this end has told the other one that it takes no more streams.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining != Draining::No
    }

    /// Why the connection ended, if it did.
    pub(crate) fn failure(&self) -> Option<ConnectionError> {
        self.dead
    }

    pub(super) fn fail(&mut self, error: ConnectionError) -> ConnectionError {
        if let Some(earlier) = self.dead {
            return earlier;
        }
        let last = match self.role {
            Role::Client => 0,
            Role::Server => self.server.last_accepted,
        };
        self.write_go_away(last, error.code, error.why);
        self.dead = Some(error);
        self.end_streams();
        error
    }

    /// Ends the connection without a word: the socket has failed, or the peer has closed it. What
    /// has arrived can still be read.
    pub(crate) fn lose(&mut self) {
        if self.dead.is_none() {
            let why = "the connection was lost";
            self.dead =
                Some(ConnectionError { code: ErrorCode::NO_ERROR, cause: Cause::Local, why });
            self.end_streams();
            self.write_buffer.clear();
            self.passing.clear();
        }
    }

    /// The peer sends nothing more, and reads on: whole requests are answered, others are not.
    pub(crate) fn end_of_input(&mut self) {
        self.draining = Draining::Final;
        self.handshake.settings_came();
        self.handshake.acknowledged();
        self.block = None;
        self.timers.input_ended();
        self.config.keep_alive = None;
        for key in self.streams.keys() {
            if self.streams.get(key).is_some_and(|stream| stream.receiving != Receiving::Done) {
                self.lose_stream(key);
            }
        }
    }

    /// With the connection all its streams end.
    fn end_streams(&mut self) {
        self.outflow.clear_ready();
        self.block = None;
        self.client.wants_slot = false;
        for key in self.streams.keys() {
            self.lose_stream(key);
        }
    }

    /// A stream ends that nothing can come on any more.
    fn lose_stream(&mut self, key: StreamKey) {
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

    // ---- Bytes out ------------------------------------------------------------------------

    /// Fills `slices` with what is to be written first, and says how many it filled. A frame that a
    /// set of descriptors goes with comes alone.
    pub(crate) fn outgoing<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.write_buffer.slices(slices, self.passing.limit(self.write_buffer.written()))
    }

    /// All of it, if that is one piece and no descriptors go with it.
    #[inline]
    pub(crate) fn contiguous(&self) -> Option<&[u8]> {
        if self.passing.sends() { None } else { self.write_buffer.contiguous() }
    }

    /// Bytes that were ever written.
    pub(crate) fn written(&self) -> u64 {
        self.write_buffer.written()
    }

    pub(crate) fn outgoing_len(&self) -> usize {
        self.write_buffer.len()
    }

    pub(crate) fn has_outgoing(&self) -> bool {
        self.write_buffer.len() > 0
    }

    /// So many bytes of [`outgoing`](Self::outgoing) were written. More may take their place.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.write_buffer.advance(bytes);
        let written = self.write_buffer.written();
        while self.server.unwritten.front().is_some_and(|end| *end <= written) {
            self.server.unwritten.pop_front();
        }
        if self.outflow.has_ready() {
            self.pump();
        }
    }

    // ---- What it is like -------------------------------------------------------------------

    /// Streams that are open on the wire or not forgotten.
    pub(crate) fn active_streams(&self) -> usize {
        self.streams.len()
    }

    /// Data given to [`send_data`](Self::send_data) that waits for windows or for room.
    pub(crate) fn queued_len(&self) -> u64 {
        self.outflow.queued()
    }

    /// Bytes that are kept here: received and not dropped, given to be sent and not written.
    /// [`calls`](Self::calls) come on top.
    #[inline]
    pub(crate) fn buffered(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| block.bytes.capacity());
        let received = self.received.copied as usize + self.pinned.bytes() + block;
        received + self.outflow.queued() as usize + self.write_buffer.len()
    }

    /// Bytes that calls take by being open: their heads, what their handlers keep of their requests,
    /// and entries in tables.
    #[inline]
    pub(crate) fn calls(&self) -> usize {
        self.streams.held()
    }

    /// The peer may send this much before anything is read.
    #[cfg(test)]
    pub(crate) fn receive_allowance(&self) -> u32 {
        self.received.available()
    }

    /// Whether there is a buffer to encode into. One can be lent, instead of a new one.
    pub(crate) fn has_buffer(&self) -> bool {
        self.write_buffer.has_buffer()
    }

    /// In place of a buffer that is not there.
    pub(crate) fn lend_buffer(&mut self, buffer: BytesMut) {
        self.write_buffer.lend(buffer);
    }

    /// The buffer, if nothing is in it.
    pub(crate) fn unused_buffer(&mut self) -> Option<BytesMut> {
        self.write_buffer.unused()
    }

    /// Gives back memory that an idle connection does not need. Costs little when there is none, and
    /// nothing where there are streams.
    pub(crate) fn trim(&mut self) {
        self.write_buffer.trim();
        self.passing.trim();
        if self.streams.len() == 0 {
            self.events.trim();
            self.outflow.trim();
            trim(&mut self.server.unwritten);
            self.streams.trim();
            self.closed.trim();
        }
    }

    // ---- Shared by receiving and sending ---------------------------------------------------

    /// Writes a frame that carries neither head nor data.
    pub(super) fn write_control(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        if self.dead.is_some() {
            return;
        }
        let header = FrameHeader { len: payload.len() as u32, kind, flags, stream };
        let out = self.write_buffer.buffer();
        out.reserve(frame::HEADER_LEN + payload.len());
        out.put_slice(&header.bytes());
        out.put_slice(payload);
        self.write_buffer.count_control(frame::HEADER_LEN + payload.len());
    }

    /// The peer made us answer. It has to read the answers, too.
    pub(super) fn check_control(&mut self) -> Result<(), ConnectionError> {
        if self.write_buffer.count_control(0) > MAX_CONTROL {
            return Err(ConnectionError::limit("the peer does not read the answers it provokes"));
        }
        Ok(())
    }

    fn write_go_away(&mut self, last: u32, code: ErrorCode, debug: &str) {
        let mut payload = Vec::with_capacity(8 + debug.len());
        payload.extend_from_slice(&last.to_be_bytes());
        payload.extend_from_slice(&code.0.to_be_bytes());
        payload.extend_from_slice(debug.as_bytes());
        self.write_control(kind::GOAWAY, 0, 0, &payload);
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

    /// Tells a client that waits for a slot that there is one.
    pub(super) fn offer_slots(&mut self) {
        if self.client.wants_slot && self.streams.open() < self.peer.max_concurrent_streams as usize
        {
            self.client.wants_slot = false;
            self.events.slots_available();
        }
    }

    pub(super) fn find(&mut self, id: u32) -> Option<(StreamKey, &mut Stream)> {
        let key = self.streams.find(id)?;
        Some((key, self.streams.get_mut(key)?))
    }
}
