//! DATA (RFC 9113 §6.1): checks it, and gives it to its stream.

use super::arrived::{MessageEnd, Origin, Piece};
use super::budget::{self, Cost};
use super::closed::ClosedStream;
use super::connection::Connection;
use super::error::{ConnectionError, ErrorCode};
use super::frame::{FrameHeader, HEADER_LEN, flag, kind, unpad};
use super::key::StreamKey;
use super::news::News;
use super::receive::{CUT_OUT, Input};
use super::stream::{Receiving, Stream, UNKNOWN_LENGTH};

impl Connection {
    /// Returns whether the payload of a frame, which has not arrived completely, is received in parts.
    /// Large DATA is, so that its beginning need not be moved to the next read buffer.
    pub(super) fn is_in_parts(&self, header: FrameHeader, input: &Input<'_>) -> bool {
        header.kind == kind::DATA
            && !header.has(flag::PADDED)
            && self.takes_part(header, input.rest().len() - HEADER_LEN, input)
    }

    /// Returns whether `len` bytes of a payload that continues are enough for a part. What would be copied
    /// anyway waits in the read buffer until the frame is complete.
    fn takes_part(&self, header: FrameHeader, len: usize, input: &Input<'_>) -> bool {
        len >= CUT_OUT && input.cuts(self.is_read(header.stream))
    }

    /// Receives more of the payload that arrives in parts, as if each part were a frame. Returns whether
    /// the payload is complete.
    pub(super) fn data_part(
        &mut self,
        header: FrameHeader,
        input: &mut Input<'_>,
    ) -> Result<bool, ConnectionError> {
        let len = input.rest().len().min(header.len as usize);
        let rest = header.len - len as u32;
        if rest == 0 {
            self.partial_data = None;
            self.data(header, input, true)?;
            return Ok(true);
        }
        if self.takes_part(header, len, input) {
            self.partial_data = Some(FrameHeader { len: rest, ..header });
            let part = FrameHeader { len: len as u32, flags: 0, ..header };
            self.data(part, input, true)?;
        }
        Ok(false)
    }

    fn is_read(&self, id: u32) -> bool {
        let stream = self.streams.find(id).and_then(|key| self.streams.get(key));
        stream.is_some_and(Stream::is_read)
    }

    /// Receives DATA, or a part of it. The header was taken out of the input.
    pub(super) fn data(
        &mut self,
        header: FrameHeader,
        input: &mut Input<'_>,
        is_part: bool,
    ) -> Result<(), ConnectionError> {
        if header.stream == 0 {
            return Err(ConnectionError::protocol("DATA on stream 0"));
        }
        let end = header.has(flag::END_STREAM);
        let payload = &input.rest()[..header.len as usize];
        let (from, to) = unpad(header, payload)?;
        let len = to - from;
        // The whole payload counts, with its padding (§6.9.1), whatever state the stream is in.
        self.count_received(header.len)?;
        if let Some(key) = self.data_stream(header, len, end)? {
            if header.has(flag::PADDED) {
                self.pad(key, header.len - len as u32);
            }
            if len > 0 || end {
                let piece = if len < CUT_OUT && self.is_last_data(key, header, input) {
                    input.lend(from, len)
                } else {
                    match self.streams.get(key).is_some_and(Stream::is_read) {
                        true if is_part => input.take_end(from, len, &mut self.pinned),
                        is_read => input.take(from, len, is_read, &mut self.pinned),
                    }
                };
                if matches!(piece.origin, Origin::Lent | Origin::Sparse) {
                    self.lent.get_or_insert_default().push(key);
                }
                self.arrive(key, piece, end);
                input.advance(header.len as usize - to);
                return Ok(());
            }
        }
        input.advance(header.len as usize);
        Ok(())
    }

    /// Uses up the connection's window for a payload, and gives the peer as much again in time.
    #[inline]
    pub(super) fn count_received(&mut self, bytes: u32) -> Result<(), ConnectionError> {
        match self.received.receive(bytes) {
            Ok(None) => Ok(()),
            Ok(Some(increment)) => {
                self.write_control(kind::WINDOW_UPDATE, 0, 0, &increment.to_be_bytes());
                self.check_control()
            }
            Err(_) => Err(ConnectionError::peer(
                ErrorCode::FLOW_CONTROL_ERROR,
                "DATA exceeds the connection's window",
            )),
        }
    }

    /// Counts the data of a message that was received in one step, and is no part of a pinned buffer.
    #[inline]
    pub(super) fn count_whole(&mut self, len: u32) -> Result<(), ConnectionError> {
        self.received.keep(len);
        self.received.copied += len as usize;
        self.budget.earn(len / budget::BYTES_PER_UNIT);
        self.count_received(len)
    }

    /// Client: returns whether this DATA is the whole body of a response, because the next frame
    /// has the trailers. The caller is told of the response and will read it next.
    #[inline]
    fn is_last_data(&self, key: StreamKey, header: FrameHeader, input: &Input<'_>) -> bool {
        const LAST: u8 = flag::END_HEADERS | flag::END_STREAM;
        self.is_client()
            && input.lends()
            && input.rest()[header.len as usize..].first_chunk().is_some_and(|next| {
                let next = FrameHeader::parse(*next);
                next.kind == kind::HEADERS
                    && next.stream == header.stream
                    && next.flags & LAST == LAST
            })
            && self.streams.get(key).is_some_and(|stream| stream.arrived.pieces.is_empty())
    }

    /// Returns the stream that takes `len` bytes of payload, if there is one. All checks are here.
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
            return self.data_on_closed(header).map(|()| None);
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

    /// Gives a stream a part of a body, and with `end` the last part.
    #[inline]
    fn arrive(&mut self, key: StreamKey, piece: Piece, end: bool) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let len = piece.bytes.len() as u32;
        stream.unread += len;
        self.received.keep(len);
        let usual = self.received.usual();
        let window = &mut stream.receive_window;
        let before = window.size();
        if !end
            && before < usual
            && !self.pressure.is_on()
            && let Some(increment) = window.grow_to(usual)
        {
            self.received.note_grown(window.size() - before);
            self.write_control(kind::WINDOW_UPDATE, 0, key.id(), &increment.to_be_bytes());
        }
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if len > 0 && !stream.discarded {
            if !piece.origin.is_pinned() {
                self.received.copied += len as usize;
            }
            stream.arrived.pieces.push(piece);
        }
        if end {
            stream.arrived.finish(MessageEnd::Plain);
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

    /// Gives back the window for padding at once, because padding is not read. While memory is short it
    /// is held back with the rest.
    fn pad(&mut self, key: StreamKey, bytes: u32) {
        if let Some(stream) = self.streams.get_mut(key)
            && stream.receiving != Receiving::Done
            && let Some(increment) = self.window_after_padding(key, bytes)
        {
            self.write_control(kind::WINDOW_UPDATE, 0, key.id(), &increment.to_be_bytes());
        }
    }

    /// Deals with DATA on a stream that is in the table and takes none.
    fn data_ended(&mut self, key: StreamKey, header: FrameHeader) -> Result<(), ConnectionError> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        if (stream.reset_by_us || stream.reset_by_peer) && !stream.peer_ended {
            // The data may have been under way (§5.1), or is what the peer had queued before its reset.
            let excess = stream.receive_window.receive(header.len).is_err();
            stream.peer_ended = header.has(flag::END_STREAM);
            let is_first_reset = !std::mem::replace(&mut stream.reset_by_us, true);
            if excess {
                return Err(beyond_reset());
            }
            return if is_first_reset { self.data_after_reset(header.stream) } else { Ok(()) };
        }
        if stream.is_closed() {
            return Err(ConnectionError::closed("DATA on a closed stream"));
        }
        self.stream_error(key, ErrorCode::STREAM_CLOSED, "DATA after END_STREAM")
    }

    /// Deals with DATA on a stream that is not in the table.
    fn data_on_closed(&mut self, header: FrameHeader) -> Result<(), ConnectionError> {
        match self.closed_stream(header.stream, "DATA on an idle stream")? {
            ClosedStream::Reset | ClosedStream::ResetByPeer => {
                if !self.closed.take(header.stream, header.len) {
                    return Err(beyond_reset());
                }
                let is_first_reset = self.closed.is_first_reset(header.stream);
                if header.has(flag::END_STREAM) {
                    self.closed.ended(header.stream);
                }
                if is_first_reset { self.data_after_reset(header.stream) } else { Ok(()) }
            }
            ClosedStream::Forgotten if self.closed.take_forgotten(header.len) => Ok(()),
            ClosedStream::Forgotten => self.budget.spend(Cost::Idle),
            ClosedStream::Ended | ClosedStream::Skipped => {
                Err(ConnectionError::closed("DATA on a closed stream"))
            }
        }
    }

    /// Answers the first DATA on a stream that the peer itself has reset (RFC 7540 §5.1, closed).
    fn data_after_reset(&mut self, id: u32) -> Result<(), ConnectionError> {
        self.write_control(kind::RST_STREAM, 0, id, &ErrorCode::STREAM_CLOSED.0.to_be_bytes());
        self.check_control()
    }
}

/// Returns the error for a peer that sends more on a stream that was reset than its window allows.
const fn beyond_reset() -> ConnectionError {
    ConnectionError::peer(
        ErrorCode::FLOW_CONTROL_ERROR,
        "DATA exceeds the window of a stream that was reset",
    )
}
