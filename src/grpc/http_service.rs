//! [`HttpService`]: a tower service that takes HTTP requests, how it is called, and the future of its
//! response.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::status::status_of;
use crate::driver::BoxError;

/// A tower service that takes HTTP requests with a body of type `ReqBody`.
/// [`Server::layer`](crate::Server::layer) needs layers whose services are such services. It is
/// implemented for every service that fits; there is nothing to implement.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not take HTTP requests with the body `{ReqBody}` as a samehost server calls it",
    note = "it has to be `tower::Service<http::Request<{ReqBody}>>` and `Clone + Send + Sync`, with a \
            future that is `Send`",
    note = "a `samehost::Channel` takes requests with `tonic::body::Body`: the example of \
            `Server::fallback` converts them"
)]
pub trait HttpService<ReqBody>:
    Service<
        Request<ReqBody>,
        Response = Response<<Self as HttpService<ReqBody>>::ResponseBody>,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
    /// The body of its responses.
    type ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, ReqBody, ResBody> HttpService<ReqBody> for S
where
    S: Service<
            Request<ReqBody>,
            Response = Response<ResBody>,
            Error: Into<BoxError>,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static,
    ResBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type ResponseBody = ResBody;
}

/// Calls a service, after waiting until it is ready. Each call needs a service of its own: one that was
/// asked whether it is ready may wait for a permit from then on, as within tower's load shedding, which
/// is always ready itself. Its errors become responses by `failed`.
pub(crate) fn call<S, ReqBody>(
    mut service: S,
    request: Request<ReqBody>,
    failed: OfError,
) -> BoxFuture
where
    S: HttpService<ReqBody>,
    ReqBody: Send + 'static,
{
    match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(())) => boxed(service.call(request), failed),
        Poll::Ready(Err(error)) => ready(failed(error.into())),
        Poll::Pending => boxed(service.oneshot(request), failed),
    }
}

/// The future of a response, as the servers that tonic generates return it.
pub(crate) type BoxFuture =
    Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Makes a response of the error of a service or layer.
pub(crate) type OfError = fn(BoxError) -> Response<Body>;

/// Returns a gRPC response with the status of an error.
pub(crate) fn grpc_failure(error: BoxError) -> Response<Body> {
    status_of(error).into_http()
}

/// Erases a future's type. A future that is boxed already is not boxed again.
pub(crate) fn boxed<F, B, E>(future: F, failed: OfError) -> BoxFuture
where
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    E: Into<BoxError>,
{
    let mut future = Some(future);
    if let Some(boxed) = (&mut future as &mut dyn Any).downcast_mut::<Option<BoxFuture>>()
        && let Some(boxed) = boxed.take()
    {
        return boxed;
    }
    let Some(future) = future else { unreachable!("taken only where it is returned") };
    Box::pin(async move {
        Ok(match future.await {
            // `Body::new` returns a body that is a `Body` already as it is.
            Ok(response) => response.map(Body::new),
            Err(error) => failed(error.into()),
        })
    })
}

/// Returns a response that has a status and no message.
pub(crate) fn answer(status: Status) -> BoxFuture {
    ready(status.into_http())
}

/// Returns a response that is ready.
pub(crate) fn ready(response: Response<Body>) -> BoxFuture {
    Box::pin(std::future::ready(Ok(response)))
}
