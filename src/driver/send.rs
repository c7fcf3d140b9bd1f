//! [`SendBody`]: sends a message's body into a stream, at the speed of the peer.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};

use super::discard::discard;
use super::options::BoxError;
use super::shared::{Shared, State};
use crate::http2::{ErrorCode, Progress, StreamKey};

/// A body to be sent.
pub(crate) trait Outbound: Body {
    /// Is ready when the body has to end although the peer takes no more. It is asked while the body waits
    /// for the peer, because the body itself is not polled then.
    fn poll_expired(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Expiry> {
        Poll::Pending
    }
}

/// How a body ends whose time is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expiry {
    /// Nobody waits for the rest.
    Reset,
    /// The body has only a few frames left: the rest of a message, and trailers.
    LastFrames,
}

/// The caller ends the call, so this body never expires.
impl Outbound for tonic::body::Body {}

/// What a body returned when it was polled in place, before anything of it was sent.
pub(super) struct Start<B> {
    pub(super) data: Option<Bytes>,
    pub(super) end: StartEnd<B>,
}

/// The rest of a body, and the frame that it has already returned.
pub(super) type RestOfBody<B> = (B, Option<Frame<Bytes>>);

pub(super) enum StartEnd<B> {
    /// The body ends here.
    Plain,
    Trailers(HeaderMap),
    /// There is more, or there may be.
    More {
        body: B,
        next: Option<Frame<Bytes>>,
    },
    Failed(BoxError),
    Panicked,
}

impl<B> StartEnd<B> {
    /// Takes the rest of the body, if there is more.
    pub(super) fn take_rest(&mut self) -> Option<RestOfBody<B>> {
        match std::mem::replace(self, Self::Plain) {
            Self::More { body, next } => Some((body, next)),
            end => {
                *self = end;
                None
            }
        }
    }
}

/// Polls a body up to its first data and the frame after it. An ordinary unary message is then
/// complete. The caller has to poll the rest again with its own waker.
pub(super) fn start<B>(mut body: B) -> Start<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut data: Option<Bytes> = None;
    let polled = catch_unwind(AssertUnwindSafe(|| {
        if body.is_end_stream() {
            return Err(StartEnd::Plain);
        }
        loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Pending => return Ok(None),
                Poll::Ready(None) => return Err(StartEnd::Plain),
                Poll::Ready(Some(Err(error))) => return Err(StartEnd::Failed(error.into())),
                Poll::Ready(Some(Ok(frame))) => match (frame.into_data(), &data) {
                    (Ok(bytes), None) => data = Some(bytes),
                    (Ok(bytes), Some(_)) => return Ok(Some(Frame::data(bytes))),
                    (Err(frame), _) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            return Err(StartEnd::Trailers(trailers));
                        }
                    }
                },
            }
        }
    }));
    let end = match polled {
        Ok(Ok(next)) => return Start { data, end: StartEnd::More { body, next } },
        Ok(Err(end)) => end,
        Err(_) => StartEnd::Panicked,
    };
    discard(body);
    Start { data, end }
}

/// Sends the rest of a body. It completes when everything was given to the connection, or when the
/// stream has ended.
pub(super) struct SendBody<B> {
    pub(super) shared: Arc<Shared>,
    pub(super) key: StreamKey,
    body: B,
    /// A frame that the body has returned and that is not sent: the next frame tells whether it is
    /// the last.
    next: Option<Frame<Bytes>>,
}

impl<B> SendBody<B>
where
    B: Outbound<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    pub(super) fn new(
        shared: Arc<Shared>,
        key: StreamKey,
        body: B,
        next: Option<Frame<Bytes>>,
    ) -> Self {
        Self { shared, key, body, next }
    }

    /// Sends `frame`. With `end` it is the body's last one.
    fn send(&self, frame: Frame<Bytes>, end: bool) -> Progress {
        let key = self.key;
        self.shared.with(|state| match frame.into_data() {
            Ok(data) => state.h2.send_data(key, data, end),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    state.h2.send_trailers(key, &trailers);
                    Progress::Closed
                }
                Err(_) => Progress::Sent,
            },
        })
    }

    /// Resets the stream, because the body failed and the message cannot be completed.
    fn fail(&self, error: BoxError) {
        let (shared, key) = (&self.shared, self.key);
        if shared.lock().h2.is_client() {
            let status = tonic::Status::from_error(error);
            return shared.with(|state| state.fail_request(key, status));
        }
        tracing::debug!(%error, "a response's body failed");
        shared.with(|state| state.h2.reset(key, ErrorCode::INTERNAL_ERROR));
    }

    /// Returns whether the connection takes no more for now.
    fn is_blocked(&self, cx: &Context<'_>) -> bool {
        let key = self.key;
        self.shared.with(|state| {
            let blocked = state.h2.is_blocked(key);
            if blocked {
                state.waiters.wait_to_write(key, cx.waker());
            }
            blocked
        })
    }
}

impl<B> Future for SendBody<B>
where
    B: Outbound<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut blocked = self.is_blocked(cx);
        let mut expired = false;
        loop {
            if blocked && !expired {
                if let Expiry::Reset = ready!(Pin::new(&mut self.body).poll_expired(cx)) {
                    self.shared.with(|state| state.h2.reset(self.key, ErrorCode::CANCEL));
                    return Poll::Ready(());
                }
                // What is queued comes before: a client that got half of a message would not look at
                // the status.
                expired = true;
            }
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            let progress = match (self.next.take(), polled) {
                (None, Poll::Pending) => return Poll::Pending,
                (Some(frame), Poll::Pending) => {
                    match self.send(frame, false) {
                        Progress::Closed => return Poll::Ready(()),
                        Progress::Queued => {
                            // The body or the stream may wake the task. Then both are checked
                            // again.
                            let _ = self.is_blocked(cx);
                        }
                        Progress::Sent => {}
                    }
                    return Poll::Pending;
                }
                (last, Poll::Ready(None)) => {
                    self.send(last.unwrap_or_else(|| Frame::data(Bytes::new())), true);
                    return Poll::Ready(());
                }
                (before, Poll::Ready(Some(Ok(frame)))) => {
                    let trailers = frame.is_trailers();
                    let progress = match before {
                        Some(before) => self.send(before, false),
                        None => Progress::Sent,
                    };
                    if trailers && progress != Progress::Closed {
                        self.send(frame, true);
                        return Poll::Ready(());
                    }
                    self.next = Some(frame);
                    progress
                }
                (_, Poll::Ready(Some(Err(error)))) => {
                    self.fail(error.into());
                    return Poll::Ready(());
                }
            };
            match progress {
                Progress::Sent => {}
                Progress::Queued => blocked = self.is_blocked(cx),
                Progress::Closed => return Poll::Ready(()),
            }
        }
    }
}

/// Sends a body's start after its head. Returns whether that was the whole body.
pub(super) fn send_start<B>(
    state: &mut State,
    key: StreamKey,
    data: Option<Bytes>,
    end: &StartEnd<B>,
) -> bool {
    match end {
        StartEnd::Plain => {
            state.h2.send_data(key, data.unwrap_or_default(), true);
        }
        StartEnd::Trailers(trailers) => {
            if let Some(data) = data.filter(|data| data.has_remaining()) {
                state.h2.send_data(key, data, false);
            }
            state.h2.send_trailers(key, trailers);
        }
        StartEnd::More { .. } => {
            if let Some(data) = data {
                state.h2.send_data(key, data, false);
            }
            return false;
        }
        StartEnd::Failed(_) | StartEnd::Panicked => {
            state.h2.reset(key, ErrorCode::INTERNAL_ERROR);
        }
    }
    true
}
