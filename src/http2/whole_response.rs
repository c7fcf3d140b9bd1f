//! A client's usual response, in one step: its head, its data and its trailers arrive together, and
//! both header blocks were decoded before. `headers` and `data` deal with all other responses.

use super::arrived::MessageEnd;
use super::connection::Connection;
use super::error::ConnectionError;
use super::frame::{FrameHeader, HEADER_LEN, flag, kind};
use super::head::{Head, HeadKind};
use super::news::News;
use super::receive::{CUT_OUT, Input, Next};
use super::stream::{Receiving, UNKNOWN_LENGTH};

/// A longer header block is no usual one.
pub(super) const USUAL_BLOCK: usize = 64;

/// Where the frames of a response are, counted from its first byte.
struct ResponseLayout {
    stream: u32,
    data: usize,
    trailers: usize,
    end: usize,
}

impl ResponseLayout {
    /// Finds HEADERS, DATA and HEADERS that ends the stream, all three complete and without padding
    /// or priority.
    #[inline]
    fn find(bytes: &[u8]) -> Option<Self> {
        const LAST: u8 = flag::END_HEADERS | flag::END_STREAM;
        let head = FrameHeader::find(bytes, 0, kind::HEADERS, flag::END_HEADERS)?;
        let stream = head.stream;
        let next = |from, kind, flags| {
            FrameHeader::find(bytes, from, kind, flags).filter(|next| next.stream == stream)
        };
        let data = HEADER_LEN + head.len as usize;
        let content = next(data, kind::DATA, 0)?;
        let trailers = data + HEADER_LEN + content.len as usize;
        let last = next(trailers, kind::HEADERS, LAST)?;
        let end = trailers + HEADER_LEN + last.len as usize;
        let usual = 1..CUT_OUT;
        let is_usual = head.len as usize <= USUAL_BLOCK
            && last.len as usize <= USUAL_BLOCK
            && usual.contains(&(content.len as usize));
        (is_usual && end <= bytes.len()).then_some(Self { stream, data, trailers, end })
    }

    fn content(&self) -> usize {
        self.trailers - self.data - HEADER_LEN
    }
}

impl Connection {
    /// Client: receives a whole response if it comes next and is a usual one. Otherwise it changes
    /// nothing.
    #[inline]
    pub(super) fn whole_response(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Next, ConnectionError> {
        if self.block.is_some() || self.passing.is_receiving() {
            return Ok(Next::Other);
        }
        let bytes = input.rest();
        let Some(layout) = ResponseLayout::find(bytes) else { return Ok(Next::Other) };
        let generation = self.decoder.generation();
        let block = &bytes[HEADER_LEN..layout.data];
        let Ok(Head::Response(head)) =
            self.header_cache.find(HeadKind::Response, generation, block)
        else {
            return Ok(Next::Other);
        };
        let block = &bytes[layout.trailers + HEADER_LEN..layout.end];
        let Ok(Head::Trailers(trailers)) =
            self.header_cache.find(HeadKind::Trailers, generation, block)
        else {
            return Ok(Next::Other);
        };
        let len = layout.content() as u32;
        let Some(key) = self.streams.find(layout.stream) else { return Ok(Next::Other) };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Next::Other) };
        if head.status.is_informational()
            || head.content_length.is_some()
            || stream.receiving != Receiving::Head
            || stream.forgotten
            || len > stream.receive_window.available()
            || len > self.received.available()
        {
            return Ok(Next::Other);
        }
        stream.receiving = Receiving::Done;
        stream.peer_ended = true;
        stream.expected = UNKNOWN_LENGTH;
        stream.unread = len;
        stream.arrived.head = Some(Head::Response(head.clone()));
        stream.arrived.finish(MessageEnd::Trailers(trailers.clone()));
        let piece = if input.lends() {
            self.lent.get_or_insert_default().push(key);
            input.lend(layout.data + HEADER_LEN, len as usize)
        } else {
            input.copied(layout.data + HEADER_LEN, len as usize)
        };
        stream.arrived.pieces.push(piece);
        self.events.tell(key, stream, News::READABLE);
        input.advance(layout.end - layout.trailers);
        self.settle(key);
        self.count_whole(len)?;
        Ok(Next::Whole)
    }
}
