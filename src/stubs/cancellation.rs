//! [`Cancelled`]: the caller gives up a call by the `CancellationHandle` of tonic's request.
//!
//! tonic has no public way to wait for that. Only its own client does, in the body of a request
//! that is still being sent. So such a body, of a request that never sends anything, waits here.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use http::Extensions;
use http::uri::PathAndQuery;
use http_body::Body as _;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::Stream;
use tonic::{CancellationHandle, Request, Status};

/// Waits until a call is given up. Without a handle, no caller can give it up this way.
pub(super) struct Cancelled(Body);

impl Cancelled {
    /// Returns it for a request with these extensions.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get::<CancellationHandle>().map(Self::new)
    }

    fn new(handle: &CancellationHandle) -> Self {
        let captured = Arc::new(Mutex::new(Body::empty()));
        let slot = Arc::clone(&captured);
        let capture = tower::service_fn(move |request: http::Request<Body>| {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = request.into_body();
            std::future::ready(Err::<http::Response<Body>, _>(Self::status()))
        });
        let mut request = Request::new(Never);
        request.extensions_mut().insert(handle.clone());
        let mut client = tonic::client::Grpc::new(capture);
        {
            let call = client.streaming(request, PathAndQuery::from_static("/"), Nothing);
            // The service is called at the first poll, and answers at once.
            let mut call = std::pin::pin!(call);
            let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        let body = std::mem::take(&mut *captured.lock().unwrap_or_else(PoisonError::into_inner));
        Self(body)
    }

    /// Returns the status of a call that was given up.
    pub(super) fn status() -> Status {
        Status::cancelled("the caller has cancelled the call")
    }

    /// Is ready once the call is given up.
    pub(super) fn poll_cancelled(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.get_mut().0).poll_frame(cx).map(|_| ())
    }
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancelled").finish_non_exhaustive()
    }
}

/// Returns the output of `call`, unless the call is given up before.
pub(super) async fn unless_cancelled<T>(
    cancelled: &mut Option<Cancelled>,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(cancelled) = cancelled else { return call.await };
    let mut call = std::pin::pin!(call);
    std::future::poll_fn(|cx| match Pin::new(&mut *cancelled).poll_cancelled(cx) {
        Poll::Ready(()) => Poll::Ready(Err(Cancelled::status())),
        Poll::Pending => call.as_mut().poll(cx),
    })
    .await
}

/// A stream without messages and without end.
struct Never;

impl Stream for Never {
    type Item = ();

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<()>> {
        Poll::Pending
    }
}

/// A codec for no messages.
struct Nothing;

impl Codec for Nothing {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Nothing {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Nothing {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handle_ends_the_wait() {
        let mut request = Request::new(());
        assert!(Cancelled::of(request.extensions()).is_none());
        let handle = request.cancellation_handle();
        let mut cancelled = Cancelled::of(request.extensions()).unwrap();
        let mut wait = std::pin::pin!(std::future::poll_fn(move |cx| {
            Pin::new(&mut cancelled).poll_cancelled(cx)
        }));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        handle.cancel();
        wait.await;
    }
}
