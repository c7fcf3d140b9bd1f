//! Bytes in: cuts frames out of the input, checks them and acts on them. `headers` deals with
//! header blocks, `data` with payloads, and `control` with the connection and its windows.

use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::arrived::{Origin, Piece, Reset};
use super::budget::Cost;
use super::closed::ClosedStream;
use super::connection::Connection;
use super::copied;
use super::error::{ConnectionError, ErrorCode};
use super::frame::{self, FrameHeader, HEADER_LEN, flag, kind};
use super::handshake::Awaited;
use super::pinned::{Pinned, take_spare};
use super::role::Role;
use super::sides::ReceiveTurn;

/// DATA from this size on stays in the read buffer if that is full enough, and then the whole buffer
/// counts ([`Pinned`]). Smaller payloads are copied out of it.
pub(crate) const CUT_OUT: usize = 8 * 1024;

/// A larger read buffer lends nothing, because a caller may leave the lent part unread for a long time,
/// and that keeps the whole buffer. A buffer is only larger if the rest of a frame was kept before a large read.
const MOST_LENDING: usize = (128 + 16) * 1024;

/// How much [`Connection::receive`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceiveOutcome {
    /// The input has no more whole frames.
    All,
    /// The input may have more whole frames, for the connection's next turn.
    Some,
}

/// What comes next in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A usual message, which was received in one step.
    Whole,
    /// The beginning of such a message: its last frame has not arrived completely.
    Partial,
    /// Anything else.
    Other,
}

/// The input, and how much of it is done.
pub(super) struct Input<'a> {
    /// Empty once it is pinned.
    bytes: &'a mut BytesMut,
    fill: Fill,
    /// The former content of `bytes`, if payloads were cut out of it.
    pinned: Option<Bytes>,
    at: usize,
}

/// How full the read buffer is. Whatever is cut out of it keeps its free room, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    /// Less than a quarter. Nothing is cut out of it.
    Low,
    /// Up to three quarters. A payload is cut out of it for a reader that takes it at once.
    Medium,
    High,
}

impl Fill {
    fn of(buffer: &BytesMut) -> Self {
        match buffer.capacity() / 4 {
            quarter if buffer.len() >= 3 * quarter => Self::High,
            quarter if buffer.len() >= quarter => Self::Medium,
            _ => Self::Low,
        }
    }
}

impl<'a> Input<'a> {
    fn new(bytes: &'a mut BytesMut) -> Self {
        let fill = Fill::of(bytes);
        Self { bytes, fill, pinned: None, at: 0 }
    }

    #[inline]
    pub(super) fn rest(&self) -> &[u8] {
        match &self.pinned {
            None => &self.bytes[self.at..],
            Some(pinned) => &pinned[self.at..],
        }
    }

    #[inline]
    pub(super) fn advance(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Takes out `len` bytes, which begin `from` bytes after those that are done. Afterwards these bytes
    /// and the ones before them are done, too. `is_read` tells whether somebody reads the stream.
    #[inline]
    pub(super) fn take(
        &mut self,
        from: usize,
        len: usize,
        is_read: bool,
        pins: &mut Pinned,
    ) -> Piece {
        match self.origin(is_read) {
            Origin::Copied => {}
            origin if len >= CUT_OUT => return self.cut(from, len, origin, pins),
            _ => {}
        }
        self.copied(from, len)
    }

    /// Does the same as [`take`](Self::take) for a payload that is always copied.
    #[inline]
    pub(super) fn copied(&mut self, from: usize, len: usize) -> Piece {
        Piece { bytes: self.copy(from, len), origin: Origin::Copied }
    }

    /// Does the same as [`take`](Self::take) for the end of a payload that is read and arrives in parts.
    /// If it were copied, the frames behind it in this buffer would be copied, too.
    #[inline]
    pub(super) fn take_end(&mut self, from: usize, len: usize, pins: &mut Pinned) -> Piece {
        match self.cuts(true) {
            true if len < CUT_OUT => self.cut(from, len, Origin::Sparse, pins),
            _ => self.take(from, len, true, pins),
        }
    }

    #[inline]
    fn cut(&mut self, from: usize, len: usize, origin: Origin, pins: &mut Pinned) -> Piece {
        let start = self.at + from;
        let pinned = self.pinned.get_or_insert_with(|| pins.pin(std::mem::take(self.bytes)));
        self.at = start + len;
        Piece { bytes: pinned.slice(start..start + len), origin }
    }

    /// Returns whether [`take`](Self::take) cuts out a large payload, and does not copy it.
    #[inline]
    pub(super) fn cuts(&self, is_read: bool) -> bool {
        self.origin(is_read) != Origin::Copied
    }

    #[inline]
    fn origin(&self, is_read: bool) -> Origin {
        match self.fill {
            Fill::High => Origin::Pinned,
            Fill::Medium if is_read => Origin::Sparse,
            _ => Origin::Copied,
        }
    }

    /// Returns a copy of `len` bytes, which begin `from` bytes after those that are done. Afterwards these
    /// bytes and the ones before them are done, too.
    #[inline]
    pub(super) fn copy(&mut self, from: usize, len: usize) -> Bytes {
        let copy = copied::copy(&self.rest()[from..from + len]);
        self.at += from + len;
        copy
    }

    /// Returns whether [`lend`](Self::lend) may be called.
    #[inline]
    pub(super) fn lends(&self) -> bool {
        self.pinned.is_none() && self.bytes.capacity() <= MOST_LENDING
    }

    /// Does the same as [`take`](Self::take) without a copy, for bytes that are read before the
    /// buffer is needed again.
    #[inline]
    pub(super) fn lend(&mut self, from: usize, len: usize) -> Piece {
        self.bytes.advance(self.at + from);
        self.at = 0;
        Piece { bytes: self.bytes.split_to(len).freeze(), origin: Origin::Lent }
    }

    /// Leaves what is not done at the beginning of a buffer. Returns how much that is.
    fn finish(self) -> usize {
        let rest = self.rest().len();
        if let Some(pinned) = self.pinned {
            if rest > 0 {
                *self.bytes = take_spare();
                self.bytes.extend_from_slice(&pinned[self.at..]);
            }
        } else if rest == 0 {
            self.bytes.clear();
        } else if self.at > 0 {
            self.bytes.copy_within(self.at.., 0);
            self.bytes.truncate(rest);
        }
        rest
    }
}

impl Connection {
    /// Takes frames, and parts of large DATA, out of `input`, as many as one turn may, and leaves the
    /// rest. [`poll_event`](Self::poll_event) returns the events, and there may be bytes to write.
    ///
    /// After an error nothing is received any more. Then write what is outgoing, and close.
    pub(crate) fn receive(
        &mut self,
        input: &mut BytesMut,
        now: Instant,
    ) -> Result<ReceiveOutcome, ConnectionError> {
        if let Some(error) = self.dead {
            return Err(error);
        }
        self.budget.pass_time(now);
        self.unlend();
        self.received.is_bulk = false;
        let before = input.len();
        let mut input = Input::new(input);
        let result = self.frames(&mut input, now);
        let rest = input.finish();
        match result {
            Ok(received) => {
                // Frames that are left for the next turn are no delay of the peer.
                let unfinished =
                    received == ReceiveOutcome::All && (rest > 0 || self.partial_data.is_some());
                self.timers.received(now, rest != before, unfinished);
                if self.outflow.has_ready() {
                    self.pump();
                }
                Ok(received)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Returns whether the last input had DATA of the largest size, which only large messages have.
    #[inline]
    pub(crate) fn receives_bulk(&self) -> bool {
        self.received.is_bulk
    }

    /// Copies what was cut out of the last read buffer for a reader and was not read. So no more than
    /// one buffer of a connection is kept by such parts.
    #[inline]
    fn unlend(&mut self) {
        let Some(lent) = &mut self.lent else { return };
        for key in lent.drain(..) {
            if let Some(stream) = self.streams.get_mut(key) {
                self.received.copied += stream.arrived.pieces.unlend();
            }
        }
    }

    #[inline(always)] // It has one caller.
    fn frames(
        &mut self,
        input: &mut Input<'_>,
        now: Instant,
    ) -> Result<ReceiveOutcome, ConnectionError> {
        if self.handshake.awaits() != Awaited::Nothing && !self.beginning(input)? {
            return Ok(ReceiveOutcome::All);
        }
        self.turn = ReceiveTurn::default();
        loop {
            if let Some(header) = self.partial_data {
                match self.data_part(header, input)? {
                    true => continue,
                    false => break,
                }
            }
            let Some(&bytes) = input.rest().first_chunk::<HEADER_LEN>() else { break };
            let header = FrameHeader::parse(bytes);
            if header.kind == kind::HEADERS {
                match self.whole(input)? {
                    Next::Whole => continue,
                    Next::Partial => break,
                    Next::Other => {}
                }
            }
            self.check_header(header, &bytes)?;
            let end = HEADER_LEN + header.len as usize;
            let is_partial = input.rest().len() < end;
            if is_partial && !self.is_in_parts(header, input) {
                break;
            }
            if header.stream > 0 && self.whole_requests() > 0 {
                self.open_whole_requests();
            }
            if is_partial {
                self.partial_data = Some(header);
            }
            if header.kind == kind::DATA {
                self.received.is_bulk |= header.len == self.config.max_frame_size;
                input.advance(HEADER_LEN);
                if self.partial_data.is_none() {
                    self.data(header, input, false)?;
                }
                continue;
            }
            if header.kind == kind::HEADERS && self.turn.is_over() {
                return Ok(ReceiveOutcome::Some);
            }
            self.frame(header, &input.rest()[HEADER_LEN..end], now)?;
            input.advance(end);
        }
        // No set comes with the rest of DATA.
        let frame = if self.partial_data.is_some() { &[] } else { input.rest() };
        if self.passing.is_matched(frame) {
            Ok(ReceiveOutcome::All)
        } else {
            Err(ConnectionError::protocol("descriptors that no DESCRIPTORS frame announces"))
        }
    }

    #[inline]
    fn check_header(
        &self,
        header: FrameHeader,
        bytes: &[u8; HEADER_LEN],
    ) -> Result<(), ConnectionError> {
        if !self.handshake.is_introduced() {
            self.first_frame(header, bytes)?;
        }
        if header.len > self.config.max_frame_size {
            // §4.2. This is a connection error for all frames. For some a stream error would do, but
            // then the payload would have to be skipped.
            return Err(ConnectionError::frame_size(
                "a frame is larger than SETTINGS_MAX_FRAME_SIZE",
            ));
        }
        self.expects(header)
    }

    /// Receives a whole message in one step if it comes next and is a usual one. Otherwise it changes
    /// nothing.
    #[inline]
    fn whole(&mut self, input: &mut Input<'_>) -> Result<Next, ConnectionError> {
        match self.role {
            Role::Server => self.whole_request(input),
            Role::Client => self.whole_response(input),
        }
    }

    /// Looks at the first bytes of a peer. Returns whether frames may follow.
    #[cold]
    fn beginning(&mut self, input: &mut Input<'_>) -> Result<bool, ConnectionError> {
        match input.rest() {
            _ if self.handshake.awaits() == Awaited::Preface => self.preface(input),
            // A TLS record, such as an alert, which is shorter than a frame's header (RFC 8446 §5.1).
            // As a frame it would be larger than allowed.
            [0x15 | 0x16, 0x03, ..] => Err(ConnectionError::protocol("it answers in TLS")),
            _ => Ok(true),
        }
    }

    /// Reads the client's preface. Returns whether it is complete (§3.4).
    fn preface(&mut self, input: &mut Input<'_>) -> Result<bool, ConnectionError> {
        let len = input.rest().len().min(frame::PREFACE.len());
        if input.rest()[..len] != frame::PREFACE[..len] {
            return Err(ConnectionError::protocol("the client does not begin as HTTP/2 does"));
        }
        if len < frame::PREFACE.len() {
            return Ok(false);
        }
        input.advance(len);
        self.handshake.preface_came();
        Ok(true)
    }

    /// Checks the first frame (§3.4). This finds peers that do not speak HTTP/2.
    #[cold]
    fn first_frame(
        &self,
        header: FrameHeader,
        bytes: &[u8; HEADER_LEN],
    ) -> Result<(), ConnectionError> {
        if header.kind == kind::SETTINGS && !header.has(flag::ACK) {
            return Ok(());
        }
        Err(ConnectionError::protocol(if bytes.starts_with(b"HTTP/1.") {
            "it answers in HTTP/1"
        } else {
            "the first frame is not SETTINGS"
        }))
    }

    /// Checks that a frame may come now.
    #[inline]
    fn expects(&self, header: FrameHeader) -> Result<(), ConnectionError> {
        if !self.passing.expects(header) {
            return Err(ConnectionError::protocol(
                "no HEADERS of the same stream follows DESCRIPTORS",
            ));
        }
        match &self.block {
            // §6.10
            Some(block) if header.kind != kind::CONTINUATION || header.stream != block.stream => {
                Err(ConnectionError::protocol("a header block is interrupted"))
            }
            None if header.kind == kind::CONTINUATION => {
                Err(ConnectionError::protocol("CONTINUATION without a header block"))
            }
            _ => Ok(()),
        }
    }

    fn frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        match header.kind {
            kind::HEADERS => self.headers(header, payload, now),
            kind::CONTINUATION => self.continuation(header, payload),
            kind::WINDOW_UPDATE => self.window_update(header, payload),
            kind::PING => self.ping_frame(header, payload),
            kind::RST_STREAM => self.rst_stream(header, payload),
            kind::SETTINGS => self.settings(header, payload),
            kind::GOAWAY => self.go_away_frame(header, payload),
            kind::PRIORITY => self.priority(header, payload),
            kind::DESCRIPTORS if self.config.descriptors > 0 => {
                self.descriptors_frame(header, payload)
            }
            // §8.4: a client cannot push, and we never allow a server to push.
            kind::PUSH_PROMISE => {
                Err(ConnectionError::protocol("PUSH_PROMISE, which is not allowed"))
            }
            // §4.1, §5.5: unknown types are ignored, also PRIORITY_UPDATE (RFC 9218 §7.1).
            _ => self.budget.spend(Cost::Idle),
        }
    }

    /// Tells what became of a stream that is not in the table. For an idle stream only HEADERS and
    /// PRIORITY are allowed (§5.1).
    pub(super) fn closed_stream(
        &self,
        id: u32,
        idle: &'static str,
    ) -> Result<ClosedStream, ConnectionError> {
        let used = match self.role {
            Role::Server => id % 2 == 1 && id <= self.server.last_id,
            Role::Client => id % 2 == 1 && id < self.client.next_id,
        };
        if used { Ok(self.closed.what(id)) } else { Err(ConnectionError::protocol(idle)) }
    }

    // ---- RST_STREAM (§6.4) -----------------------------------------------------------------

    fn rst_stream(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        let Ok(code) = <[u8; 4]>::try_from(payload) else {
            return Err(ConnectionError::frame_size("RST_STREAM is not of four bytes"));
        };
        if header.stream == 0 {
            return Err(ConnectionError::protocol("RST_STREAM on stream 0"));
        }
        let code = ErrorCode(u32::from_be_bytes(code));
        let role = self.role;
        // Also of a stream that has been forgotten, whose response is not written yet.
        self.give_up_descriptors(header.stream);
        let Some((key, stream)) = self.find(header.stream) else {
            if self.was_never_begun(header.stream) {
                return self.budget.spend(Cost::Idle);
            }
            if self.closed_stream(header.stream, "RST_STREAM on an idle stream")?
                == ClosedStream::Reset
            {
                // This happens at most once for each stream that we reset. A response that ended it
                // early may not be written yet.
                self.closed.reset_by_peer(header.stream, 0);
                self.cancel_unwritten(header.stream);
                return Ok(());
            }
            return self.late_rst_stream(header.stream);
        };
        stream.reset_by_peer = true;
        if stream.is_closed() {
            return self.late_rst_stream(header.stream);
        }
        let taken = stream.taken;
        self.close_stream(key);
        let reset = Reset {
            never_processed: role == Role::Client && code == ErrorCode::REFUSED_STREAM,
            ..Reset::new(code, "the peer reset the stream")
        };
        if taken {
            self.tell_reset(key, reset);
            self.settle(key);
        } else {
            // It was opened and reset before its handler was called, which is now never called.
            self.forget(key);
        }
        Ok(())
    }

    /// The stream has ended on this end. Its response may be on its way.
    fn late_rst_stream(&mut self, stream: u32) -> Result<(), ConnectionError> {
        match self.cancel_unwritten(stream) {
            true => Ok(()),
            false => self.budget.spend(Cost::Idle),
        }
    }
}
