//! A whole response in one step: its head, one message and its trailers.

use bytes::BufMut;
use http::HeaderMap;

use super::budget;
use super::connection::Connection;
use super::frame::{FrameHeader, HEADER_LEN, kind};
use super::key::StreamKey;
use super::send::HIGH_WATER;
use super::send_head::put_head;
use super::sent_heads::HeadId;
use super::stream::Sending;
use super::unopened::Unopened;
use super::write_buffer::LARGE;

/// A response of which only the data changes: status 200, and small data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WholeResponse<'a> {
    pub(crate) head: &'static HeaderMap,
    pub(crate) data: &'a [u8],
    pub(crate) trailers: &'static HeaderMap,
}

impl Connection {
    /// Server: sends a whole response, and forgets the stream. It sends the same bytes as the functions
    /// for the three parts.
    ///
    /// Returns false, and does nothing, if not all of it can be sent now, or if the head or the
    /// trailers were not sent before.
    pub(crate) fn send_whole(&mut self, key: StreamKey, response: WholeResponse<'_>) -> bool {
        let Some(stream) = self.streams.get(key) else { return false };
        let window = stream.send_window.available();
        if stream.sending != Sending::Head || !self.put_whole(key.id(), window, response) {
            return false;
        }
        if let Some(stream) = self.streams.get_mut(key) {
            stream.send_window.take(response.data.len());
            stream.sending = Sending::Done;
        }
        self.forget(key);
        true
    }

    /// Server: does the same for a request that has no stream. Returns the request if it does nothing.
    pub(crate) fn answer(
        &mut self,
        request: Unopened,
        response: WholeResponse<'_>,
    ) -> Result<(), Unopened> {
        let window = self.peer.initial_window_size as usize;
        if !self.put_whole(request.id, window, response) {
            return Err(request);
        }
        self.count_complete(request.id);
        Ok(())
    }

    /// Writes a whole response on a stream with so much window. Returns false if it writes nothing.
    #[inline]
    fn put_whole(&mut self, id: u32, window: usize, response: WholeResponse<'_>) -> bool {
        let WholeResponse { head, data, trailers } = response;
        let len = data.len();
        let fits = len > 0
            && len < LARGE
            && len <= self.max_data()
            && len <= window
            && len <= self.outflow.available()
            && self.write_buffer.len() < HIGH_WATER;
        if !fits || self.dead.is_some() {
            return false;
        }
        let limit = self.peer.max_header_list_size;
        let known =
            |fields| self.sent_heads.find(Some(HeadId::fields(fields)), &self.encoder, limit);
        let (Some(head), Some(trailers)) = (known(head), known(trailers)) else { return false };
        let header = FrameHeader { len: len as u32, kind: kind::DATA, flags: 0, stream: id };
        let out = self.write_buffer.buffer();
        out.reserve(head.len() + HEADER_LEN + len + trailers.len());
        put_head(out, head, id, false);
        out.put_slice(&header.bytes());
        out.put_slice(data);
        put_head(out, trailers, id, true);
        self.outflow.take(len);
        self.budget.earn(budget::DATA_SENT + len as u32 / budget::BYTES_PER_UNIT);
        true
    }
}
