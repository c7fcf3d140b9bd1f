//! Bytes in: frames are cut from the input, checked and acted upon. Header blocks are in `headers`.

use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::arrived::{End, Reset};
use super::budget::{self, Cost};
use super::closed::Gone;
use super::connection::{Connection, KEEP_ALIVE_PING, SHUTDOWN_PING};
use super::error::{ConnectionError, ErrorCode};
use super::event::GoAway;
use super::flow::DEFAULT_WINDOW;
use super::frame::{self, FrameHeader, HEADER_LEN, flag, kind, u31, unpad};
use super::handshake::Awaited;
use super::key::StreamKey;
use super::news::News;
use super::role::Role;
use super::stream::{Receiving, Sending, UNKNOWN_LENGTH};

/// DATA from this size on is cut out of the input and keeps all of that in memory; smaller is
/// copied. An eighth of the 64 KiB that the driver is to read at a time: what a connection can be
/// made to hold is at most eight times its window.
pub(super) const CUT_OUT: usize = 8 * 1024;

/// How many streams a client may open in one turn of its connection, whatever becomes of them. It
/// bounds what a turn costs: a stream that is opened and reset at once advances nothing. As many as
/// may be open by default, so that no other client notices.
pub(super) const MAX_OPENED: u32 = 256;

/// What is kept of a GOAWAY's debug data.
const MAX_DEBUG: usize = 256;

/// How far [`Connection::receive`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// The input has no further whole frame.
    All,
    /// The input may have more whole frames: they are for the connection's next turn.
    Some,
}

/// The input, and how much of it has been dealt with.
struct Input<'a> {
    bytes: &'a mut BytesMut,
    at: usize,
}

impl Input<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Takes `len` bytes out, from `from` on after those dealt with, which they join.
    #[inline]
    fn take(&mut self, from: usize, len: usize) -> Bytes {
        let start = self.at + from;
        if len < CUT_OUT {
            return Bytes::copy_from_slice(&self.bytes[start..start + len]);
        }
        self.bytes.advance(start);
        self.at = 0;
        self.bytes.split_to(len).freeze()
    }
}

impl Connection {
    /// Takes the whole frames out of `input`, as many as are one turn's work, and leaves the rest.
    /// What they say comes from [`poll_event`](Self::poll_event); what they ask for may be to write.
    ///
    /// After an error nothing is received any more: write what is outgoing, and close.
    pub(crate) fn receive(
        &mut self,
        input: &mut BytesMut,
        now: Instant,
    ) -> Result<Received, ConnectionError> {
        if let Some(error) = self.dead {
            return Err(error);
        }
        self.budget.pass_time(now);
        let before = input.len();
        let mut input = Input { bytes: input, at: 0 };
        let result = self.frames(&mut input, now);
        let Input { bytes, at } = input;
        if at == bytes.len() {
            bytes.clear();
        } else {
            bytes.advance(at);
        }
        match result {
            Ok(received) => {
                // Frames that are left for the next turn are not the peer's delay.
                let unfinished = received == Received::All && !bytes.is_empty();
                self.timers.received(now, bytes.len() != before, unfinished);
                if self.outflow.has_ready() {
                    self.pump();
                }
                Ok(received)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    fn frames(&mut self, input: &mut Input<'_>, now: Instant) -> Result<Received, ConnectionError> {
        if self.handshake.awaits() == Awaited::Preface && !self.preface(input)? {
            return Ok(Received::All);
        }
        self.server.opened = 0;
        while let Some(bytes) = input.rest().first_chunk::<HEADER_LEN>() {
            let header = FrameHeader::parse(*bytes);
            if !self.handshake.is_introduced() {
                self.first_frame(header, bytes)?;
            }
            if header.len > self.config.max_frame_size {
                // §4.2. For all frames alike: a stream error would be possible for some, but
                // would have to swallow the payload.
                return Err(ConnectionError::frame_size(
                    "a frame is larger than SETTINGS_MAX_FRAME_SIZE",
                ));
            }
            self.expects(header)?;
            let end = HEADER_LEN + header.len as usize;
            if input.rest().len() < end {
                break;
            }
            if header.kind == kind::DATA {
                self.data(header, input)?;
                continue;
            }
            if header.kind == kind::HEADERS && self.server.opened == MAX_OPENED {
                return Ok(Received::Some);
            }
            let payload = &input.bytes[input.at + HEADER_LEN..input.at + end];
            self.frame(header, payload, now)?;
            input.at += end;
        }
        if self.passing.is_matched(input.rest()) {
            Ok(Received::All)
        } else {
            Err(ConnectionError::protocol("descriptors that no DESCRIPTORS frame announces"))
        }
    }

    /// Whether the client's preface is complete (§3.4).
    fn preface(&mut self, input: &mut Input<'_>) -> Result<bool, ConnectionError> {
        let len = input.rest().len().min(frame::PREFACE.len());
        if input.rest()[..len] != frame::PREFACE[..len] {
            return Err(ConnectionError::protocol("the client does not begin as HTTP/2 does"));
        }
        if len < frame::PREFACE.len() {
            return Ok(false);
        }
        input.at += len;
        self.handshake.preface_came();
        Ok(true)
    }

    /// §3.4. What is no HTTP/2 at all is told from it here.
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

    /// Frames that may come in any order but this.
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
            // §8.4: a client cannot push, and we never allow a server to.
            kind::PUSH_PROMISE => {
                Err(ConnectionError::protocol("PUSH_PROMISE, which is not allowed"))
            }
            // §4.1, §5.5: unknown types are ignored, PRIORITY_UPDATE (RFC 9218 §7.1) among them.
            _ => self.budget.spend(Cost::Idle),
        }
    }

    // ---- DATA (§6.1) -----------------------------------------------------------------------

    fn data(&mut self, header: FrameHeader, input: &mut Input<'_>) -> Result<(), ConnectionError> {
        if header.stream == 0 {
            return Err(ConnectionError::protocol("DATA on stream 0"));
        }
        let end = header.has(flag::END_STREAM);
        let payload = &input.rest()[HEADER_LEN..HEADER_LEN + header.len as usize];
        let (from, to) = unpad(header, payload)?;
        let len = to - from;
        // All of the payload counts, padding included (§6.9.1), and whatever the stream is.
        match self.received.receive(header.len) {
            Ok(None) => {}
            Ok(Some(increment)) => {
                self.write_control(kind::WINDOW_UPDATE, 0, 0, &increment.to_be_bytes());
                self.check_control()?;
            }
            Err(_) => {
                return Err(ConnectionError::peer(
                    ErrorCode::FLOW_CONTROL_ERROR,
                    "DATA exceeds the connection's window",
                ));
            }
        }
        if let Some(key) = self.data_stream(header, len, end)? {
            if header.has(flag::PADDED) {
                self.pad(key, header.len - len as u32);
            }
            if len > 0 || end {
                let bytes = input.take(HEADER_LEN + from, len);
                if len >= CUT_OUT {
                    // Padding follows.
                    input.at += header.len as usize - to;
                } else {
                    input.at += HEADER_LEN + header.len as usize;
                }
                self.arrive(key, bytes, end);
                return Ok(());
            }
        }
        input.at += HEADER_LEN + header.len as usize;
        Ok(())
    }

    /// The stream that takes `len` bytes of payload, if one does. All checks are here.
    fn data_stream(
        &mut self,
        header: FrameHeader,
        len: usize,
        end: bool,
    ) -> Result<Option<StreamKey>, ConnectionError> {
        if len == 0 && !end {
            self.budget.spend(Cost::Idle)?;
        }
        let Some((key, stream)) = self.find(header.stream) else {
            return self.data_gone(header).map(|()| None);
        };
        match stream.receiving {
            Receiving::Body => {}
            Receiving::Head => {
                // §8.1
                self.stream_error(key, ErrorCode::PROTOCOL_ERROR, "DATA before the head")?;
                return Ok(None);
            }
            Receiving::Done => {
                return self.data_ended(key, header).map(|()| None);
            }
        }
        if stream.receive_window.receive(header.len).is_err() {
            let why = "DATA exceeds the stream's window";
            self.stream_error(key, ErrorCode::FLOW_CONTROL_ERROR, why)?;
            return Ok(None);
        }
        if stream.expected != UNKNOWN_LENGTH {
            // §8.1.1
            match stream.expected.checked_sub(len as u64) {
                Some(rest) if rest == 0 || !end => stream.expected = rest,
                _ => {
                    let why = "DATA does not add up to content-length";
                    self.stream_error(key, ErrorCode::PROTOCOL_ERROR, why)?;
                    return Ok(None);
                }
            }
        }
        if end {
            stream.receiving = Receiving::Done;
            stream.peer_ended = true;
        }
        if stream.forgotten {
            if end {
                self.settle(key);
            }
            return Ok(None);
        }
        self.budget.earn(len as u32 / budget::BYTES_PER_UNIT);
        Ok(Some(key))
    }

    /// Part of a body came, and with `end` the last one.
    #[inline]
    fn arrive(&mut self, key: StreamKey, bytes: Bytes, end: bool) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let len = bytes.len() as u32;
        stream.unread += len;
        self.received.keep(len);
        let usual = self.received.usual();
        if !end
            && stream.receive_window.size() < usual
            && let Some(increment) = stream.receive_window.grow_to(usual)
        {
            self.write_control(kind::WINDOW_UPDATE, 0, key.id(), &increment.to_be_bytes());
        }
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if len > 0 && !stream.discarded {
            stream.arrived.pieces.push(bytes);
        }
        if end {
            stream.arrived.finish(End::Plain);
        }
        if stream.taken {
            self.events.tell(key, stream, News::READABLE);
        }
        if stream.discarded {
            self.credit(key, len);
        }
        if end {
            self.settle(key);
        }
    }

    /// Padding is nothing that anybody has to read: its window is given back at once.
    fn pad(&mut self, key: StreamKey, bytes: u32) {
        if let Some(stream) = self.streams.get_mut(key)
            && stream.receiving != Receiving::Done
            && let Some(increment) = stream.receive_window.release(bytes)
        {
            self.write_control(kind::WINDOW_UPDATE, 0, key.id(), &increment.to_be_bytes());
        }
    }

    /// DATA on a stream that is in the table and takes none.
    fn data_ended(&mut self, key: StreamKey, header: FrameHeader) -> Result<(), ConnectionError> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        if stream.reset_by_us && !stream.peer_ended {
            // It may have been under way (§5.1).
            let excess = stream.receive_window.receive(header.len).is_err();
            stream.peer_ended = header.has(flag::END_STREAM);
            return if excess { Err(beyond_reset()) } else { Ok(()) };
        }
        if stream.is_closed() {
            return Err(ConnectionError::closed("DATA on a closed stream"));
        }
        self.stream_error(key, ErrorCode::STREAM_CLOSED, "DATA after END_STREAM")
    }

    /// DATA on a stream that is not in the table.
    fn data_gone(&mut self, header: FrameHeader) -> Result<(), ConnectionError> {
        match self.gone(header.stream, "DATA on an idle stream")? {
            Gone::Reset => {
                if !self.closed.take(header.stream, header.len) {
                    return Err(beyond_reset());
                }
                if header.has(flag::END_STREAM) {
                    self.closed.ended(header.stream);
                }
                Ok(())
            }
            Gone::Forgotten => self.budget.spend(Cost::Idle),
            Gone::Ended | Gone::Skipped => Err(ConnectionError::closed("DATA on a closed stream")),
        }
    }

    /// What has become of a stream that is not in the table. Frames on idle ones are no option for
    /// any type but HEADERS and PRIORITY (§5.1).
    pub(super) fn gone(&self, id: u32, idle: &'static str) -> Result<Gone, ConnectionError> {
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
        let Some((key, stream)) = self.find(header.stream) else {
            if self.gone(header.stream, "RST_STREAM on an idle stream")? == Gone::Reset {
                // Both at once: at most one for each stream that we reset.
                self.closed.ended(header.stream);
                return Ok(());
            }
            return self.budget.spend(Cost::Idle);
        };
        stream.peer_ended = true;
        if stream.is_closed() {
            return self.budget.spend(Cost::Idle);
        }
        stream.reset_by_peer = true;
        let taken = stream.taken;
        self.close_stream(key);
        let reset = Reset {
            code,
            by_peer: true,
            never_processed: role == Role::Client && code == ErrorCode::REFUSED_STREAM,
            why: "reset by the peer",
            limit: None,
        };
        if taken {
            self.tell_reset(key, reset);
            self.settle(key);
        } else {
            // Opened and reset before its handler was called: it never is.
            self.forget(key);
        }
        Ok(())
    }

    // ---- SETTINGS (§6.5) -------------------------------------------------------------------

    fn settings(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if header.stream != 0 {
            return Err(ConnectionError::protocol("SETTINGS on a stream"));
        }
        if header.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(ConnectionError::frame_size("an acknowledgement with settings"));
            }
            return self.settings_acknowledged();
        }
        let first = !self.handshake.is_introduced();
        if first {
            // No limit is what a peer means that names none (§6.5.2).
            self.peer.max_concurrent_streams = u32::MAX;
        } else {
            self.budget.spend(Cost::Settings)?;
        }
        let window = self.peer.initial_window_size;
        if let Some(table) = self.peer.apply(payload, self.role)? {
            self.encoder.set_peer_max_table_size(table.smallest as usize);
            self.encoder.set_peer_max_table_size(table.last as usize);
        }
        let difference = i64::from(self.peer.initial_window_size) - i64::from(window);
        if difference != 0 {
            self.move_send_windows(difference)?;
        }
        self.write_control(kind::SETTINGS, flag::ACK, 0, &[]);
        if first {
            self.handshake.settings_came();
            self.events.ready();
        }
        self.offer_slots();
        self.check_control()
    }

    /// Our settings hold from here on (§6.5.3).
    fn settings_acknowledged(&mut self) -> Result<(), ConnectionError> {
        if self.handshake.is_acknowledged() {
            return self.budget.spend(Cost::Idle);
        }
        let before = self.initial_receive_window();
        self.handshake.acknowledged();
        let difference = i64::from(self.initial_receive_window()) - i64::from(before);
        if difference != 0 {
            for key in self.streams.keys() {
                let Some(stream) = self.streams.get_mut(key) else { continue };
                stream.receive_window.adjust(difference);
                // What was read before may be more than the peer has left now.
                if stream.receiving != Receiving::Done
                    && let Some(increment) = stream.receive_window.release(0)
                {
                    let increment = increment.to_be_bytes();
                    self.write_control(kind::WINDOW_UPDATE, 0, key.id(), &increment);
                }
            }
        }
        Ok(())
    }

    /// What a new stream's window is for the peer. Before it has acknowledged our SETTINGS it may
    /// go by either value (§6.5.3), so the larger one counts.
    pub(super) fn initial_receive_window(&self) -> u32 {
        if self.handshake.is_acknowledged() {
            self.config.stream_window
        } else {
            self.config.stream_window.max(DEFAULT_WINDOW)
        }
    }

    /// SETTINGS_INITIAL_WINDOW_SIZE moves every stream's window, below zero if need be (§6.9.2).
    fn move_send_windows(&mut self, by: i64) -> Result<(), ConnectionError> {
        let mut ready = Vec::new();
        for (key, stream) in self.streams.iter_mut() {
            if stream.sending == Sending::Done {
                continue;
            }
            if stream.send_window.adjust(by).is_err() {
                return Err(ConnectionError::peer(
                    ErrorCode::FLOW_CONTROL_ERROR,
                    "SETTINGS_INITIAL_WINDOW_SIZE makes a window overflow",
                ));
            }
            if by > 0 && stream.has_queued() && !stream.ready && stream.send_window.available() > 0
            {
                stream.ready = true;
                ready.push(key);
            }
        }
        for key in ready {
            self.outflow.push_ready(key, &self.streams);
        }
        Ok(())
    }

    // ---- PING (§6.7), GOAWAY (§6.8), PRIORITY (§6.3) ---------------------------------------

    fn ping_frame(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        let Ok(bytes) = <[u8; 8]>::try_from(payload) else {
            return Err(ConnectionError::frame_size("PING is not of eight bytes"));
        };
        if header.stream != 0 {
            return Err(ConnectionError::protocol("PING on a stream"));
        }
        if !header.has(flag::ACK) {
            self.budget.spend(Cost::Idle)?;
            self.write_control(kind::PING, flag::ACK, 0, &bytes);
            return self.check_control();
        }
        if bytes == SHUTDOWN_PING {
            self.name_last_stream();
        } else if bytes != KEEP_ALIVE_PING {
            self.budget.spend(Cost::Idle)?;
        }
        Ok(())
    }

    fn go_away_frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        if header.stream != 0 {
            return Err(ConnectionError::protocol("GOAWAY on a stream"));
        }
        let Some((last, rest)) = payload.split_first_chunk::<4>() else {
            return Err(ConnectionError::frame_size("GOAWAY is too short"));
        };
        let Some((code, debug)) = rest.split_first_chunk::<4>() else {
            return Err(ConnectionError::frame_size("GOAWAY is too short"));
        };
        self.budget.spend(Cost::Idle)?;
        let last_stream = u31(*last);
        let code = ErrorCode(u32::from_be_bytes(*code));
        let debug = Bytes::copy_from_slice(&debug[..debug.len().min(MAX_DEBUG)]);
        // Of several, none may name more than the one before (§6.8).
        let earlier = self.client.go_away.as_ref().map(|go_away| go_away.last_stream);
        let last_stream = earlier.map_or(last_stream, |earlier| earlier.min(last_stream));
        self.client.go_away = Some(GoAway { last_stream, code, debug });
        self.events.go_away();
        if self.role == Role::Client && earlier != Some(last_stream) {
            self.refused_after(last_stream);
        }
        Ok(())
    }

    /// The server has not processed streams above `last`, and never will.
    fn refused_after(&mut self, last: u32) {
        for key in self.streams.keys() {
            let Some(stream) = self.streams.get_mut(key) else { continue };
            if key.id() <= last || stream.is_closed() {
                continue;
            }
            stream.reset_by_peer = true;
            stream.peer_ended = true;
            self.close_stream(key);
            let reset = Reset {
                code: ErrorCode::REFUSED_STREAM,
                by_peer: true,
                never_processed: true,
                why: "the server went away before it took the request",
                limit: None,
            };
            self.tell_reset(key, reset);
            self.settle(key);
        }
    }

    /// Priorities are deprecated (§5.3.2): checked, and ignored.
    fn priority(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if header.stream == 0 {
            return Err(ConnectionError::protocol("PRIORITY on stream 0"));
        }
        self.budget.spend(Cost::Idle)?;
        let why = match payload.first_chunk::<4>() {
            Some(dependency) if payload.len() == 5 => {
                if u31(*dependency) != header.stream {
                    return Ok(());
                }
                (ErrorCode::PROTOCOL_ERROR, "a stream depends on itself")
            }
            _ => (ErrorCode::FRAME_SIZE_ERROR, "PRIORITY is not of five bytes"),
        };
        self.error_on(header.stream, why.0, why.1)
    }

    /// A stream error on a stream that may be gone, which nobody has to be told, or idle, which
    /// cannot be reset (§5.1): then it is the connection's.
    fn error_on(
        &mut self,
        id: u32,
        code: ErrorCode,
        why: &'static str,
    ) -> Result<(), ConnectionError> {
        if let Some((key, stream)) = self.find(id) {
            if stream.is_closed() {
                return self.budget.spend(Cost::Violation);
            }
            return self.stream_error(key, code, why);
        }
        self.gone(id, why).map_err(|error| ConnectionError { code, ..error })?;
        self.budget.spend(Cost::Violation)
    }

    // ---- WINDOW_UPDATE (§6.9) --------------------------------------------------------------

    fn window_update(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let Ok(bytes) = <[u8; 4]>::try_from(payload) else {
            return Err(ConnectionError::frame_size("WINDOW_UPDATE is not of four bytes"));
        };
        let increment = u31(bytes);
        if increment < budget::TINY_WINDOW_UPDATE {
            self.budget.spend(Cost::Idle)?;
        }
        if header.stream == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE by 0"));
            }
            return self.outflow.widen(increment).map_err(|_| {
                ConnectionError::peer(
                    ErrorCode::FLOW_CONTROL_ERROR,
                    "the connection's window is beyond 2^31-1",
                )
            });
        }
        let Some((key, stream)) = self.find(header.stream) else {
            self.gone(header.stream, "WINDOW_UPDATE on an idle stream")?;
            // Sent before the peer knew (§5.1).
            return self.budget.spend(Cost::Idle);
        };
        if stream.is_closed() {
            return self.budget.spend(Cost::Idle);
        }
        if increment == 0 {
            return self.stream_error(key, ErrorCode::PROTOCOL_ERROR, "WINDOW_UPDATE by 0");
        }
        if stream.send_window.adjust(i64::from(increment)).is_err() {
            let why = "the stream's window is beyond 2^31-1";
            return self.stream_error(key, ErrorCode::FLOW_CONTROL_ERROR, why);
        }
        if stream.has_queued() && !stream.ready && stream.send_window.available() > 0 {
            stream.ready = true;
            self.outflow.push_ready(key, &self.streams);
        }
        Ok(())
    }
}

/// A peer that goes on sending on a stream we reset, beyond what it can have sent unknowingly.
const fn beyond_reset() -> ConnectionError {
    ConnectionError::peer(
        ErrorCode::FLOW_CONTROL_ERROR,
        "DATA exceeds the window of a stream that was reset",
    )
}
