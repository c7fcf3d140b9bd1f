//! What can be set on generated servers and clients.

use http::{HeaderMap, HeaderValue, header};
use prost::Message;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;

use super::compression::{Encodings, GRPC_ACCEPT_ENCODING, GRPC_ENCODING, check};
use super::framing::{Deframer, encode};
use super::metadata::{CONTENT_TYPE, headers};

/// How large a received message may be unless something else is set, as with tonic: 4 MiB.
const MAX_DECODING: usize = 4 << 20;

/// The limits of messages, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) decoding: usize,
    pub(super) encoding: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { decoding: MAX_DECODING, encoding: usize::MAX }
    }
}

/// What is set on a generated server.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Of requests.
    pub(super) accept: Encodings,
    /// Of responses, as far as the client accepts it.
    pub(super) send: Encodings,
    pub(super) limits: Limits,
}

impl ServerOptions {
    /// Accepts requests that are compressed so.
    ///
    /// # Panics
    ///
    /// Where the crate's feature of that name is off.
    pub fn accept_compressed(&mut self, encoding: CompressionEncoding) {
        self.accept.add(check(encoding));
    }

    /// Compresses responses so, for clients that accept it.
    ///
    /// # Panics
    ///
    /// Where the crate's feature of that name is off.
    pub fn send_compressed(&mut self, encoding: CompressionEncoding) {
        self.send.add(check(encoding));
    }

    /// How large a received message may be, in bytes.
    pub fn max_decoding_message_size(&mut self, limit: usize) {
        self.limits.decoding = limit;
    }

    /// How large a sent message may be, in bytes.
    pub fn max_encoding_message_size(&mut self, limit: usize) {
        self.limits.encoding = limit;
    }
}

/// What is set on a generated client.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Of responses.
    pub(super) accept: Encodings,
    /// Of requests.
    pub(super) send: Option<CompressionEncoding>,
    pub(super) limits: Limits,
}

impl ClientOptions {
    /// Compresses requests so.
    ///
    /// # Panics
    ///
    /// Where the crate's feature of that name is off.
    pub fn send_compressed(&mut self, encoding: CompressionEncoding) {
        self.send = Some(check(encoding));
    }

    /// Accepts responses that are compressed so.
    ///
    /// # Panics
    ///
    /// Where the crate's feature of that name is off.
    pub fn accept_compressed(&mut self, encoding: CompressionEncoding) {
        self.accept.add(check(encoding));
    }

    /// How large a received message may be, in bytes.
    pub fn max_decoding_message_size(&mut self, limit: usize) {
        self.limits.decoding = limit;
    }

    /// How large a sent message may be, in bytes.
    pub fn max_encoding_message_size(&mut self, limit: usize) {
        self.limits.encoding = limit;
    }

    /// The headers of a request.
    pub(crate) fn head(&self, metadata: MetadataMap) -> HeaderMap {
        let mut headers = headers(metadata);
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

    /// Appends a message as requests have it.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED where it is larger than the limit.
    pub(crate) fn encode<M: Message>(&self, message: &M, out: &mut Vec<u8>) -> Result<(), Status> {
        encode(message, self.send, self.limits.encoding, out)
    }

    /// What finds the messages of a response with this head.
    pub(crate) fn messages(&self, head: &HeaderMap) -> Deframer {
        Deframer::new(self.accept.received(head), self.limits.decoding)
    }
}
