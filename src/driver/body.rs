//! [`Incoming`]: the body of a message that arrives.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::memory::Kept;
use super::shared::{Shared, StreamError, unshare};
use super::stream::{End, Pieces, remember};
use crate::http2::{ErrorCode, Reset, StreamKey};

/// A request's or a response's body. Reading it gives the peer leave to send more; dropping it
/// tells a server to send no more, and a client's call is cancelled.
pub(crate) struct Incoming(Source);

enum Source {
    /// All of it has arrived: the stream is not needed any more.
    Whole {
        pieces: Pieces,
        trailers: Option<Arc<HeaderMap>>,
    },
    Stream {
        shared: Arc<Shared>,
        key: StreamKey,
    },
}

impl Incoming {
    pub(super) fn whole(pieces: Pieces, trailers: Option<Arc<HeaderMap>>) -> Self {
        Self(Source::Whole { pieces, trailers })
    }

    pub(super) fn stream(shared: Arc<Shared>, key: StreamKey) -> Self {
        Self(Source::Stream { shared, key })
    }

    /// For counting what is kept of it while it arrives. `None` if it has.
    pub(crate) fn kept(&self) -> Option<Kept> {
        match &self.0 {
            Source::Whole { .. } => None,
            Source::Stream { shared, .. } => Some(Kept::new(Arc::clone(shared))),
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
        let (frame, over) = match &mut self.0 {
            Source::Whole { pieces, trailers } => {
                let trailers = trailers.take_if(|_| pieces.is_empty());
                return Poll::Ready(match (pieces.pop(), trailers) {
                    (Some(piece), _) => Some(Ok(Frame::data(piece))),
                    (None, Some(trailers)) => Some(Ok(Frame::trailers(unshare(trailers)))),
                    (None, None) => None,
                });
            }
            Source::Stream { shared, key } => {
                let key = *key;
                shared.with(|state| {
                    let is_client = state.is_client;
                    let Some(slot) = state.slot(key) else {
                        return (Poll::Ready(Some(Err(dropped()))), true);
                    };
                    if let Some(piece) = slot.pieces.pop() {
                        state.h2.release(key, piece.len());
                        return (Poll::Ready(Some(Ok(Frame::data(piece)))), false);
                    }
                    let frame = match std::mem::replace(&mut slot.end, End::Plain) {
                        End::Open => {
                            slot.end = End::Open;
                            remember(&mut slot.reader, cx.waker());
                            return (Poll::Pending, false);
                        }
                        End::Plain => None,
                        End::Trailers(trailers) => Some(Ok(Frame::trailers(unshare(trailers)))),
                        End::Failed(error) => Some(Err(error)),
                    };
                    // A server's stream lives on: the response is still to be sent.
                    if is_client {
                        state.forget(key);
                    }
                    (Poll::Ready(frame), true)
                })
            }
        };
        if over {
            self.0 = Source::Whole { pieces: Pieces::default(), trailers: None };
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Whole { pieces, trailers } => pieces.is_empty() && trailers.is_none(),
            Source::Stream { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Whole { pieces, .. } => SizeHint::with_exact(pieces.len() as u64),
            Source::Stream { .. } => SizeHint::default(),
        }
    }
}

/// The stream was forgotten under the body: its call is over.
fn dropped() -> StreamError {
    StreamError::Reset(Reset {
        code: ErrorCode::CANCEL,
        by_peer: false,
        never_processed: false,
        why: "the call is over",
    })
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let Source::Stream { shared, key } = &self.0 else { return };
        let key = *key;
        shared.with(|state| {
            if state.is_client {
                return state.forget(key);
            }
            let Some(slot) = state.slot(key) else { return };
            slot.unread = true;
            slot.reader = None;
            let unread = std::mem::take(&mut slot.pieces).len();
            state.h2.release(key, unread);
        });
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.0 {
            Source::Whole { .. } => "whole",
            Source::Stream { .. } => "stream",
        };
        f.debug_tuple("Incoming").field(&source).finish()
    }
}
