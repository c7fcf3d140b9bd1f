//! [`BodyTask`]: the task that sends the rest of a request's body.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tonic::Status;

use super::options::BoxError;
use super::send::{Outbound, SendBody};

/// Sends the rest of a request's body. If that ends early, because the body panics or its runtime is
/// shut down, the call fails. Otherwise its response might be awaited for ever.
pub(super) struct BodyTask<B> {
    body: SendBody<B>,
    is_done: bool,
}

impl<B> BodyTask<B> {
    pub(super) fn new(body: SendBody<B>) -> Self {
        Self { body, is_done: false }
    }

    fn fail(&self, status: Status) {
        let SendBody { shared, key, .. } = &self.body;
        shared.with(|state| {
            // A stream that has ended ends its task, and has a reason of its own.
            if !state.h2.is_answered(*key) {
                state.fail_request(*key, status);
            }
        });
    }
}

/// Returns the status of a call whose body has panicked.
pub(super) fn panicked() -> Status {
    Status::internal("the request's body panicked")
}

impl<B> Future for BodyTask<B>
where
    B: Outbound<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll(cx)));
        let polled = polled.unwrap_or_else(|_| {
            this.fail(panicked());
            Poll::Ready(())
        });
        this.is_done = polled.is_ready();
        polled
    }
}

impl<B> Drop for BodyTask<B> {
    fn drop(&mut self) {
        if !self.is_done {
            self.fail(Status::cancelled("the runtime that sent the request's body was shut down"));
        }
    }
}
