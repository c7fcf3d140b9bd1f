//! [`Incoming`]: the body of a message that arrives.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::call_memory::CallMemory;
use super::error::StreamError;
use super::shared::Shared;
use crate::http2::{Content, ErrorCode, Read, Reset, StreamKey};

/// A request's or a response's body. Reading it lets the peer send more. Dropping a server's body
/// tells the client to send no more. Dropping a client's body cancels the call.
pub(crate) struct Incoming(Source);

enum Source {
    /// The whole body has arrived, so the stream is not needed any more.
    Whole(Content),
    Open(OpenBody),
}

/// A body that is still arriving.
struct OpenBody {
    shared: Arc<Shared>,
    key: StreamKey,
    /// Whether its end was read.
    is_over: bool,
}

impl Incoming {
    pub(super) fn whole(content: Content) -> Self {
        Self(Source::Whole(content))
    }

    pub(super) fn stream(shared: Arc<Shared>, key: StreamKey) -> Self {
        Self(Source::Open(OpenBody { shared, key, is_over: false }))
    }

    /// Returns the whole body if it has arrived in full.
    #[inline]
    pub(crate) fn into_whole(self) -> Result<Content, Self> {
        match self.0 {
            Source::Whole(content) => Ok(content),
            open => Err(Self(open)),
        }
    }

    /// Returns the counter for what is kept of the body while it arrives. Returns `None` if it has
    /// arrived.
    pub(crate) fn call_memory(&self) -> Option<CallMemory> {
        match &self.0 {
            Source::Whole(_) => None,
            Source::Open(OpenBody { shared, key, .. }) => {
                Some(CallMemory::new(Arc::clone(shared), *key))
            }
        }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match &mut self.0 {
            Source::Whole(Content { pieces, trailers }) => {
                let trailers = trailers.take_if(|_| pieces.is_empty());
                Poll::Ready(match (pieces.pop(), trailers) {
                    (Some(piece), _) => Some(Ok(Frame::data(piece))),
                    (None, Some(trailers)) => {
                        Some(Ok(Frame::trailers(Arc::unwrap_or_clone(trailers))))
                    }
                    (None, None) => None,
                })
            }
            Source::Open(body) => {
                let frame = body.poll_frame(cx);
                if body.is_over {
                    self.0 = Source::Whole(Content::default());
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Whole(Content { pieces, trailers }) => pieces.is_empty() && trailers.is_none(),
            Source::Open(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Whole(Content { pieces, .. }) => SizeHint::with_exact(pieces.len() as u64),
            Source::Open(_) => SizeHint::default(),
        }
    }
}

impl OpenBody {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let Self { shared, key, is_over } = self;
        let key = *key;
        shared.with(|state| {
            let frame = match state.h2.read(key) {
                Read::Data(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Read::Pending => {
                    state.waiters.wait_to_read(key, cx.waker());
                    return Poll::Pending;
                }
                Read::Forgotten => {
                    *is_over = true;
                    return Poll::Ready(Some(Err(call_over())));
                }
                Read::End => None,
                Read::Trailers(trailers) => {
                    Some(Ok(Frame::trailers(Arc::unwrap_or_clone(trailers))))
                }
                Read::Failed(failure) => Some(Err(state.stream_error(key, failure))),
            };
            // A server's stream goes on, because the response is still to be sent.
            if state.h2.is_client() {
                state.forget(key);
            }
            *is_over = true;
            Poll::Ready(frame)
        })
    }
}

/// Returns the error for a body whose stream was forgotten because its call has ended.
fn call_over() -> StreamError {
    StreamError::Reset(Reset::new(ErrorCode::CANCEL, "the call is over"))
}

impl Drop for OpenBody {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let key = self.key;
        self.shared.with(|state| {
            if state.h2.is_client() {
                return state.forget(key);
            }
            drop(state.waiters.take_reader(key));
            state.h2.discard(key);
        });
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.0 {
            Source::Whole(_) => "whole",
            Source::Open(_) => "stream",
        };
        f.debug_tuple("Incoming").field(&source).finish()
    }
}
