//! A server's usual request, in one step: its head and all of its data arrive together, and the header
//! block was decoded before. `headers` and `data` deal with all other requests.
//!
//! If it is answered at once, it is never in the table of streams. Otherwise it is opened: then it is a
//! stream like all others.

use std::sync::Arc;

use super::arrived::{MessageEnd, Pieces};
use super::connection::Connection;
use super::error::ConnectionError;
use super::frame::{FrameHeader, HEADER_LEN, flag, kind};
use super::head::{Head, HeadKind, RequestHead};
use super::key::StreamKey;
use super::read::Content;
use super::receive::{CUT_OUT, Input, Next};
use super::stream::{CALL, Receiving, Stream};
use super::unopened::{Unopened, WholeRequest};
use super::whole_response::USUAL_BLOCK;

/// Where the frames of a request are, counted from its first byte.
struct RequestLayout {
    stream: u32,
    data: usize,
    end: usize,
}

impl RequestLayout {
    /// Finds HEADERS and the beginning of DATA that ends the stream, both without padding or priority.
    #[inline]
    fn find(bytes: &[u8]) -> Option<Self> {
        let head = FrameHeader::find(bytes, 0, kind::HEADERS, flag::END_HEADERS)?;
        let data = HEADER_LEN + head.len as usize;
        let content = FrameHeader::find(bytes, data, kind::DATA, flag::END_STREAM)?;
        let end = data + HEADER_LEN + content.len as usize;
        let usual = 1..CUT_OUT;
        let is_usual = content.stream == head.stream
            && head.len as usize <= USUAL_BLOCK
            && usual.contains(&(content.len as usize));
        is_usual.then_some(Self { stream: head.stream, data, end })
    }

    fn content(&self) -> usize {
        self.end - self.data - HEADER_LEN
    }
}

impl Connection {
    /// Server: receives a whole request if it comes next and is a usual one. Otherwise it changes
    /// nothing.
    #[inline]
    pub(super) fn whole_request(&mut self, input: &mut Input<'_>) -> Result<Next, ConnectionError> {
        if self.block.is_some()
            || !self.handshake.is_introduced()
            || self.passing.is_receiving()
            || !self.draining.takes_streams()
            || self.turn.is_over()
        {
            return Ok(Next::Other);
        }
        let bytes = input.rest();
        let Some(layout) = RequestLayout::find(bytes) else { return Ok(Next::Other) };
        let id = layout.stream;
        let block = &bytes[HEADER_LEN..layout.data];
        let generation = self.decoder.generation();
        let Ok(Head::Request(head)) = self.header_cache.find(HeadKind::Request, generation, block)
        else {
            return Ok(Next::Other);
        };
        let len = layout.content() as u32;
        if id.is_multiple_of(2)
            || id <= self.server.last_id
            || head.content_length.is_some()
            || len > self.initial_receive_window()
            || len > self.received.available()
            || !self.has_room()
        {
            return Ok(Next::Other);
        }
        if layout.end > bytes.len() {
            return Ok(Next::Partial);
        }
        let unopened = Unopened { id, held: CALL + head.size };
        let head = Arc::clone(head);
        let content = input.copy(layout.data + HEADER_LEN, len as usize);
        self.server.whole.push(WholeRequest { unopened, head, content });
        self.note_opened(id);
        self.server.last_accepted = id;
        self.count_whole(len)?;
        Ok(Next::Whole)
    }

    /// Server: returns how many requests there are for [`take_whole`](Self::take_whole).
    #[inline]
    pub(crate) fn whole_requests(&self) -> usize {
        self.server.whole.len()
    }

    /// Server: takes the next request that has arrived whole and has no stream. It came after all that
    /// have [events](Self::has_events).
    #[inline]
    pub(crate) fn take_whole(&mut self) -> Option<(Unopened, Arc<RequestHead>, Content)> {
        let WholeRequest { mut unopened, head, content } = self.server.whole.pop()?;
        let len = content.len() as u32;
        unopened.held += len;
        self.received.release(len);
        self.received.copied -= len as usize;
        let content = Content { pieces: Pieces::of_copy(content), trailers: None };
        Some((unopened, head, content))
    }

    /// Server: gives a request that was taken a stream, because it is not answered yet.
    pub(crate) fn open(&mut self, Unopened { id, held }: Unopened) -> StreamKey {
        let mut stream = self.complete_stream(id);
        stream.held = held;
        stream.taken = true;
        let key = self.streams.insert(stream);
        if self.dead.is_some() {
            self.end_stream(key);
        }
        key
    }

    /// Gives the whole requests that were not taken their streams, because something else may come on
    /// these. Then there are events for them.
    #[cold]
    pub(super) fn open_whole_requests(&mut self) {
        while let Some(WholeRequest { unopened, head, content }) = self.server.whole.pop() {
            let mut stream = self.complete_stream(unopened.id);
            stream.held = unopened.held;
            stream.unread = content.len() as u32;
            stream.arrived.head = Some(Head::Request(head));
            stream.arrived.pieces = Pieces::of_copy(content);
            let key = self.streams.insert(stream);
            self.announce(key);
        }
    }

    /// Returns the stream of a request that has arrived whole.
    fn complete_stream(&self, id: u32) -> Stream {
        let mut stream = self.new_stream(id);
        stream.receiving = Receiving::Done;
        stream.peer_ended = true;
        stream.arrived.end = MessageEnd::Plain;
        stream
    }
}
