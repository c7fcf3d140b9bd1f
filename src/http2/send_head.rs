//! Heads out: requests, responses and trailers, encoded straight into the write buffer.

use bytes::{Buf, BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::connection::Connection;
use super::draining::Draining;
use super::fields;
use super::flow::MAX_WINDOW;
use super::frame::{self, FrameHeader, HEADER_LEN, flag, kind};
use super::hpack::{BlockEncoder, Pseudo};
use super::key::StreamKey;
use super::role::Role;
use super::send::Progress;
use super::sent_heads::HeadId;
use super::stream::{Ending, Sending};
use crate::descriptors::Descriptors;

/// A request's head, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendRequest<'a> {
    pub(crate) method: &'a str,
    pub(crate) scheme: &'a str,
    pub(crate) authority: &'a [u8],
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    /// Further fields. Adding them to a map would cost more than sending them.
    pub(crate) more: [Option<(&'a HeaderName, &'a HeaderValue)>; 2],
    pub(crate) descriptors: Option<&'a Descriptors>,
    /// Set if everything but the descriptors stays the same as long as the connection lasts.
    pub(crate) id: Option<HeadId>,
}

impl<'a> SendRequest<'a> {
    /// Returns all fields except Host, because `:authority` has its value (RFC 9113 §8.3.1).
    fn fields(&self) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        self.headers
            .iter()
            .chain(self.more.into_iter().flatten())
            .filter(|(name, _)| *name != header::HOST)
    }

    /// Identifies everything that its head consists of.
    fn head_id(&self) -> Option<HeadId> {
        self.id.map(|id| id.with(self.more.map(|field| field.is_some())))
    }
}

/// Why a request cannot be sent on this connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotNow {
    /// The server's limit is reached. [`ProtocolEvent::SlotsAvailable`](super::ProtocolEvent::SlotsAvailable) tells
    /// when there is a slot.
    NoSlot,
    /// One end has announced the connection's end, it has ended, or all 2^30 identifiers are used (RFC
    /// 9113 §5.1.1). Use another connection.
    TakesNoRequests,
    /// The headers are larger than the server accepts.
    TooLarge { limit: u32 },
    /// The connection carries fewer descriptors with a request. The limit is the server's, or 0 if
    /// this end did not ask for descriptors.
    TooManyDescriptors { limit: u32 },
}

impl Connection {
    /// Client: returns whether the connection takes requests, now or once there is a slot.
    pub(crate) fn takes_requests(&self) -> bool {
        self.dead.is_none()
            && self.draining == Draining::No
            && self.peer_goes_away.is_none()
            && self.client.next_id <= MAX_WINDOW
    }

    /// Client: returns whether a request that has waited can be sent or refused now. Otherwise
    /// [`ProtocolEvent::SlotsAvailable`](super::ProtocolEvent::SlotsAvailable) tells when it can.
    pub(crate) fn offers_slot(&mut self) -> bool {
        let offers = !self.takes_requests() || self.has_slot();
        self.client.wants_slot |= !offers;
        offers
    }

    /// Client: notes that no request waits for a slot any more.
    pub(crate) fn wants_no_slot(&mut self) {
        self.client.wants_slot = false;
    }

    /// Client: sends a request's head, and opens its stream. With `end` the request has no body.
    pub(crate) fn send_request(
        &mut self,
        request: SendRequest<'_>,
        end: bool,
    ) -> Result<StreamKey, NotNow> {
        debug_assert_eq!(self.role, Role::Client);
        if !self.takes_requests() {
            return Err(NotNow::TakesNoRequests);
        }
        if !self.has_slot() {
            self.client.wants_slot = true;
            return Err(NotNow::NoSlot);
        }
        let limit = self.peer.max_header_list_size;
        let head_id = request.head_id();
        let is_known = self.sent_heads.find(head_id, &self.encoder, limit).is_some();
        if !is_known && limit != u32::MAX && list_size(&request) > limit as usize {
            return Err(NotNow::TooLarge { limit });
        }
        if let Some(descriptors) = request.descriptors {
            let limit = self.peer_takes_descriptors();
            if descriptors.len() > limit as usize {
                return Err(NotNow::TooManyDescriptors { limit });
            }
        }
        let id = self.client.next_id;
        self.client.next_id += 2;
        let mut stream = self.new_stream(id);
        stream.taken = true;
        stream.first_byte = self.write_buffer.end();
        stream.sending = if end { Sending::Done } else { Sending::Body };
        let key = self.streams.insert(stream);
        if let Some(descriptors) = request.descriptors {
            self.write_descriptors(key, descriptors);
        }
        if self.write_known_head(id, end, head_id) {
            return Ok(key);
        }
        let literals = self.encoder.literals();
        let start = self.write_head(id, end, |block| {
            block.pseudo(Pseudo::Method, request.method.as_bytes());
            block.pseudo(Pseudo::Scheme, request.scheme.as_bytes());
            block.pseudo(Pseudo::Path, request.path.as_bytes());
            block.pseudo(Pseudo::Authority, request.authority);
            fields::write(block, request.fields());
        });
        if head_id.is_some() {
            self.keep_head(head_id, literals, list_size(&request), start);
        }
        Ok(key)
    }

    /// Server: sends the head of a response. Informational responses may come first. With `end` the
    /// response has neither a body nor trailers.
    ///
    /// A list that is larger than the client takes is cut. If a body were to follow such a head, a
    /// status replaces it, and then the stream takes no body.
    pub(crate) fn send_response(
        &mut self,
        key: StreamKey,
        status: StatusCode,
        headers: &HeaderMap,
        end: bool,
    ) -> Progress {
        self.respond(key, status, headers, end, None)
    }

    /// Server: sends the head of a response with status 200 and fields that never change. Otherwise
    /// it does the same as [`send_response`](Self::send_response).
    pub(crate) fn send_static_response(
        &mut self,
        key: StreamKey,
        headers: &'static HeaderMap,
    ) -> Progress {
        self.respond(key, StatusCode::OK, headers, false, Some(HeadId::fields(headers)))
    }

    fn respond(
        &mut self,
        key: StreamKey,
        status: StatusCode,
        headers: &HeaderMap,
        end: bool,
        head_id: Option<HeadId>,
    ) -> Progress {
        debug_assert_eq!(self.role, Role::Server);
        let Some(stream) = self.streams.get_mut(key) else {
            return Progress::Closed;
        };
        if stream.sending != Sending::Head || self.dead.is_some() {
            debug_assert_ne!(stream.sending, Sending::Body, "two heads");
            return Progress::Closed;
        }
        let id = stream.id;
        if head_id.is_some() && self.write_known_head(id, false, head_id) {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.sending = Sending::Body;
            }
            return Progress::Sent;
        }
        let informational = status.is_informational();
        debug_assert!(!(informational && end), "a 1xx response that ends the stream");
        let mut end = end && !informational;
        let limit = self.peer.max_header_list_size as usize;
        let pseudo = fields::field_size(":status", 3);
        let mut cut = None;
        if limit < u32::MAX as usize && !informational && pseudo + fields::size(headers) > limit {
            if end {
                cut = Some(fields::cut(headers, limit.saturating_sub(pseudo)));
            } else if fields::are_grpc(headers) {
                cut = Some(fields::refusal(headers, limit));
                end = true;
            }
        }
        let is_cut = cut.is_some();
        let headers = cut.as_ref().unwrap_or(headers);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.sending = match (informational, end) {
                (true, _) => Sending::Head,
                (false, false) => Sending::Body,
                (false, true) => Sending::Done,
            };
        }
        let literals = self.encoder.literals();
        let start = self.write_head(id, end, |block| {
            block.pseudo(Pseudo::Status, status.as_str().as_bytes());
            fields::write(block, headers);
        });
        if head_id.is_some() && !is_cut {
            self.keep_head(head_id, literals, pseudo + fields::size(headers), start);
        }
        if end {
            self.settle(key);
        }
        Progress::Sent
    }

    /// Ends the message with trailers, after all data given before.
    pub(crate) fn send_trailers(&mut self, key: StreamKey, trailers: &HeaderMap) -> Progress {
        self.end_with(key, trailers, None)
    }

    /// Ends the message with trailers that never change.
    pub(crate) fn send_static_trailers(
        &mut self,
        key: StreamKey,
        trailers: &'static HeaderMap,
    ) -> Progress {
        self.end_with(key, trailers, Some(HeadId::fields(trailers)))
    }

    fn end_with(
        &mut self,
        key: StreamKey,
        trailers: &HeaderMap,
        head_id: Option<HeadId>,
    ) -> Progress {
        let Some(stream) = self.streams.get_mut(key) else {
            return Progress::Closed;
        };
        if stream.sending != Sending::Body || self.dead.is_some() {
            debug_assert_ne!(stream.sending, Sending::Head, "trailers before the head");
            return Progress::Closed;
        }
        if let Some(queued) = &mut stream.queued {
            queued.ending = Some(Ending::Trailers(trailers.clone()));
            stream.sending = Sending::Ending;
            return Progress::Queued;
        }
        stream.sending = Sending::Done;
        let id = stream.id;
        self.write_trailers(id, trailers, head_id);
        self.settle(key);
        Progress::Sent
    }

    /// Writes trailers, cut to what the peer takes. They have no length, which only a head may have
    /// (RFC 9110 §6.5.1).
    pub(super) fn write_trailers(
        &mut self,
        id: u32,
        trailers: &HeaderMap,
        head_id: Option<HeadId>,
    ) {
        if head_id.is_some() && self.write_known_head(id, true, head_id) {
            return;
        }
        let limit = self.peer.max_header_list_size as usize;
        let is_too_large = limit < u32::MAX as usize && fields::size(trailers) > limit;
        let cut = is_too_large.then(|| fields::cut(trailers, limit));
        let is_cut = cut.is_some();
        let trailers = cut.as_ref().unwrap_or(trailers);
        let literals = self.encoder.literals();
        let start = self.write_head(id, true, |block| {
            let fields = trailers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH);
            fields::write(block, fields);
        });
        if head_id.is_some() && !is_cut {
            self.keep_head(head_id, literals, fields::size(trailers), start);
        }
    }

    /// Acts as if all identifiers but the last `left` had been used.
    #[cfg(test)]
    pub(crate) fn leave_identifiers(&mut self, left: u32) {
        self.client.next_id = MAX_WINDOW - 2 * left + 2;
    }

    /// Writes HEADERS with a block that was sent before, if there is one. Returns whether there
    /// was.
    #[inline]
    fn write_known_head(&mut self, id: u32, end: bool, head_id: Option<HeadId>) -> bool {
        let limit = self.peer.max_header_list_size;
        let Some(frame) = self.sent_heads.find(head_id, &self.encoder, limit) else {
            return false;
        };
        put_head(self.write_buffer.buffer(), frame, id, end);
        true
    }

    /// Keeps the frame that begins at `start` for the next head of the same kind, if its block consists
    /// of indexed fields only. `literals` is how many other parts the blocks before it had.
    #[cold]
    fn keep_head(
        &mut self,
        head_id: Option<HeadId>,
        literals: u64,
        list_size: usize,
        start: usize,
    ) {
        let Some(head_id) = head_id.filter(|_| self.encoder.literals() == literals) else { return };
        let frame = &self.write_buffer.buffer()[start..];
        self.sent_heads.keep(head_id, &self.encoder, list_size, frame);
    }

    /// Writes HEADERS with the fields that `fill` adds, and CONTINUATION frames if they do not fit
    /// into one frame. Returns where the frame begins in the buffer.
    #[inline]
    fn write_head(
        &mut self,
        id: u32,
        end: bool,
        fill: impl FnOnce(&mut BlockEncoder<'_>),
    ) -> usize {
        let max = self.peer.max_frame_size as usize;
        let out = self.write_buffer.buffer();
        let start = out.len();
        out.reserve(128);
        let mut header = FrameHeader {
            len: 0,
            kind: kind::HEADERS,
            flags: flag::END_HEADERS | if end { flag::END_STREAM } else { 0 },
            stream: id,
        };
        out.put_slice(&header.bytes());
        fill(&mut self.encoder.begin(out));
        let len = out.len() - start - HEADER_LEN;
        if len > max {
            split_head(out, start, header, max);
            return start;
        }
        header.len = len as u32;
        out[start..start + HEADER_LEN].copy_from_slice(&header.bytes());
        start
    }
}

/// Appends a HEADERS frame that was sent before, for another stream.
#[inline]
pub(super) fn put_head(out: &mut BytesMut, frame: &[u8], stream: u32, end: bool) {
    let start = out.len();
    out.put_slice(frame);
    let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
    frame::readdress(&mut out[start..], flags, stream);
}

/// Splits a block that is longer than the peer's frames (§6.10).
#[cold]
fn split_head(out: &mut BytesMut, start: usize, mut header: FrameHeader, max: usize) {
    let frames = out.split_off(start);
    let mut block = &frames[HEADER_LEN..];
    header.flags &= !flag::END_HEADERS;
    while !block.is_empty() {
        let len = block.len().min(max);
        header.len = len as u32;
        if len == block.len() {
            header.flags |= flag::END_HEADERS;
        }
        out.put_slice(&header.bytes());
        out.put_slice(&block[..len]);
        block.advance(len);
        header.kind = kind::CONTINUATION;
        header.flags = 0;
    }
}

/// Returns the size of a request's head as SETTINGS_MAX_HEADER_LIST_SIZE counts it (§6.5.2).
fn list_size(request: &SendRequest<'_>) -> usize {
    let pseudo = fields::field_size(":method", request.method.len())
        + fields::field_size(":scheme", request.scheme.len())
        + fields::field_size(":authority", request.authority.len())
        + fields::field_size(":path", request.path.len());
    pseudo + fields::size(request.fields())
}
