//! [`Limiter`]: limits the calls that a server runs at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;

use crate::grpc::BoxFuture;

/// All connections of a server share one.
#[derive(Clone, Debug)]
pub(super) struct Limiter {
    running: Arc<Semaphore>,
    limit: usize,
    sheds: bool,
}

impl Limiter {
    /// Lets `limit` calls run at a time. A further call fails if `sheds` is set, and waits
    /// otherwise.
    pub(super) fn new(limit: usize, sheds: bool) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { running: Arc::new(Semaphore::new(limit)), limit, sheds }
    }

    /// Runs `call` when there is a permit. The permit is held until the response's body is dropped.
    /// Returns an error if the call is shed.
    #[allow(clippy::result_large_err, reason = "the type is tonic's")]
    pub(super) fn run(
        &self,
        call: impl FnOnce() -> BoxFuture + Send + 'static,
    ) -> Result<BoxFuture, Status> {
        match Arc::clone(&self.running).try_acquire_owned() {
            Ok(permit) => Ok(Box::pin(run_with(call(), permit))),
            Err(_) if self.sheds => {
                let text = format!(
                    "the server runs {} calls, and no more at a time: try again later, or raise \
                     Server::concurrency_limit",
                    self.limit
                );
                Err(Status::resource_exhausted(text))
            }
            Err(_) => {
                let waiting = Arc::clone(&self.running).acquire_owned();
                Ok(Box::pin(async move {
                    match waiting.await {
                        Ok(permit) => run_with(call(), permit).await,
                        // The semaphore is never closed.
                        Err(_) => Ok(Status::unavailable("the server has ended").into_http()),
                    }
                }))
            }
        }
    }
}

async fn run_with(
    call: BoxFuture,
    permit: OwnedSemaphorePermit,
) -> Result<Response<Body>, std::convert::Infallible> {
    let response = call.await?;
    Ok(response.map(|body| Body::new(BodyWithPermit { body, _permit: permit })))
}

/// A response's body with its call's permit.
struct BodyWithPermit {
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl http_body::Body for BodyWithPermit {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
