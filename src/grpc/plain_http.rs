//! Answers to requests that are not gRPC.

use http::{Response, StatusCode};
use tonic::Code;
use tonic::body::Body;

use super::status::status_of;
use crate::driver::BoxError;

/// Returns a response without a body.
pub(crate) fn empty_response(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Returns the response of a service that failed. It does not have the error's text, which is for the
/// server's operator only.
pub(crate) fn http_failure(error: BoxError) -> Response<Body> {
    tracing::debug!(%error, "the service of a request that is not gRPC failed");
    empty_response(match status_of(error).code() {
        Code::ResourceExhausted => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    })
}
