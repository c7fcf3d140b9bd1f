//! [`HandlerTask`]: a call that was not answered in place.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::discard::discard;
use super::encode_buffer::EncodeBuffer;
use super::handler::{Answer, PollAnswer};
use super::live_handlers::LiveHandler;
use super::options::BoxError;
use super::response::{send_message, send_parts, taken_apart};
use super::send::{Outbound, SendBody};
use super::shared::Shared;
use super::slow_methods::QuickRuns;
use crate::http2::{ErrorCode, StreamKey};

/// A handler that was not ready in place, or the rest of its response. When the task ends, for any
/// reason, its stream ends too.
pub(super) struct HandlerTask<R, B> {
    pub(super) shared: Arc<Shared>,
    pub(super) key: StreamKey,
    pub(super) stage: HandlerStage<R, B>,
    /// If the method is slow: what notes how long the first poll takes.
    pub(super) runs: Option<Arc<QuickRuns>>,
    /// It is dropped last.
    pub(super) _live: LiveHandler,
}

pub(super) enum HandlerStage<R, B> {
    Call(R),
    Body(SendBody<B>),
}

impl<R, B> Future for HandlerTask<R, B>
where
    R: PollAnswer<Body = B> + Unpin,
    B: Outbound<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let measured = this.runs.take().map(|runs| (runs, Instant::now()));
        let polled = catch_unwind(AssertUnwindSafe(|| this.advance(cx)));
        if let Some((runs, began)) = measured {
            runs.note(began.elapsed());
        }
        match polled {
            Ok(polled) => polled,
            Err(_) => {
                let key = this.key;
                this.shared.with(|state| state.h2.reset(key, ErrorCode::INTERNAL_ERROR));
                Poll::Ready(())
            }
        }
    }
}

impl<R, B> HandlerTask<R, B>
where
    R: PollAnswer<Body = B> + Unpin,
    B: Outbound<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                HandlerStage::Call(reply) => {
                    let mut message = EncodeBuffer::take();
                    let Poll::Ready(answer) = reply.poll_answer(cx, &mut message) else {
                        return Poll::Pending;
                    };
                    let key = self.key;
                    let response = match answer {
                        Answer::Response(response) => response,
                        Answer::Message(answer) => {
                            self.shared.with(|state| {
                                send_message(state, key, answer, &mut message);
                            });
                            return Poll::Ready(());
                        }
                    };
                    let mut response = taken_apart(response);
                    let rest = self.shared.with(|state| send_parts(state, key, &mut response));
                    discard(response);
                    let Some((body, next)) = rest else { return Poll::Ready(()) };
                    let shared = Arc::clone(&self.shared);
                    let body = HandlerStage::Body(SendBody::new(shared, key, body, next));
                    discard(std::mem::replace(&mut self.stage, body));
                }
                HandlerStage::Body(body) => return Pin::new(body).poll(cx),
            }
        }
    }
}

impl<R, B> Drop for HandlerTask<R, B> {
    fn drop(&mut self) {
        let key = self.key;
        self.shared.with(|state| state.forget(key));
    }
}
