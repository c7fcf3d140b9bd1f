//! [`Arrived`]: what has arrived on a stream and was not read yet.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::error::ErrorCode;
use super::head::Head;

/// Smaller pieces are joined, so that a body that is sent byte by byte takes no more memory than
/// its bytes.
const SMALL: usize = 4 * 1024;

/// The largest size of joined pieces.
const MERGED: usize = 16 * 1024;

/// What a stream keeps until it is read.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// The head of a request or a response. `None` once it is taken, and for a request whose header
    /// list is too large.
    pub(super) head: Option<Head>,
    pub(super) pieces: Pieces,
    pub(super) end: MessageEnd,
}

/// The end of a message.
#[derive(Debug, Default)]
pub(super) enum MessageEnd {
    /// It has not come.
    #[default]
    Open,
    /// It came with END_STREAM on the head or the data, or with trailers that were read.
    Plain,
    Trailers(Arc<HeaderMap>),
    Failed(Failure),
}

/// Why a message did not end regularly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Reset(Reset),
    /// The connection ended before the message did. `unprocessed` means that the socket had taken
    /// nothing of the request.
    ConnectionEnded {
        unprocessed: bool,
    },
}

/// Why a stream was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reset {
    pub(crate) code: ErrorCode,
    /// Whether the server has not processed the request, so that it may be sent again (RFC 9113
    /// §8.7).
    pub(crate) never_processed: bool,
    pub(crate) why: &'static str,
    /// The limit that was exceeded, in bytes, if that is the reason.
    pub(crate) limit: Option<u32>,
}

impl Reset {
    /// Returns the reset of a stream that the server may have processed.
    pub(crate) const fn new(code: ErrorCode, why: &'static str) -> Self {
        Self { code, never_processed: false, why, limit: None }
    }
}

impl Arrived {
    /// Ends the message, unless it has ended before.
    pub(super) fn finish(&mut self, end: MessageEnd) {
        if matches!(self.end, MessageEnd::Open) {
            self.end = end;
        }
    }
}

/// A part of a body, which is kept until it is read.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    pub(super) origin: Origin,
}

/// Whose memory a piece is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Its own.
    Copied,
    /// It is part of a [`Pinned`](super::pinned::Pinned) buffer, which counts by itself.
    Pinned,
    /// It is part of a pinned buffer of which much is empty. It is copied when more is received.
    Sparse,
    /// It is part of the read buffer, which the connection needs again. It is copied when more is
    /// received, and when it is taken for longer than one call of a function.
    Lent,
}

impl Origin {
    /// Returns whether a piece counts as part of a pinned buffer, and not by itself.
    #[inline]
    pub(super) fn is_pinned(self) -> bool {
        matches!(self, Self::Pinned | Self::Sparse)
    }
}

impl Piece {
    /// Returns the bytes, which do not keep the read buffer of the connection.
    #[inline]
    pub(super) fn into_bytes(self) -> Bytes {
        match self.origin {
            Origin::Copied | Origin::Pinned | Origin::Sparse => self.bytes,
            Origin::Lent => Bytes::copy_from_slice(&self.bytes),
        }
    }
}

/// Pieces of a body in their order. A body of a single piece, which is the usual case, allocates
/// nothing.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    first: Option<Piece>,
    /// In a box, so that the usual one is small, and nothing is done when it is dropped.
    #[allow(
        clippy::box_collection,
        reason = "a queue is four words, which each stream would have"
    )]
    rest: Option<Box<VecDeque<Piece>>>,
}

impl Pieces {
    /// Returns a body of one piece, which has memory of its own.
    #[inline]
    pub(super) fn of_copy(bytes: Bytes) -> Self {
        Self { first: Some(Piece { bytes, origin: Origin::Copied }), rest: None }
    }

    #[inline]
    pub(super) fn push(&mut self, piece: Piece) {
        if self.first.is_none() {
            self.first = Some(piece);
        } else {
            self.push_behind(piece);
        }
    }

    fn push_behind(&mut self, piece: Piece) {
        if piece.bytes.len() < SMALL
            && let Some(last) = self.last_mut()
            && last.origin == Origin::Copied
            && last.bytes.len() + piece.bytes.len() <= MERGED
        {
            let mut merged = match std::mem::take(&mut last.bytes).try_into_mut() {
                Ok(unique) => unique,
                Err(shared) => BytesMut::from(&shared[..]),
            };
            merged.extend_from_slice(&piece.bytes);
            last.bytes = merged.freeze();
            return;
        }
        self.rest.get_or_insert_default().push_back(piece);
    }

    fn last_mut(&mut self) -> Option<&mut Piece> {
        let rest = self.rest.as_mut().and_then(|rest| rest.back_mut());
        rest.or(self.first.as_mut())
    }

    /// Takes the next piece.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        self.pop_piece().map(Piece::into_bytes)
    }

    #[inline]
    pub(super) fn pop_piece(&mut self) -> Option<Piece> {
        let first = self.first.take()?;
        self.first = self.rest.as_mut().and_then(|rest| rest.pop_front());
        Some(first)
    }

    /// Returns the piece if there is only one, and if it `is_usable`. It comes with whether it has
    /// memory of its own. Otherwise the caller drops it soon, and keeps no part of it.
    #[inline]
    pub(crate) fn into_single(
        self,
        is_usable: impl FnOnce(&[u8]) -> bool,
    ) -> Result<(Bytes, bool), Self> {
        match self {
            Self { first: Some(piece), rest: None } if is_usable(&piece.bytes) => {
                Ok((piece.bytes, piece.origin == Origin::Copied))
            }
            pieces => Err(pieces),
        }
    }

    /// Returns whether all pieces are of the last read of the socket. Sparse ones are: others are
    /// copied when more is received.
    #[inline]
    pub(super) fn are_new(&self) -> bool {
        self.first.as_ref().is_none_or(|piece| piece.origin == Origin::Sparse)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Copies the pieces that are lent or part of a sparse buffer. Returns how many bytes count by
    /// themselves from now on.
    pub(super) fn unlend(&mut self) -> usize {
        let mut counted = 0;
        for piece in
            self.first.iter_mut().chain(self.rest.iter_mut().flat_map(|rest| rest.iter_mut()))
        {
            match piece.origin {
                Origin::Copied | Origin::Pinned => continue,
                Origin::Lent => {}
                Origin::Sparse => counted += piece.bytes.len(),
            }
            piece.bytes = Bytes::copy_from_slice(&piece.bytes);
            piece.origin = Origin::Copied;
        }
        counted
    }

    /// Returns the number of bytes in all pieces.
    pub(crate) fn len(&self) -> usize {
        self.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// Returns the number of bytes in the pieces that do not count as part of a pinned buffer.
    #[inline]
    pub(super) fn copied(&self) -> usize {
        let copied = |piece: &Piece| match piece.origin {
            Origin::Pinned | Origin::Sparse => 0,
            Origin::Copied | Origin::Lent => piece.bytes.len(),
        };
        let Some(first) = &self.first else { return 0 };
        let rest = self.rest.as_ref();
        copied(first) + rest.map_or(0, |rest| rest.iter().map(copied).sum::<usize>())
    }

    fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(bytes: Bytes) -> Piece {
        Piece { bytes, origin: Origin::Copied }
    }

    #[test]
    fn small_pieces_are_put_together_and_keep_their_order() {
        let mut pieces = Pieces::default();
        for byte in 0..=255u8 {
            for _ in 0..256 {
                pieces.push(copied(Bytes::copy_from_slice(&[byte])));
            }
        }
        assert_eq!(pieces.len(), 65_536);
        let rest = pieces.rest.as_ref().map_or(0, |rest| rest.len());
        assert!(rest < 8, "{rest} pieces");
        let mut whole = Vec::new();
        while let Some(piece) = pieces.pop() {
            whole.extend_from_slice(&piece);
        }
        assert!(whole.is_sorted() && whole.len() == 65_536);
    }

    #[test]
    fn nothing_is_put_behind_what_is_part_of_a_read_buffer() {
        let mut pieces = Pieces::default();
        let pinned = Bytes::from(vec![7; 8 * 1024]);
        pieces.push(Piece { bytes: pinned.clone(), origin: Origin::Pinned });
        pieces.push(copied(Bytes::from_static(b"word")));
        assert_eq!((pieces.len(), pieces.copied()), (8 * 1024 + 4, 4));
        assert_eq!(pieces.pop().unwrap().as_ptr(), pinned.as_ptr());
        assert_eq!(pieces.pop().unwrap(), "word");
    }

    #[test]
    fn large_pieces_are_not_copied() {
        let mut pieces = Pieces::default();
        let large = Bytes::from(vec![7; SMALL]);
        pieces.push(copied(large.clone()));
        pieces.push(copied(large.clone()));
        assert_eq!(pieces.pop().unwrap().as_ptr(), large.as_ptr());
        assert_eq!(pieces.pop().unwrap().as_ptr(), large.as_ptr());
        assert!(pieces.is_empty());
    }
}
