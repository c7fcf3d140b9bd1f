//! [`Unopened`]: a request that has arrived whole and has no entry in the table of streams.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::head::RequestHead;
use super::spare::trim;

/// Whole requests that were not taken yet, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct WholeRequests(VecDeque<WholeRequest>);

#[derive(Debug)]
pub(super) struct WholeRequest {
    pub(super) unopened: Unopened,
    pub(super) head: Arc<RequestHead>,
    /// Memory of its own.
    pub(super) content: Bytes,
}

/// A whole request that has no entry in the table of streams. It is either
/// [answered](super::Connection::answer) or [opened](super::Connection::open).
#[derive(Debug)]
#[must_use = "a request gets an answer"]
pub(crate) struct Unopened {
    pub(super) id: u32,
    /// What its stream [holds](super::stream::Stream::held): also its content, once it is taken.
    pub(super) held: u32,
}

impl WholeRequests {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns what all of them [hold](super::stream::Stream::held), in bytes.
    #[inline]
    pub(super) fn held(&self) -> usize {
        self.0.iter().map(|request| request.unopened.held as usize).sum()
    }

    #[inline]
    pub(super) fn push(&mut self, request: WholeRequest) {
        self.0.push_back(request);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<WholeRequest> {
        self.0.pop_front()
    }

    pub(super) fn trim(&mut self) {
        trim(&mut self.0);
    }
}
