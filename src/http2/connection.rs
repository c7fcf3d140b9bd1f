//! The connection itself: what it consists of, its beginning, its events and the bytes to be written.
//! Receiving is in `receive` and `headers`, reading in `read`, sending in `send_head` and `send`, deadlines
//! in `time`, the ends in `stream_end` and `connection_end`.

use std::io::IoSlice;
use std::time::Instant;

use bytes::{BufMut, BytesMut};

use super::block::Block;
use super::budget::Budget;
use super::closed::ClosedStreams;
use super::config::Config;
use super::draining::{Draining, Notice};
use super::error::ConnectionError;
use super::event::{Events, GoAway, ProtocolEvent};
use super::flow::{Inflow, Pressure};
use super::frame::{self, FrameHeader, kind};
use super::handshake::Handshake;
use super::header_cache::HeaderCache;
use super::hpack::{Decoder, Encoder};
use super::key::StreamKey;
use super::outflow::Outflow;
use super::passing::Passing;
use super::pinned::Pinned;
use super::role::Role;
use super::sent_heads::SentHeads;
use super::settings::{self, PeerSettings};
use super::sides::{ClientSide, ReceiveTurn, ServerSide};
use super::spare;
use super::stream::{Stream, Streams};
use super::timers::Timers;
use super::unopened::WholeRequests;
use super::unwritten::Unwritten;
use super::write_buffer::WriteBuffer;

/// How many bytes of answers may wait for a peer that does not read. One turn of the driver cannot
/// cause more: no answer is longer than the frames that it answers.
pub(super) const MAX_CONTROL: usize = 256 * 1024;

/// One end of an HTTP/2 connection. The first lines of the module explain its use.
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
    /// The header of DATA that arrives in parts, and its length without the parts that have come.
    pub(super) partial_data: Option<FrameHeader>,
    pub(super) received: Inflow,
    pub(super) pinned: Pinned,
    /// The streams that have parts of the last read buffer, which are copied if they are not read.
    #[allow(clippy::box_collection, reason = "an idle connection has room for it")]
    pub(super) lent: Option<Box<Vec<StreamKey>>>,
    pub(super) pressure: Pressure,

    /// The peer's last GOAWAY.
    pub(super) peer_goes_away: Option<GoAway>,
    pub(super) turn: ReceiveTurn,

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

impl Connection {
    /// Returns the end that sends requests.
    pub(crate) fn client(config: Config, now: Instant) -> Self {
        let mut connection = Self::new(Role::Client, config, now);
        connection.write_buffer.buffer().put_slice(frame::PREFACE);
        connection.introduce();
        connection
    }

    /// Returns the end that answers requests.
    pub(crate) fn server(config: Config, now: Instant) -> Self {
        let mut connection = Self::new(Role::Server, config, now);
        connection.introduce();
        connection
    }

    #[inline]
    pub(crate) fn is_client(&self) -> bool {
        self.role == Role::Client
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
            partial_data: None,
            received: Inflow::new(config.connection_window),
            pinned: Pinned::default(),
            lent: None,
            pressure: Pressure::default(),
            peer_goes_away: None,
            turn: ReceiveTurn::default(),
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
            client: ClientSide { next_id: 1, wants_slot: false },
            server: ServerSide {
                last_id: 0,
                last_accepted: 0,
                notice: Notice::default(),
                unwritten: Unwritten::default(),
                whole: WholeRequests::default(),
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

    /// Returns the next event. Call it after [`receive`](Self::receive), [`advance`](Self::advance)
    /// and [`on_timeout`](Self::on_timeout), until there is none.
    ///
    /// A server that does not [take](Self::take_whole) the requests that have arrived whole before
    /// has events for these, too.
    #[inline]
    pub(crate) fn poll_event(&mut self) -> Option<ProtocolEvent> {
        let event = self.events.poll(&mut self.streams);
        if event.is_none() && self.whole_requests() > 0 {
            self.open_whole_requests();
            return self.events.poll(&mut self.streams);
        }
        event
    }

    /// Returns whether [`poll_event`](Self::poll_event) may have an event of something else than a
    /// request that has arrived whole.
    #[inline]
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Returns the peer's announcement of the connection's end, if it has sent one.
    pub(crate) fn peer_go_away(&self) -> Option<&GoAway> {
        self.peer_goes_away.as_ref()
    }

    // ---- Bytes out ------------------------------------------------------------------------

    /// Fills `slices` with the bytes to be written first. Returns how many slices it filled. A
    /// frame that descriptors travel with comes alone.
    pub(crate) fn outgoing<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.write_buffer.slices(slices, self.passing.limit(self.write_buffer.written()))
    }

    /// Returns all bytes to be written if they are one piece and no descriptors travel with them.
    #[inline]
    pub(crate) fn contiguous(&self) -> Option<&[u8]> {
        if self.passing.sends() { None } else { self.write_buffer.contiguous() }
    }

    /// Returns how many bytes were ever written.
    pub(crate) fn written(&self) -> u64 {
        self.write_buffer.written()
    }

    pub(crate) fn outgoing_len(&self) -> usize {
        self.write_buffer.len()
    }

    pub(crate) fn has_outgoing(&self) -> bool {
        self.write_buffer.len() > 0
    }

    /// Notes that this many bytes of [`outgoing`](Self::outgoing) were written. More may take their
    /// place.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.write_buffer.advance(bytes);
        self.note_written();
    }

    /// Takes out all bytes to be written, if they are one piece and no descriptors travel with them.
    /// The caller writes them while others may add frames to the connection, but nobody else may write
    /// before [`put_back`](Self::put_back).
    pub(crate) fn take_outgoing(&mut self) -> Option<BytesMut> {
        if self.passing.sends() { None } else { self.write_buffer.take() }
    }

    /// Puts back what [`take_outgoing`](Self::take_outgoing) has taken out, without the bytes that were
    /// written.
    pub(crate) fn put_back(&mut self, rest: BytesMut) {
        self.write_buffer.put_back(rest);
        self.note_written();
    }

    /// Returns whether bytes are being written after [`take_outgoing`](Self::take_outgoing).
    pub(crate) fn is_writing(&self) -> bool {
        self.write_buffer.is_taken()
    }

    fn note_written(&mut self) {
        let written = self.write_buffer.written();
        self.server.unwritten.remove_written(written);
        if self.outflow.has_ready() {
            self.pump();
        }
    }

    // ---- What it is like -------------------------------------------------------------------

    /// Returns the number of streams that are open on the wire or not forgotten.
    #[inline]
    pub(crate) fn active_streams(&self) -> usize {
        self.streams.len() + self.server.whole.len()
    }

    /// Returns how many streams are open on the wire.
    #[inline]
    pub(super) fn open_streams(&self) -> usize {
        self.streams.open() + self.server.whole.len()
    }

    /// Returns how many bytes given to [`send_data`](Self::send_data) wait for windows or for room.
    pub(crate) fn queued_len(&self) -> u64 {
        self.outflow.queued()
    }

    /// Returns how many bytes of data were ever sent.
    #[inline]
    pub(crate) fn data_sent(&self) -> u64 {
        self.outflow.sent()
    }

    /// Returns the number of bytes that are kept here: received and not dropped, or to be sent and
    /// not written. A chunk of data counts whole until the last of it is written. The bytes of
    /// [`call_bytes`](Self::call_bytes) and [`table_bytes`](Self::table_bytes) come in addition.
    #[inline]
    pub(crate) fn buffered(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| block.bytes.capacity());
        let received = self.received.copied + self.pinned.bytes() + block;
        received + self.outflow.kept() + self.write_buffer.kept()
    }

    /// Returns the number of bytes that open calls take: their heads, what their handlers keep of
    /// their requests, and entries in tables.
    #[inline]
    pub(crate) fn call_bytes(&self) -> usize {
        self.streams.held() + self.server.whole.held()
    }

    /// Returns the number of bytes that the connection keeps as long as it lasts: HPACK's table, the
    /// heads that were decoded before, and the streams that it has reset.
    #[inline]
    pub(crate) fn table_bytes(&self) -> usize {
        self.decoder.bytes() + self.header_cache.bytes() + self.closed.bytes()
    }

    /// Returns how much the peer may send before anything is read.
    #[cfg(test)]
    pub(crate) fn receive_allowance(&self) -> u32 {
        self.received.available()
    }

    /// Returns whether there is a buffer to encode into. The caller can lend one, so that none has
    /// to be allocated.
    pub(crate) fn has_buffer(&self) -> bool {
        self.write_buffer.has_buffer()
    }

    /// Lends a buffer if there is none.
    pub(crate) fn lend_buffer(&mut self, buffer: BytesMut) {
        self.write_buffer.lend(buffer);
    }

    /// Takes the buffer if nothing is in it and it is larger than `kept` bytes.
    pub(crate) fn unused_buffer(&mut self, kept: usize) -> Option<BytesMut> {
        self.write_buffer.unused(kept)
    }

    /// Gives back memory that an idle connection does not need. It costs little if there is none,
    /// and does nothing while there are streams.
    pub(crate) fn trim(&mut self) {
        self.write_buffer.trim();
        self.passing.trim();
        if self.active_streams() == 0 {
            self.events.trim();
            self.outflow.trim();
            if self.lent.as_ref().is_some_and(|lent| lent.capacity() > spare::FEW) {
                self.lent = None;
            }
            if self.role == Role::Server {
                self.server.unwritten.trim();
                self.server.whole.trim();
            }
            self.streams.trim();
            self.closed.trim();
        }
    }

    // ---- Shared by receiving and sending ---------------------------------------------------

    /// Writes a frame that has neither a head nor data.
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

    /// Fails if the peer causes many answers and does not read them.
    pub(super) fn check_control(&mut self) -> Result<(), ConnectionError> {
        if self.write_buffer.control_waiting() > MAX_CONTROL {
            return Err(ConnectionError::limit("the peer does not read the answers it provokes"));
        }
        Ok(())
    }

    /// Tells a client that waits for a slot that there is a free one.
    pub(super) fn offer_slots(&mut self) {
        if self.client.wants_slot && self.has_slot() {
            self.client.wants_slot = false;
            self.events.slots_available();
        }
    }

    /// Returns whether the peer takes one more stream now.
    #[inline]
    pub(super) fn has_slot(&self) -> bool {
        self.streams.open() < self.peer.max_concurrent_streams as usize
    }

    pub(super) fn find(&mut self, id: u32) -> Option<(StreamKey, &mut Stream)> {
        let key = self.streams.find(id)?;
        Some((key, self.streams.get_mut(key)?))
    }
}
