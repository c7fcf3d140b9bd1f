//! [`UsualHeads`]: heads of requests that need not be checked again.

use std::sync::Arc;

use http::{HeaderName, header};

use super::field;
use crate::http2::RequestHead;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Heads of requests that were checked: POST requests of gRPC without a timeout, whose metadata is
/// normal. The header cache returns the same heads for later requests.
#[derive(Debug, Default)]
pub(super) struct UsualHeads {
    heads: Vec<(Arc<RequestHead>, IsPlain)>,
    next: usize,
}

/// Whether a head announces protobuf messages that are not compressed.
pub(super) type IsPlain = bool;

/// How many heads are stored.
const USUAL_HEADS: usize = 4;

impl UsualHeads {
    /// Returns `Some` if `head` was checked, with whether its messages are plain.
    #[inline]
    pub(super) fn find(&self, head: &Arc<RequestHead>) -> Option<IsPlain> {
        let (_, is_plain) = self.heads.iter().find(|(usual, _)| Arc::ptr_eq(usual, head))?;
        Some(*is_plain)
    }

    /// Stores a head if the header cache has it, too.
    pub(super) fn keep(&mut self, head: &Arc<RequestHead>) {
        if Arc::strong_count(head) == 1 {
            return;
        }
        let content_type = field(&head.headers, &header::CONTENT_TYPE);
        let is_protobuf = content_type
            .is_some_and(|it| it == "application/grpc" || it == "application/grpc+proto");
        let is_plain = is_protobuf && field(&head.headers, &GRPC_ENCODING).is_none();
        let usual = (Arc::clone(head), is_plain);
        if self.heads.len() < USUAL_HEADS {
            self.heads.push(usual);
        } else {
            self.heads[self.next] = usual;
            self.next = (self.next + 1) % USUAL_HEADS;
        }
    }
}
