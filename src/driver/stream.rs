//! What the driver keeps for one stream: what has arrived and was not read yet, and who waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::task::AbortHandle;

use super::shared::StreamError;
use crate::http2::{ResponseHead, StreamKey};

/// Pieces of less than this are put together, so that a body sent octet by octet takes no more
/// memory than its octets.
const SMALL: usize = 4 * 1024;

/// How large put-together pieces get.
const MERGED: usize = 16 * 1024;

/// Pieces of a body in their order. The usual one of a single piece allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
}

impl Pieces {
    pub(super) fn push(&mut self, piece: Bytes) {
        if self.first.is_none() {
            self.first = Some(piece);
            return;
        }
        if piece.len() < SMALL
            && let Some(last) = self.rest.back_mut().or(self.first.as_mut())
            && last.len() + piece.len() <= MERGED
        {
            let mut merged = match std::mem::take(last).try_into_mut() {
                Ok(unique) => unique,
                Err(shared) => BytesMut::from(&shared[..]),
            };
            merged.extend_from_slice(&piece);
            *last = merged.freeze();
            return;
        }
        self.rest.push_back(piece);
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let first = self.first.take()?;
        self.first = self.rest.pop_front();
        Some(first)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.first.iter().chain(&self.rest).map(Bytes::len).sum()
    }
}

/// How a message ends.
#[derive(Debug, Default)]
pub(super) enum End {
    /// Not yet.
    #[default]
    Open,
    /// With END_STREAM on its head or data, or with trailers that were read.
    Plain,
    Trailers(Arc<HeaderMap>),
    Failed(StreamError),
}

/// One stream's entry in the table beside `http2`'s.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Whose entry it is; indexes are used again.
    pub(super) key: Option<StreamKey>,
    /// Client: the response's head, until it is taken.
    pub(super) head: Option<Arc<ResponseHead>>,
    pub(super) pieces: Pieces,
    pub(super) end: End,
    /// Nobody will read what arrives.
    pub(super) unread: bool,
    /// Sending waits for `Event::Writable`.
    pub(super) blocked: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// Server: the task that the handler was moved to.
    pub(super) task: Option<AbortHandle>,
}

impl Slot {
    /// The message failed: nothing more arrives, and nothing more is sent.
    pub(super) fn fail(&mut self, error: StreamError, wakes: &mut Vec<Waker>) {
        if matches!(self.end, End::Open) {
            self.end = End::Failed(error);
        }
        self.blocked = false;
        wakes.extend(self.reader.take());
        wakes.extend(self.writer.take());
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Entries that a list or a table may keep room for while there are none.
pub(super) const FEW: usize = 4;

/// Appends to a list that mostly has one entry, and takes no memory for four because of it.
pub(super) fn push<T>(list: &mut Vec<T>, entry: T) {
    if list.capacity() == 0 {
        list.reserve_exact(1);
    }
    list.push(entry);
}

/// Gives back the memory of a list that has been longer.
pub(super) fn trim<T>(list: &mut Vec<T>) {
    if list.is_empty() && list.capacity() > FEW {
        *list = Vec::new();
    }
}

/// Remembers `waker` unless it is remembered already.
pub(super) fn remember(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(known) if known.will_wake(waker) => {}
        _ => *slot = Some(waker.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_put_together_and_keep_their_order() {
        let mut pieces = Pieces::default();
        for octet in 0..=255u8 {
            for _ in 0..256 {
                pieces.push(Bytes::copy_from_slice(&[octet]));
            }
        }
        assert_eq!(pieces.len(), 65_536);
        assert!(pieces.rest.len() < 8, "{} pieces", pieces.rest.len());
        let mut whole = Vec::new();
        while let Some(piece) = pieces.pop() {
            whole.extend_from_slice(&piece);
        }
        assert!(whole.is_sorted() && whole.len() == 65_536);
    }

    #[test]
    fn large_pieces_are_not_copied() {
        let mut pieces = Pieces::default();
        let large = Bytes::from(vec![7; SMALL]);
        pieces.push(large.clone());
        pieces.push(large.clone());
        assert_eq!(pieces.pop().unwrap().as_ptr(), large.as_ptr());
        assert_eq!(pieces.pop().unwrap().as_ptr(), large.as_ptr());
        assert!(pieces.is_empty());
    }
}
