//! The connection itself: what it consists of, its beginning and its end, and what the driver does
//! to streams besides sending. Receiving is in `receive` and `headers`, sending in `send`, deadlines
//! in `time`.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::budget::{self, Budget, Cost};
use super::closed::ClosedStreams;
use super::config::Config;
use super::error::{ErrorCode, Fatal, Fault};
use super::event::{Event, Reset};
use super::flow::{DEFAULT_WINDOW, MAX_WINDOW, ReceiveWindow, SendWindow};
use super::frame::{self, FrameHeader, kind};
use super::headers::Block;
use super::hpack::{Decoder, Encoder};
use super::memo::Memo;
use super::outgoing::Outgoing;
use super::settings::{self, PeerSettings};
use super::stream::{Receiving, Role, Sending, Stream, StreamKey, Streams};
use super::time::Timers;

/// Answers that may wait for a peer which does not read. As much as one pass of the driver can
/// provoke: no answer is longer than the frames it answers.
pub(super) const MAX_CONTROL: usize = 256 * 1024;

/// The PING whose answer says that the peer has seen the first GOAWAY of a graceful end.
pub(super) const SHUTDOWN_PING: [u8; 8] = *b"goodbye.";

/// The PING that asks a silent peer whether it lives.
pub(super) const KEEP_ALIVE_PING: [u8; 8] = *b"alive?..";

/// One end of an HTTP/2 connection.
///
/// The driver's part: pass what it reads to [`receive`](Self::receive) and take every
/// [`next_event`](Self::next_event); call the sending methods; write what
/// [`outgoing`](Self::outgoing) has; and ask [`next_deadline`](Self::next_deadline) before it
/// sleeps.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) role: Role,
    pub(super) config: Config,
    /// Set once the connection has failed or been closed. Nothing is received or sent any more.
    pub(super) dead: Option<Fatal>,
    pub(super) events: VecDeque<Event>,
    pub(super) budget: Budget,
    pub(super) timers: Timers,

    // Receiving.
    pub(super) hello: Hello,
    /// Our SETTINGS are acknowledged: their limits hold (RFC 9113 §6.5.3).
    pub(super) acknowledged: bool,
    pub(super) decoder: Decoder,
    pub(super) memo: Memo,
    /// A header block that continues in another frame.
    pub(super) block: Option<Box<Block>>,
    pub(super) receive_window: ReceiveWindow,

    // Sending.
    pub(super) peer: PeerSettings,
    pub(super) encoder: Encoder,
    pub(super) outgoing: Outgoing,
    pub(super) send_window: SendWindow,
    /// Streams with something to send and the window for it, each once.
    pub(super) ready: VecDeque<StreamKey>,
    /// What all streams have queued.
    pub(super) queued: u64,
    /// PINGs of the driver's that are not answered.
    pub(super) pings: Vec<[u8; 8]>,

    // Streams.
    pub(super) streams: Streams,
    pub(super) closed: ClosedStreams,
    /// Not closed on the wire.
    pub(super) open: usize,
    pub(super) client: ClientSide,
    pub(super) server: ServerSide,
}

/// What the peer has to send before anything else (RFC 9113 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    Preface,
    Settings,
    Done,
}

/// What only a client has.
#[derive(Debug)]
pub(super) struct ClientSide {
    /// Of the next request: odd (RFC 9113 §5.1.1).
    pub(super) next_id: u32,
    /// The last stream that a GOAWAY said may be processed.
    pub(super) last_processed: Option<u32>,
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
}

/// How far this end has come in ending the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// Announced; streams that the peer opened before it knew are still taken.
    Announced,
    /// The last stream is named: none after it are taken.
    Final,
}

impl Connection {
    /// The end that sends requests.
    pub(crate) fn client(config: Config, now: Instant) -> Self {
        let mut connection = Self::new(Role::Client, config, now);
        connection.outgoing.buffer().put_slice(frame::PREFACE);
        connection.greet();
        connection
    }

    /// The end that answers them.
    pub(crate) fn server(config: Config, now: Instant) -> Self {
        let mut connection = Self::new(Role::Server, config, now);
        connection.greet();
        connection
    }

    fn new(role: Role, config: Config, now: Instant) -> Self {
        Self {
            role,
            config,
            dead: None,
            events: VecDeque::new(),
            budget: Budget::new(now),
            timers: Timers::new(now),
            hello: match role {
                Role::Client => Hello::Settings,
                Role::Server => Hello::Preface,
            },
            acknowledged: false,
            decoder: Decoder::new(4096),
            memo: Memo::default(),
            block: None,
            // A smaller one than the default cannot be had: nothing shrinks it (§6.9.2).
            receive_window: ReceiveWindow::new(config.connection_window.max(DEFAULT_WINDOW)),
            peer: PeerSettings {
                max_concurrent_streams: config.initial_max_streams,
                ..PeerSettings::new()
            },
            encoder: Encoder::new(),
            outgoing: Outgoing::default(),
            send_window: SendWindow::new(DEFAULT_WINDOW),
            ready: VecDeque::new(),
            queued: 0,
            pings: Vec::new(),
            streams: Streams::default(),
            closed: ClosedStreams::default(),
            open: 0,
            client: ClientSide { next_id: 1, last_processed: None, wants_slot: false },
            server: ServerSide { last_id: 0, last_accepted: 0, unwritten: VecDeque::new() },
        }
    }

    /// Our SETTINGS, and the connection's window, which SETTINGS cannot change (§6.9.2).
    fn greet(&mut self) {
        settings::write_ours(&self.config, self.role, self.outgoing.buffer());
        let more = self.config.connection_window.min(MAX_WINDOW).saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            self.write_control(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }

    // ---- Events ----------------------------------------------------------------------------

    /// What happened, oldest first. Ask after [`receive`](Self::receive),
    /// [`advance`](Self::advance) and [`on_deadline`](Self::on_deadline), until there is none.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        while let Some(event) = self.events.pop_front() {
            let Some(key) = event.stream() else {
                return Some(event);
            };
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            if stream.forgotten {
                continue;
            }
            stream.announced |=
                matches!(event, Event::Request { .. } | Event::RequestTooLarge { .. });
            return Some(event);
        }
        None
    }

    // ---- What the application does to a stream ---------------------------------------------

    /// The application has done with `octets` of a stream's data: the peer may send as many more.
    /// Nothing, once the stream is forgotten: that released all the rest.
    pub(crate) fn release(&mut self, key: StreamKey, octets: usize) {
        if self.dead.is_some() {
            return;
        }
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let octets = stream.held.min(u32::try_from(octets).unwrap_or(u32::MAX));
        stream.held -= octets;
        if stream.receiving != Receiving::Done
            && let Some(increment) = stream.receive_window.release(octets)
        {
            let id = stream.id;
            self.write_control(kind::WINDOW_UPDATE, 0, id, &increment.to_be_bytes());
        }
        self.release_connection(octets);
    }

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
        let held = std::mem::take(&mut stream.held);
        let code = match self.role {
            Role::Client if !stream.is_closed() => Some(ErrorCode::CANCEL),
            Role::Server if matches!(stream.sending, Sending::Head | Sending::Body) => {
                Some(ErrorCode::INTERNAL_ERROR)
            }
            _ => None,
        };
        self.release_connection(held);
        match code {
            Some(code) => self.reset_stream(key, code),
            None => self.settle(key),
        }
    }

    /// Ends a stream before its time, unless it has ended already. What is queued for it is
    /// dropped. It is still to be [forgotten](Self::forget), and has no [`Event::Reset`].
    pub(crate) fn reset(&mut self, key: StreamKey, code: ErrorCode) {
        if self.streams.get(key).is_some_and(|stream| !stream.is_closed()) {
            self.reset_stream(key, code);
        }
    }

    // ---- The connection's end --------------------------------------------------------------

    /// Lets what is in flight finish, and takes no more. [`is_done`](Self::is_done) says when.
    ///
    /// A server first says so without naming a last stream, and names it when the peer has answered
    /// a PING, so that no request under way is lost (RFC 9113 §6.8).
    pub(crate) fn go_away(&mut self) {
        if self.dead.is_some() || self.timers.leaving != Leaving::No {
            return;
        }
        match self.role {
            Role::Client => {
                self.timers.leaving = Leaving::Final;
                self.write_go_away(0, ErrorCode::NO_ERROR, "");
            }
            Role::Server => {
                self.timers.leaving = Leaving::Announced;
                self.write_go_away(MAX_WINDOW, ErrorCode::NO_ERROR, "");
                if self.hello == Hello::Done {
                    self.write_control(kind::PING, 0, 0, &SHUTDOWN_PING);
                } else {
                    // Nothing can be under way from a peer that has not said hello.
                    self.name_last_stream();
                }
            }
        }
    }

    /// The second GOAWAY.
    pub(super) fn name_last_stream(&mut self) {
        if self.timers.leaving == Leaving::Announced {
            self.timers.leaving = Leaving::Final;
            self.write_go_away(self.server.last_accepted, ErrorCode::NO_ERROR, "");
        }
    }

    /// Ends the connection now. Only what [`outgoing`](Self::outgoing) has is still to be written.
    pub(crate) fn close(&mut self, code: ErrorCode, why: &'static str) {
        self.fail(Fatal { code, fault: Fault::Local, why });
    }

    /// Whether nothing is left to do: no more streams will come, none is open, all is written.
    pub(crate) fn is_done(&self) -> bool {
        let leaving = self.dead.is_some()
            || self.timers.leaving == Leaving::Final
            || self.client.last_processed.is_some();
        leaving && (self.dead.is_some() || self.streams.len() == 0) && self.outgoing.len() == 0
    }

    /// Why the connection ended, if it did.
    pub(crate) fn failure(&self) -> Option<Fatal> {
        self.dead
    }

    pub(super) fn fail(&mut self, fatal: Fatal) -> Fatal {
        if let Some(earlier) = self.dead {
            return earlier;
        }
        let last = match self.role {
            Role::Client => 0,
            Role::Server => self.server.last_accepted,
        };
        self.write_go_away(last, fatal.code, fatal.why);
        self.dead = Some(fatal);
        self.ready.clear();
        self.block = None;
        self.client.wants_slot = false;
        for key in self.streams.keys() {
            if let Some(stream) = self.streams.get_mut(key) {
                // What the driver does not know of it need not learn.
                stream.forgotten |= !stream.announced;
            }
            self.close_stream(key);
            self.settle(key);
        }
        fatal
    }

    // ---- Octets out ------------------------------------------------------------------------

    /// Fills `slices` with what is to be written first, and says how many it filled.
    pub(crate) fn outgoing<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.outgoing.slices(slices)
    }

    /// All of it, if that is one piece.
    pub(crate) fn contiguous(&self) -> Option<&[u8]> {
        self.outgoing.contiguous()
    }

    /// Octets that were ever written.
    pub(crate) fn written(&self) -> u64 {
        self.outgoing.written()
    }

    /// Whether the next event is about the same stream.
    pub(crate) fn has_more_of(&self, stream: Option<StreamKey>) -> bool {
        self.events.front().is_some_and(|event| event.stream() == stream)
    }

    /// Whether [`next_event`](Self::next_event) may have something.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub(crate) fn outgoing_len(&self) -> usize {
        self.outgoing.len()
    }

    pub(crate) fn has_outgoing(&self) -> bool {
        self.outgoing.len() > 0
    }

    /// So many octets of [`outgoing`](Self::outgoing) were written. More may take their place.
    pub(crate) fn advance(&mut self, octets: usize) {
        self.outgoing.advance(octets);
        let written = self.outgoing.written();
        while self.server.unwritten.front().is_some_and(|end| *end <= written) {
            self.server.unwritten.pop_front();
        }
        if !self.ready.is_empty() {
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
        self.queued
    }

    /// Octets that are kept here or with the application's streams: received and not released,
    /// given to be sent and not written.
    #[inline]
    pub(crate) fn buffered(&self) -> usize {
        let window = i64::from(self.config.connection_window.max(DEFAULT_WINDOW));
        let received = (window - self.receive_window.whole()).max(0) as usize;
        received + self.queued as usize + self.outgoing.len()
    }

    /// The peer may send this much before anything is released.
    #[cfg(test)]
    pub(crate) fn receive_allowance(&self) -> u32 {
        self.receive_window.available()
    }

    /// Nothing of the request has been handed to the socket: it may be sent again elsewhere.
    pub(crate) fn is_unwritten(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_some_and(|stream| self.outgoing.written() <= stream.first_octet)
    }

    /// Whether there is a buffer to encode into. One can be lent, instead of a new one.
    pub(crate) fn has_buffer(&self) -> bool {
        self.outgoing.has_buffer()
    }

    /// In place of a buffer that is not there.
    pub(crate) fn lend_buffer(&mut self, buffer: BytesMut) {
        self.outgoing.lend(buffer);
    }

    /// The buffer, if nothing is in it.
    pub(crate) fn unused_buffer(&mut self) -> Option<BytesMut> {
        self.outgoing.unused()
    }

    /// Gives back memory that an idle connection does not need. Costs little when there is none, and
    /// nothing where there are streams.
    pub(crate) fn trim(&mut self) {
        self.outgoing.trim();
        if self.streams.len() == 0 {
            trim(&mut self.events);
            trim(&mut self.ready);
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
        let out = self.outgoing.buffer();
        out.reserve(frame::HEADER_LEN + payload.len());
        out.put_slice(&header.octets());
        out.put_slice(payload);
        self.outgoing.count_control(frame::HEADER_LEN + payload.len());
    }

    /// The peer made us answer. It has to read the answers, too.
    pub(super) fn check_control(&mut self) -> Result<(), Fatal> {
        if self.outgoing.count_control(0) > MAX_CONTROL {
            return Err(Fatal::limit("the peer does not read the answers it provokes"));
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

    /// The connection's part of what the application, or nobody, has read.
    #[inline]
    pub(super) fn release_connection(&mut self, octets: u32) {
        if let Some(increment) = self.receive_window.release(octets) {
            self.write_control(kind::WINDOW_UPDATE, 0, 0, &increment.to_be_bytes());
        }
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
            self.queued -= queued as u64;
        }
    }

    /// A peer's fault on a stream that is in the table: reset, and the driver is told.
    pub(super) fn stream_error(
        &mut self,
        key: StreamKey,
        code: ErrorCode,
        why: &'static str,
    ) -> Result<(), Fatal> {
        self.push_reset(key, Reset { code, by_peer: false, never_processed: false, why });
        self.reset_stream(key, code);
        self.budget.spend(Cost::Violation)?;
        self.check_control()
    }

    pub(super) fn push_reset(&mut self, key: StreamKey, reset: Reset) {
        if self.streams.get(key).is_some_and(|stream| !stream.forgotten) {
            self.events.push_back(Event::Reset { stream: key, reset });
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
            self.streams.remove(key);
        }
        if first {
            self.open -= 1;
            if complete {
                if self.role == Role::Server && self.dead.is_none() {
                    self.server.unwritten.push_back(self.outgoing.end());
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
        if self.client.wants_slot && self.open < self.peer.max_concurrent_streams as usize {
            self.client.wants_slot = false;
            self.events.push_back(Event::SlotsAvailable);
        }
    }

    pub(super) fn find(&mut self, id: u32) -> Option<(StreamKey, &mut Stream)> {
        let key = self.streams.find(id)?;
        Some((key, self.streams.get_mut(key)?))
    }
}

/// Entries that a table may keep room for while there are none.
pub(super) const FEW: usize = 8;

fn trim<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > FEW {
        *queue = VecDeque::new();
    }
}
