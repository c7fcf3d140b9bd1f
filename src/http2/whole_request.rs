//! A server's usual request, in one step: its head and all of its data arrive together, and the header
//! block was decoded before. `headers` and `data` deal with all other requests.

use super::arrived::MessageEnd;
use super::connection::Connection;
use super::draining::Draining;
use super::error::ConnectionError;
use super::frame::{FrameHeader, HEADER_LEN, flag, kind};
use super::head::{Head, HeadKind};
use super::receive::{CUT_OUT, Input};
use super::stream::{CALL, Receiving};
use super::whole_response::MAX_BLOCK;

/// Where the frames of a request are, counted from its first byte.
struct RequestLayout {
    stream: u32,
    data: usize,
    end: usize,
}

impl RequestLayout {
    /// Finds HEADERS and DATA that ends the stream, both complete and without padding or priority.
    #[inline]
    fn find(bytes: &[u8]) -> Option<Self> {
        let head = FrameHeader::find(bytes, 0, kind::HEADERS, flag::END_HEADERS)?;
        let data = HEADER_LEN + head.len as usize;
        let content = FrameHeader::find(bytes, data, kind::DATA, flag::END_STREAM)?;
        let end = data + HEADER_LEN + content.len as usize;
        let usual = 1..CUT_OUT;
        let is_usual = content.stream == head.stream
            && head.len as usize <= MAX_BLOCK
            && usual.contains(&(content.len as usize));
        (is_usual && end <= bytes.len()).then_some(Self { stream: head.stream, data, end })
    }

    fn content(&self) -> usize {
        self.end - self.data - HEADER_LEN
    }
}

impl Connection {
    /// Server: receives a whole request if it comes next and is a usual one. Otherwise it changes
    /// nothing and returns false.
    #[inline]
    pub(super) fn whole_request(&mut self, input: &mut Input<'_>) -> Result<bool, ConnectionError> {
        if self.block.is_some()
            || !self.handshake.is_introduced()
            || self.passing.is_receiving()
            || self.draining == Draining::Final
            || self.server.is_turn_over()
        {
            return Ok(false);
        }
        let bytes = input.rest();
        let Some(layout) = RequestLayout::find(bytes) else { return Ok(false) };
        let id = layout.stream;
        let block = &bytes[HEADER_LEN..layout.data];
        let generation = self.decoder.generation();
        let Ok(Head::Request(head)) = self.header_cache.find(HeadKind::Request, generation, block)
        else {
            return Ok(false);
        };
        let len = layout.content() as u32;
        if id.is_multiple_of(2)
            || id <= self.server.last_id
            || head.content_length.is_some()
            || len > self.initial_receive_window()
            || len > self.received.available()
            || !self.has_room()
        {
            return Ok(false);
        }
        let mut stream = self.new_stream(id);
        stream.receiving = Receiving::Done;
        stream.peer_ended = true;
        stream.held = CALL + head.size;
        stream.unread = len;
        stream.arrived.head = Some(Head::Request(head.clone()));
        stream.arrived.end = MessageEnd::Plain;
        let piece = input.take(layout.data + HEADER_LEN, len as usize, false, &mut self.pinned);
        stream.arrived.pieces.push(piece);
        self.note_opened(id);
        self.server.last_accepted = id;
        let key = self.streams.insert(stream);
        self.announce(key);
        self.count_whole(len)?;
        Ok(true)
    }
}
