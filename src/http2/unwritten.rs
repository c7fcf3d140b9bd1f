//! [`Unwritten`]: a server's complete responses that are not written yet.

use std::collections::VecDeque;

use super::spare::trim;

#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// In the order in which they end.
    responses: VecDeque<UnwrittenResponse>,
    /// How many of them belong to streams that the client has cancelled since.
    cancelled: usize,
}

#[derive(Debug)]
struct UnwrittenResponse {
    /// The position at which it ends, counted in bytes ever sent.
    end: u64,
    stream: u32,
    is_cancelled: bool,
}

impl Unwritten {
    #[inline]
    pub(super) fn push(&mut self, stream: u32, end: u64) {
        self.responses.push_back(UnwrittenResponse { end, stream, is_cancelled: false });
    }

    /// Removes those that end within the first `written` bytes.
    #[inline]
    pub(super) fn remove_written(&mut self, written: u64) {
        while self.responses.front().is_some_and(|response| response.end <= written) {
            if let Some(UnwrittenResponse { is_cancelled: true, .. }) = self.responses.pop_front() {
                self.cancelled -= 1;
            }
        }
    }

    /// Notes that the client has cancelled a stream, and no longer counts it (RFC 9113 §5.1.2).
    /// Returns whether its response is not written yet, the first time.
    pub(super) fn cancel(&mut self, stream: u32) -> bool {
        let found = self.responses.iter_mut().rev().find(|response| response.stream == stream);
        let Some(response) = found.filter(|response| !response.is_cancelled) else { return false };
        response.is_cancelled = true;
        self.cancelled += 1;
        true
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.responses.len()
    }

    /// Returns how many belong to streams that the client still counts.
    pub(super) fn open(&self) -> usize {
        self.responses.len() - self.cancelled
    }

    pub(super) fn cancelled(&self) -> usize {
        self.cancelled
    }

    #[inline]
    pub(super) fn trim(&mut self) {
        trim(&mut self.responses);
    }
}
