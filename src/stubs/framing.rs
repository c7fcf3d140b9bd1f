//! Messages as bytes. Each has a prefix: whether it is compressed, and its length in four bytes
//! ("Length-Prefixed-Message", PROTOCOL-HTTP2.md of the gRPC project).

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::CompressionEncoding;

use super::compression::{ReceivedEncoding, compress, decompress};
use super::limit::Limit;
use super::message_buffer::MessageBuffer;
use super::message_parts::MessageParts;
use crate::grpc::PREFIX;
use crate::http2::{CUT_OUT, Pieces, copy_payload};

/// Appends a message, with its prefix, to `out`. If it fails, `out` is unchanged.
///
/// # Errors
///
/// RESOURCE_EXHAUSTED if it is larger than the limit as it would be sent.
pub(super) fn encode<M: Message>(
    message: &M,
    encoding: Option<CompressionEncoding>,
    limit: Limit,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    let Some(encoding) = encoding else {
        return encode_plain(message, limit, out);
    };
    let start = out.len();
    encode_compressed(message, encoding, limit, out).inspect_err(|_| out.truncate(start))
}

fn encode_plain<M: Message>(message: &M, limit: Limit, out: &mut Vec<u8>) -> Result<(), Status> {
    let length = sent_len(message, limit)?;
    encode_sized(message, length, out);
    Ok(())
}

/// Returns a message, with its prefix, in memory of its own.
///
/// # Errors
///
/// As for [`encode`].
pub(super) fn encode_whole<M: Message>(
    message: &M,
    encoding: Option<CompressionEncoding>,
    limit: Limit,
) -> Result<Bytes, Status> {
    if encoding.is_none() {
        let length = sent_len(message, limit)?;
        if let Some(encoded) = encode_large(message, length) {
            return Ok(encoded);
        }
    }
    let mut out = Vec::new();
    encode(message, encoding, limit, &mut out)?;
    Ok(out.into())
}

/// Appends a large message whose length is known, not compressed, with its prefix.
pub(super) fn encode_parts<M: Message>(message: &M, length: u32, parts: &mut MessageParts) {
    let mut writer = parts.writer(PREFIX + length as usize);
    writer.put_slice(&plain_prefix(length));
    message.encode_raw(&mut writer);
    writer.finish();
}

/// Returns a large message whose length is known, not compressed, with its prefix.
fn encode_large<M: Message>(message: &M, length: u32) -> Option<Bytes> {
    MessageBuffer::encode(&plain_prefix(length), message, length as usize)
}

/// Returns the prefix of a message that is not compressed.
fn plain_prefix(length: u32) -> [u8; PREFIX] {
    let [first, second, third, fourth] = length.to_be_bytes();
    [0, first, second, third, fourth]
}

/// Returns the length of a message that is not compressed, without its prefix.
///
/// # Errors
///
/// RESOURCE_EXHAUSTED if it is larger than the limit.
pub(super) fn sent_len<M: Message>(message: &M, limit: Limit) -> Result<u32, Status> {
    let length = message.encoded_len();
    check_sent(length, limit)?;
    u32::try_from(length).map_err(|_| limit.sent_too_large(length))
}

/// Appends a message whose length is known, not compressed, with its prefix.
#[inline]
pub(super) fn encode_sized<M: Message>(message: &M, length: u32, out: &mut Vec<u8>) {
    out.reserve(PREFIX + length as usize);
    out.extend_from_slice(&plain_prefix(length));
    message.encode_raw(out);
}

fn encode_compressed<M: Message>(
    message: &M,
    encoding: CompressionEncoding,
    limit: Limit,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    let start = out.len();
    out.extend_from_slice(&[1, 0, 0, 0, 0]);
    compress(encoding, &message.encode_to_vec(), out)
        .map_err(|error| Status::internal(format!("a message cannot be compressed: {error}")))?;
    let length = out.len() - start - PREFIX;
    check_sent(length, limit)?;
    let prefix = u32::try_from(length).map_err(|_| limit.sent_too_large(length))?;
    out[start + 1..start + PREFIX].copy_from_slice(&prefix.to_be_bytes());
    Ok(())
}

fn check_sent(length: usize, limit: Limit) -> Result<(), Status> {
    if length <= limit.bytes.min(u32::MAX as usize) {
        return Ok(());
    }
    Err(limit.sent_too_large(length))
}

/// Returns whether a piece is exactly one message that the limit allows and that is not compressed.
/// [`Deframer`] deals with all other pieces.
#[inline]
pub(super) fn is_single(piece: &[u8], limit: Limit) -> bool {
    let Some((&[flag, length @ ..], message)) = piece.split_first_chunk::<PREFIX>() else {
        return false;
    };
    let length = u32::from_be_bytes(length) as usize;
    flag == 0 && length == message.len() && length <= limit.bytes
}

/// Decodes the message of a body that is a [single](is_single) piece. Returns all other bodies as they
/// are.
///
/// # Errors
///
/// INTERNAL if it cannot be decoded.
#[inline]
pub(super) fn take_single<M: Message + Default>(
    pieces: Pieces,
    limit: Limit,
) -> Result<Result<M, Status>, Pieces> {
    let (piece, is_own) = pieces.into_single(|piece| is_single(piece, limit))?;
    Ok(decode_single(piece, is_own))
}

/// Decodes the message of a [single](is_single) piece. If the piece has memory of its own, the
/// message's `bytes` fields refer to the piece. Otherwise they are copied out of it, because they would
/// keep the whole read buffer: one that is as large as `CUT_OUT` may be part of it.
#[inline]
pub(super) fn decode_single<M: Message + Default>(
    mut piece: Bytes,
    is_own: bool,
) -> Result<M, Status> {
    let decoded = if is_own && piece.len() < CUT_OUT {
        piece.advance(PREFIX);
        M::decode(piece)
    } else {
        M::decode(Borrowed(&piece[PREFIX..]))
    };
    decoded.map_err(|error| undecodable(&error))
}

/// Bytes whose memory is needed for other things. What is kept of them is copied.
struct Borrowed<'a>(&'a [u8]);

impl Buf for Borrowed<'_> {
    #[inline]
    fn remaining(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        self.0
    }

    #[inline]
    fn advance(&mut self, bytes: usize) {
        self.0.advance(bytes);
    }

    #[inline]
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        copy_payload(bytes)
    }
}

/// Finds messages in data that arrives in pieces of any size.
#[derive(Debug)]
pub(crate) struct Deframer {
    limit: Limit,
    received: ReceivedEncoding,
    /// The rest of the piece that arrived last.
    piece: Bytes,
    /// A message that has not arrived completely, with its prefix.
    partial: MessageBuffer,
    /// The size of the partial message with its prefix, once the prefix has come.
    expected: Option<usize>,
    /// Whether the last message that was found is compressed.
    compressed: bool,
}

impl Deframer {
    /// Returns a deframer. The limit holds for the size of a message, compressed and not.
    pub(crate) fn new(received: ReceivedEncoding, limit: Limit) -> Self {
        let (piece, partial) = (Bytes::new(), MessageBuffer::new());
        Self { limit, received, piece, partial, expected: None, compressed: false }
    }

    /// Adds what has arrived, once [`next`](Self::next) has found no more messages.
    pub(crate) fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty(), "messages are taken out first");
        self.piece = piece;
    }

    /// Returns the room that the beginning of a message takes, in bytes.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.partial.capacity()
    }

    /// Returns whether the last message was compressed, so that it may be much larger than its bytes.
    pub(super) fn was_compressed(&self) -> bool {
        self.compressed
    }

    /// Returns whether no message has begun.
    pub(crate) fn is_empty(&self) -> bool {
        self.piece.is_empty() && self.partial.is_empty()
    }

    /// Returns the next message if it has arrived.
    ///
    /// # Errors
    ///
    /// The status for a prefix or a message that is not valid. Nothing can be read after it.
    pub(crate) fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        if self.partial.is_empty() {
            if let Some(&prefix) = self.piece.first_chunk::<PREFIX>() {
                let size = self.check(prefix)?;
                if self.piece.len() >= size {
                    let message = self.decode(prefix[0], &self.piece[PREFIX..size])?;
                    self.piece.advance(size);
                    return Ok(Some(message));
                }
            } else if self.piece.is_empty() {
                self.drop_piece();
                return Ok(None);
            }
        }
        self.gather()
    }

    /// Drops the piece, in which nothing is left, because it may keep a whole read buffer.
    fn drop_piece(&mut self) {
        debug_assert!(self.piece.is_empty());
        self.piece = Bytes::new();
    }

    /// Assembles a message that arrives in several pieces.
    fn gather<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        if self.expected.is_none() {
            self.take(PREFIX);
            let Some(&prefix) = self.partial.as_ref().first_chunk::<PREFIX>() else {
                return Ok(None);
            };
            self.expected = Some(self.check(prefix)?);
        }
        let size = self.expected.unwrap_or_default();
        self.take(size);
        if self.partial.len() < size {
            return Ok(None);
        }
        self.expected = None;
        // The next message gets its own buffer, so that a small message never keeps the room of a
        // larger one.
        let buffer = std::mem::replace(&mut self.partial, MessageBuffer::new());
        let mut message = buffer.into_bytes();
        let compressed = message[0];
        message.advance(PREFIX);
        if compressed == 0 {
            // Its `bytes` fields may keep the buffer, because nothing else is in it.
            return M::decode(message).map(Some).map_err(|error| undecodable(&error));
        }
        self.decode(compressed, &message).map(Some)
    }

    /// Moves bytes of the piece to the message until the message has `size` of them.
    fn take(&mut self, size: usize) {
        let missing = size.saturating_sub(self.partial.len());
        let taken = missing.min(self.piece.len());
        if size > PREFIX {
            self.partial.make_room(self.partial.len() + taken, size);
        }
        self.partial.push(&self.piece[..taken]);
        self.piece.advance(taken);
        if self.piece.is_empty() {
            self.drop_piece();
        }
    }

    /// Returns the size of a message with its prefix.
    fn check(&mut self, prefix: [u8; PREFIX]) -> Result<usize, Status> {
        let [flag, length @ ..] = prefix;
        self.compressed = flag == 1;
        match (flag, &self.received) {
            (0, _) | (1, ReceivedEncoding::Compressed(_)) => {}
            // A message that is compressed without an agreed encoding is INTERNAL (compression.md).
            (1, ReceivedEncoding::Identity) => {
                return Err(Status::internal(
                    "a message is flagged as compressed, and there is no grpc-encoding",
                ));
            }
            (1, ReceivedEncoding::Unknown(name)) => {
                return Err(Status::internal(format!(
                    "a message is compressed with {name}, which is not accepted here"
                )));
            }
            (flag, _) => {
                return Err(Status::internal(format!(
                    "a message's compressed flag is {flag}, neither 0 nor 1: this is not gRPC"
                )));
            }
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > self.limit.bytes {
            return Err(self.limit.received_too_large(length));
        }
        Ok(PREFIX + length)
    }

    /// Decodes a message without its prefix. Its `bytes` fields are copied, so that none of them
    /// keeps the whole read buffer.
    fn decode<M: Message + Default>(&self, flag: u8, message: &[u8]) -> Result<M, Status> {
        let decoded = match (flag, &self.received) {
            (1, ReceivedEncoding::Compressed(encoding)) => {
                M::decode(Bytes::from(decompress(*encoding, message, self.limit)?))
            }
            _ => M::decode(Borrowed(message)),
        };
        decoded.map_err(|error| undecodable(&error))
    }
}

fn undecodable(error: &prost::DecodeError) -> Status {
    Status::internal(format!("a message cannot be decoded: {error}"))
}
