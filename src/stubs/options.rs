//! What can be set on generated servers and clients.

use tonic::codec::CompressionEncoding;

use super::compression::{Encodings, check};

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
