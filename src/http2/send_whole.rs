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
use super::write_buffer::LARGE;

impl Connection {
    /// Server: sends a response with status 200 whose head and trailers never change, and whose data
    /// is small, and forgets the stream. It sends the same bytes as the functions for the three parts.
    ///
    /// Returns false, and does nothing, if not all of it can be sent now, or if the head or the
    /// trailers were not sent before.
    pub(crate) fn send_whole(
        &mut self,
        key: StreamKey,
        head: &'static HeaderMap,
        data: &[u8],
        trailers: &'static HeaderMap,
    ) -> bool {
        let len = data.len();
        let max_data = self.max_data();
        let Some(stream) = self.streams.get_mut(key) else { return false };
        let fits = len > 0
            && len < LARGE
            && len <= max_data
            && len <= stream.send_window.available()
            && len <= self.outflow.available()
            && self.write_buffer.len() < HIGH_WATER;
        if !fits || stream.sending != Sending::Head || self.dead.is_some() {
            return false;
        }
        let limit = self.peer.max_header_list_size;
        let known =
            |fields| self.sent_heads.find(Some(HeadId::fields(fields)), &self.encoder, limit);
        let (Some(head), Some(trailers)) = (known(head), known(trailers)) else { return false };
        stream.send_window.take(len);
        stream.sending = Sending::Done;
        let id = stream.id;
        let header = FrameHeader { len: len as u32, kind: kind::DATA, flags: 0, stream: id };
        let out = self.write_buffer.buffer();
        out.reserve(head.len() + HEADER_LEN + len + trailers.len());
        put_head(out, head, id, false);
        out.put_slice(&header.bytes());
        out.put_slice(data);
        put_head(out, trailers, id, true);
        self.outflow.take(len);
        self.budget.earn(budget::DATA_SENT + len as u32 / budget::BYTES_PER_UNIT);
        self.forget(key);
        true
    }
}
