//! A whole response in one step: its head, one message and its trailers.

use bytes::BufMut;
use http::HeaderMap;

use super::budget;
use super::connection::Connection;
use super::frame::{FrameHeader, HEADER_LEN, flag, kind};
use super::key::StreamKey;
use super::send::HIGH_WATER;
use super::sent_heads::HeadId;
use super::stream::Sending;
use super::write_buffer::LARGE;

impl Connection {
    /// Server: sends a response with status 200 whose head and trailers never change, and whose data
    /// is small. It sends the same bytes as the functions for the three parts.
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
        let stream = stream.id;
        let frame = |kind, flags, payload: &[u8]| {
            FrameHeader { len: payload.len() as u32, kind, flags, stream }.bytes()
        };
        let out = self.write_buffer.buffer();
        out.reserve(3 * HEADER_LEN + head.len() + len + trailers.len());
        out.put_slice(&frame(kind::HEADERS, flag::END_HEADERS, head));
        out.put_slice(head);
        out.put_slice(&frame(kind::DATA, 0, data));
        out.put_slice(data);
        out.put_slice(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, trailers));
        out.put_slice(trailers);
        self.outflow.take(len);
        self.budget.earn(budget::DATA_SENT + len as u32 / budget::BYTES_PER_UNIT);
        self.settle(key);
        true
    }
}
