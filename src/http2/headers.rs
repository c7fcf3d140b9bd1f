//! Header blocks (RFC 9113 §4.3): assembles them, decodes them, and gives them to the stream that
//! they open, answer or end.

use std::time::Instant;

use super::arrived::{MessageEnd, Reset};
use super::block::Block;
use super::budget::{self, Cost};
use super::closed::ClosedStream;
use super::connection::Connection;
use super::error::{ConnectionError, ErrorCode};
use super::frame::{FrameHeader, flag, kind, u31, unpad};
use super::head::{Head, HeadBuilder, HeadError, HeadKind, fields_size};
use super::key::StreamKey;
use super::news::News;
use super::passing::Attached;
use super::role::Role;
use super::stream::{CALL, Receiving, UNKNOWN_LENGTH};

/// The least limit for the bytes of a header block. It is far above the limit on header lists. A
/// block that is longer than that list is decoded, so that the table stays right, and only its own
/// call is refused.
const LEAST_MAX_BLOCK: usize = 1 << 20;

/// A header block may have this many times the limit on header lists, if that is more.
const MAX_BLOCK_FACTOR: usize = 4;

/// How many frames a block may have, apart from one for each [`FULL_FRAME`] of the largest block. A
/// peer that fills its frames needs far fewer.
const MAX_BLOCK_FRAMES: usize = 128;

/// The frame size that every peer may use (RFC 9113 §4.2).
const FULL_FRAME: usize = 16_384;

/// What a block is for. This is known before it is decoded.
#[derive(Clone, Copy, Debug)]
enum BlockPurpose {
    /// It opens a stream (server).
    New,
    /// It is a response's head (client).
    Response(StreamKey),
    Trailers(StreamKey),
    /// It is for no stream, which is allowed. It is decoded so that the table stays right.
    NoStream,
    /// It is for a stream in the table that has ended, which is a stream error.
    Ended(StreamKey),
}

impl Connection {
    /// Receives HEADERS (§6.2).
    pub(super) fn headers(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        if header.stream == 0 {
            return Err(ConnectionError::protocol("HEADERS on stream 0"));
        }
        let (mut from, to) = unpad(header, payload)?;
        let mut depends_on_itself = false;
        if header.has(flag::PRIORITY) {
            let fields = &payload[from..to];
            let Some(dependency) = fields.first_chunk::<4>().filter(|_| fields.len() >= 5) else {
                return Err(ConnectionError::frame_size("HEADERS is too short for its priority"));
            };
            depends_on_itself = u31(*dependency) == header.stream;
            from += 5;
        }
        let block = &payload[from..to];
        let end_stream = header.has(flag::END_STREAM);
        let attached = self.passing.take_announced();
        if header.has(flag::END_HEADERS) {
            return self.block(header.stream, end_stream, depends_on_itself, block, attached);
        }
        self.check_block(block.len(), 1)?;
        self.block = Some(Box::new(Block {
            stream: header.stream,
            since: now,
            end_stream,
            depends_on_itself,
            bytes: block.to_vec(),
            frames: 1,
            attached,
        }));
        Ok(())
    }

    /// Receives CONTINUATION (§6.10). It was checked before that it continues the open block.
    pub(super) fn continuation(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let Some(mut block) = self.block.take() else {
            return Err(ConnectionError::protocol("CONTINUATION without a header block"));
        };
        block.frames += 1;
        self.check_block(block.bytes.len() + payload.len(), block.frames)?;
        block.bytes.extend_from_slice(payload);
        if !header.has(flag::END_HEADERS) {
            self.block = Some(block);
            return Ok(());
        }
        let Block { stream, end_stream, depends_on_itself, bytes, attached, .. } = *block;
        self.block(stream, end_stream, depends_on_itself, &bytes, attached)
    }

    fn check_block(&self, bytes: usize, frames: u32) -> Result<(), ConnectionError> {
        let max = MAX_BLOCK_FACTOR.saturating_mul(self.config.max_header_list_size as usize);
        let max = max.max(LEAST_MAX_BLOCK).max(self.config.max_frame_size as usize);
        if bytes > max || frames as usize > MAX_BLOCK_FRAMES + max / FULL_FRAME {
            return Err(ConnectionError::limit("a header block without end"));
        }
        Ok(())
    }

    fn block(
        &mut self,
        id: u32,
        end: bool,
        depends_on_itself: bool,
        block: &[u8],
        attached: Attached,
    ) -> Result<(), ConnectionError> {
        let target = self.target(id)?;
        let kind = match target {
            BlockPurpose::New => HeadKind::Request,
            BlockPurpose::Response(_) => HeadKind::Response,
            BlockPurpose::Trailers(_) | BlockPurpose::NoStream | BlockPurpose::Ended(_) => {
                HeadKind::Trailers
            }
        };
        let mut head = self.decode(kind, block)?;
        if depends_on_itself {
            head = Err(HeadError::Malformed("a stream depends on itself"));
        }
        // A client's call that ends this way earns nothing, nor does a head for no stream.
        if matches!(head, Err(HeadError::TooLarge { .. }))
            && self.role == Role::Server
            && !matches!(target, BlockPurpose::NoStream)
        {
            self.budget.spend_units(budget::CALL_COMPLETED)?;
        }
        match target {
            BlockPurpose::New => self.request(id, end, head, attached),
            BlockPurpose::Response(key) => {
                if matches!(attached, Attached::Void) {
                    let why = "the server could not send the descriptors of its response";
                    return self.stream_error(key, ErrorCode::ENHANCE_YOUR_CALM, why);
                }
                self.attach(key, attached);
                self.response(key, end, head)
            }
            BlockPurpose::Trailers(_) if !matches!(attached, Attached::Nothing) => {
                Err(ConnectionError::protocol("DESCRIPTORS before trailers"))
            }
            BlockPurpose::Trailers(key) => self.trailers(key, end, head),
            BlockPurpose::NoStream => self.late_head(id, end),
            BlockPurpose::Ended(key) => {
                // §5.1, half-closed (remote)
                self.stream_error(key, ErrorCode::STREAM_CLOSED, "HEADERS after END_STREAM")
            }
        }
    }

    /// Deals with a head on a stream that was reset or has ended. It may have been under way when
    /// we reset the stream, or a server has sent trailers twice.
    fn late_head(&mut self, id: u32, end: bool) -> Result<(), ConnectionError> {
        if let Some((_, stream)) = self.find(id) {
            stream.peer_ended |= end;
        } else if self.closed.take_head(id, end) {
            return Ok(());
        }
        self.budget.spend(Cost::Idle)
    }

    fn target(&mut self, id: u32) -> Result<BlockPurpose, ConnectionError> {
        // Servers of gRPC C-core, at least 1.51, send trailers twice if their own deadline passes
        // when the handler answers. That does not end the connection, but it spends budget.
        let client = self.role == Role::Client;
        if let Some((key, stream)) = self.find(id) {
            return Ok(match stream.receiving {
                Receiving::Head => BlockPurpose::Response(key),
                Receiving::Body => BlockPurpose::Trailers(key),
                Receiving::Done if stream.reset_by_us && !stream.peer_ended => {
                    BlockPurpose::NoStream
                }
                Receiving::Done if stream.is_closed() && client => BlockPurpose::NoStream,
                Receiving::Done if stream.is_closed() => {
                    return Err(ConnectionError::closed("HEADERS on a closed stream"));
                }
                Receiving::Done => BlockPurpose::Ended(key),
            });
        }
        if self.role == Role::Server && id > self.server.last_id {
            // §5.1.1
            if id.is_multiple_of(2) {
                return Err(ConnectionError::protocol("a client opened a stream of even number"));
            }
            return Ok(BlockPurpose::New);
        }
        match self.closed_stream(id, "HEADERS on an idle stream")? {
            ClosedStream::Reset | ClosedStream::Forgotten => Ok(BlockPurpose::NoStream),
            ClosedStream::Ended | ClosedStream::ResetByPeer if client => Ok(BlockPurpose::NoStream),
            ClosedStream::Skipped => {
                Err(ConnectionError::protocol("a stream opened after one of higher number"))
            }
            ClosedStream::Ended | ClosedStream::ResetByPeer => {
                Err(ConnectionError::closed("HEADERS on a closed stream"))
            }
        }
    }

    /// Decodes a block's head, or takes it from the header cache. A block that has no valid head
    /// spends budget, whatever it is for.
    fn decode(
        &mut self,
        kind: HeadKind,
        block: &[u8],
    ) -> Result<Result<Head, HeadError>, ConnectionError> {
        let generation = self.decoder.generation();
        let place = match self.header_cache.find(kind, generation, block) {
            Ok(head) => return Ok(Ok(head.clone())),
            Err(place) => place,
        };
        let limit = self.config.max_header_list_size as usize;
        let mut builder = HeadBuilder::new(kind, limit, self.config.any_authority);
        self.decoder.decode(block, |field| builder.field(field)).map_err(|_| {
            ConnectionError::peer(ErrorCode::COMPRESSION_ERROR, "a header block cannot be decoded")
        })?;
        let beyond = builder.beyond();
        let head = builder.finish();
        if head.is_err() {
            self.budget.spend_units(budget::decoded_in_vain(block.len(), beyond))?;
        }
        self.turn.fields += head.as_ref().map_or(block.len(), Head::fields) as u32;
        if let Ok(head) = &head
            && self.decoder.generation() == generation
        {
            self.header_cache.keep(place, generation, block, head);
        }
        Ok(head)
    }

    // ---- Server ----------------------------------------------------------------------------

    fn request(
        &mut self,
        id: u32,
        end: bool,
        head: Result<Head, HeadError>,
        attached: Attached,
    ) -> Result<(), ConnectionError> {
        self.note_opened(id);
        if !self.draining.takes_streams() || !self.has_room() {
            // §5.1.2. Until it has acknowledged our SETTINGS, the peer cannot know the limit. It
            // can never know which calls that it cancelled still run here.
            let known = self.handshake.is_acknowledged() && self.is_full();
            self.reset_unopened(id, end, ErrorCode::REFUSED_STREAM);
            if known {
                self.budget.spend(Cost::Refused)?;
            }
            return self.check_control();
        }
        if matches!(attached, Attached::Void) {
            self.reset_unopened(id, end, ErrorCode::CANCEL);
            return self.check_control();
        }
        let expected = match &head {
            Ok(Head::Request(head)) => head.content_length.unwrap_or(UNKNOWN_LENGTH),
            Err(HeadError::TooLarge { .. }) => UNKNOWN_LENGTH,
            Ok(_) | Err(HeadError::Malformed(_)) => {
                return self.bad_request(id, end, ErrorCode::PROTOCOL_ERROR);
            }
            Err(HeadError::Connect) => return self.bad_request(id, end, ErrorCode::CONNECT_ERROR),
        };
        if end && expected != 0 && expected != UNKNOWN_LENGTH {
            return self.bad_request(id, end, ErrorCode::PROTOCOL_ERROR); // §8.1.1
        }
        self.server.last_accepted = id;
        let mut stream = self.new_stream(id);
        stream.receiving = if end { Receiving::Done } else { Receiving::Body };
        stream.peer_ended = end;
        stream.expected = expected;
        if end {
            stream.arrived.end = MessageEnd::Plain;
        }
        stream.foreign = matches!(head, Err(HeadError::TooLarge { foreign: true, .. }));
        stream.held = CALL;
        if let Ok(Head::Request(head)) = &head {
            stream.held += head.size;
        }
        stream.arrived.head = head.ok();
        let key = self.streams.insert(stream);
        self.attach(key, attached);
        self.announce(key);
        Ok(())
    }

    /// Notes that the client has opened a stream, whatever becomes of it.
    #[inline]
    pub(super) fn note_opened(&mut self, id: u32) {
        self.closed.opened(self.server.last_id, id);
        self.server.last_id = id;
        self.turn.opened += 1;
    }

    /// Tells the driver of a request.
    #[inline]
    pub(super) fn announce(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key) {
            self.events.tell(key, stream, News::OPENED);
            self.events.bound(&self.streams);
        }
    }

    /// Returns whether one more request is within the limit. Requests count until their response is
    /// complete and the peer can have seen it. If the peer has cancelled a request, it counts while
    /// its handler runs, except for a few of them, and while its response is not written, except for
    /// as many as the limit.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        let all = self.active_streams() + self.server.unwritten.len();
        all < self.config.max_streams as usize || self.has_room_without_cancelled()
    }

    #[cold]
    fn has_room_without_cancelled(&self) -> bool {
        let (limit, unwritten) = (self.config.max_streams as usize, &self.server.unwritten);
        let lingering = self.streams.len() - self.streams.open();
        let lingering = lingering.saturating_sub(self.config.max_lingering as usize);
        let cancelled = unwritten.cancelled().saturating_sub(limit);
        self.open_streams() + unwritten.open() + lingering + cancelled < limit
    }

    /// Returns whether the peer, too, must know that it is at the limit.
    fn is_full(&self) -> bool {
        self.open_streams() + self.server.unwritten.open() >= self.config.max_streams as usize
    }

    /// Refuses a malformed request, which never becomes a stream (§8.1.1).
    fn bad_request(&mut self, id: u32, end: bool, code: ErrorCode) -> Result<(), ConnectionError> {
        self.reset_unopened(id, end, code);
        self.budget.spend(Cost::Violation)?;
        self.check_control()
    }

    fn reset_unopened(&mut self, id: u32, end: bool, code: ErrorCode) {
        self.write_control(kind::RST_STREAM, 0, id, &code.0.to_be_bytes());
        // The peer may have sent more before it knows, at least its own reset.
        let window = if end { 0 } else { self.initial_receive_window() };
        self.closed.reset(id, window);
    }

    // ---- Client ----------------------------------------------------------------------------

    fn response(
        &mut self,
        key: StreamKey,
        end: bool,
        head: Result<Head, HeadError>,
    ) -> Result<(), ConnectionError> {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.peer_ended = end;
        }
        let head = match head {
            Ok(Head::Response(head)) => head,
            Ok(_) => return self.malformed(key, "no response"),
            Err(error) => return self.bad_head(key, error),
        };
        if head.status.is_informational() {
            if end {
                return self.malformed(key, "a 1xx response that ends the stream"); // §8.1
            }
            // The final response follows. gRPC does not use informational responses.
            return self.budget.spend(Cost::Informational);
        }
        // A response to HEAD or with 304 states how long the content would be (RFC 9110 §8.6).
        let expected = match head.content_length {
            Some(length) if head.status != http::StatusCode::NOT_MODIFIED => length,
            _ => UNKNOWN_LENGTH,
        };
        if end && expected != 0 && expected != UNKNOWN_LENGTH {
            return self.malformed(key, "the content is shorter than content-length");
        }
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        stream.expected = expected;
        stream.receiving = if end { Receiving::Done } else { Receiving::Body };
        stream.arrived.head = Some(Head::Response(head));
        if end {
            stream.arrived.finish(MessageEnd::Plain);
        }
        self.events.tell(key, stream, News::READABLE);
        if end {
            self.settle(key);
        }
        Ok(())
    }

    // ---- Both ------------------------------------------------------------------------------

    fn trailers(
        &mut self,
        key: StreamKey,
        end: bool,
        head: Result<Head, HeadError>,
    ) -> Result<(), ConnectionError> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        stream.peer_ended = end;
        let headers = match head {
            Ok(Head::Trailers(headers)) => headers,
            Ok(_) => return self.malformed(key, "no trailers"),
            Err(error) => return self.bad_head(key, error),
        };
        if !end {
            return self.malformed(key, "trailers that do not end the stream"); // §8.1
        }
        if stream.expected != UNKNOWN_LENGTH && stream.expected != 0 {
            return self.malformed(key, "the content is shorter than content-length");
        }
        stream.receiving = Receiving::Done;
        let size = if self.role == Role::Server { fields_size(&headers) } else { 0 };
        stream.arrived.finish(MessageEnd::Trailers(headers));
        if stream.taken {
            self.events.tell(key, stream, News::READABLE);
        }
        self.streams.hold(key, size);
        self.settle(key);
        Ok(())
    }

    fn bad_head(&mut self, key: StreamKey, error: HeadError) -> Result<(), ConnectionError> {
        match error {
            HeadError::Malformed(why) => self.malformed(key, why),
            HeadError::Connect => self.malformed(key, "CONNECT"),
            HeadError::TooLarge { .. } => {
                // This is not a violation, because the limit is only advice (§10.5.1). Its cost was
                // spent.
                let why = match self.role {
                    Role::Client => "the response's headers are too large",
                    Role::Server => "the request's trailers are too large",
                };
                let limit = Some(self.config.max_header_list_size);
                let reset = Reset { limit, ..Reset::new(ErrorCode::ENHANCE_YOUR_CALM, why) };
                self.reject(key, reset);
                self.check_control()
            }
        }
    }

    fn malformed(&mut self, key: StreamKey, why: &'static str) -> Result<(), ConnectionError> {
        self.stream_error(key, ErrorCode::PROTOCOL_ERROR, why)
    }
}
