//! The options of generated servers and clients.

use http::{HeaderMap, HeaderValue, header};
use prost::Message;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;

use super::compression::{Encodings, GRPC_ACCEPT_ENCODING, GRPC_ENCODING, check};
use super::framing::{Deframer, encode};
use super::limit::Limit;
use super::metadata::{CONTENT_TYPE, headers};

/// The default limit for a received message, as in tonic: 4 MiB.
const MAX_DECODING: usize = 4 << 20;

/// The limits of messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) decoding: Limit,
    pub(super) encoding: Limit,
}

impl Limits {
    fn of(limit: impl Fn(usize) -> Limit) -> Self {
        Self { decoding: limit(MAX_DECODING), encoding: limit(usize::MAX) }
    }
}

/// The options of a generated server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The encodings of requests.
    pub(super) accept: Encodings,
    /// The encodings of responses, as far as the client accepts them.
    pub(super) send: Encodings,
    pub(super) limits: Limits,
}

impl ServerOptions {
    /// Accepts requests with this compression.
    ///
    /// # Panics
    ///
    /// If the crate's feature of that name is off.
    pub fn accept_compressed(&mut self, encoding: CompressionEncoding) {
        self.accept.add(check(encoding));
    }

    /// Compresses responses this way for clients that accept it.
    ///
    /// # Panics
    ///
    /// If the crate's feature of that name is off.
    pub fn send_compressed(&mut self, encoding: CompressionEncoding) {
        self.send.add(check(encoding));
    }

    /// Sets the largest size of a received message, in bytes.
    pub fn max_decoding_message_size(&mut self, limit: usize) {
        self.limits.decoding.bytes = limit;
    }

    /// Sets the largest size of a sent message, in bytes.
    pub fn max_encoding_message_size(&mut self, limit: usize) {
        self.limits.encoding.bytes = limit;
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        let (accept, send) = Default::default();
        Self { accept, send, limits: Limits::of(Limit::of_server) }
    }
}

/// The options of a generated client.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The encodings of responses.
    pub(super) accept: Encodings,
    /// The encoding of requests.
    pub(super) send: Option<CompressionEncoding>,
    pub(super) limits: Limits,
}

impl Default for ClientOptions {
    fn default() -> Self {
        let (accept, send) = Default::default();
        Self { accept, send, limits: Limits::of(Limit::of_client) }
    }
}

impl ClientOptions {
    /// Compresses requests this way.
    ///
    /// # Panics
    ///
    /// If the crate's feature of that name is off.
    pub fn send_compressed(&mut self, encoding: CompressionEncoding) {
        self.send = Some(check(encoding));
    }

    /// Accepts responses with this compression.
    ///
    /// # Panics
    ///
    /// If the crate's feature of that name is off.
    pub fn accept_compressed(&mut self, encoding: CompressionEncoding) {
        self.accept.add(check(encoding));
    }

    /// Sets the largest size of a received message, in bytes.
    pub fn max_decoding_message_size(&mut self, limit: usize) {
        self.limits.decoding.bytes = limit;
    }

    /// Sets the largest size of a sent message, in bytes.
    pub fn max_encoding_message_size(&mut self, limit: usize) {
        self.limits.encoding.bytes = limit;
    }

    /// Returns the headers of a request.
    pub(crate) fn head(&self, metadata: MetadataMap) -> HeaderMap {
        let mut headers = headers(metadata);
        // It was copied from another message, so it is probably not the length of this one.
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        if let Some(name) = self.send.and_then(|it| it.to_string().try_into().ok()) {
            headers.insert(GRPC_ENCODING, name);
        }
        if let Some(accepted) = self.accept.header() {
            headers.insert(GRPC_ACCEPT_ENCODING, accepted);
        }
        headers
    }

    /// Appends a message, encoded for a request.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED if it is larger than the limit.
    pub(crate) fn encode<M: Message>(&self, message: &M, out: &mut Vec<u8>) -> Result<(), Status> {
        encode(message, self.send, self.limits.encoding, out)
    }

    /// Returns the largest size of a received message, in bytes.
    pub(crate) fn most_received(&self) -> usize {
        self.limits.decoding.bytes
    }

    /// Returns what finds the messages of a response with this head.
    pub(crate) fn messages(&self, head: &HeaderMap) -> Deframer {
        Deframer::new(self.accept.received(head), self.limits.decoding)
    }
}
