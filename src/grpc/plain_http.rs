//! Answers to requests that are not gRPC: which of them have a body and a length, and failures.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame};
use tonic::Code;
use tonic::body::Body;

use super::status::status_of;
use crate::driver::{BoxError, discard};

/// A request that is not gRPC, as far as its answer depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlainHttp {
    pub(super) is_head: bool,
}

impl PlainHttp {
    /// Drops a body that HTTP does not send: that of an answer to HEAD (RFC 9110 §9.3.2), and that of the
    /// statuses 204, 205 and 304 (§15). Removes `content-length` where it may not be (§8.6), or where it
    /// is known not to be the body's length. Returns the length that the body then has to have.
    pub(super) fn fit(self, response: &mut Response<Body>) -> BodyLength {
        let status = response.status();
        let has_body = !self.is_head
            && !matches!(
                status,
                StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
            );
        if !has_body {
            discard(std::mem::take(response.body_mut()));
        }
        let length = length_in(response.headers()).filter(|length| match status {
            StatusCode::NO_CONTENT => false,
            StatusCode::RESET_CONTENT => *length == 0,
            // It is the length that the body of an answer to GET would have.
            _ => !has_body || may_have(response.body(), *length),
        });
        if length.is_none() {
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        BodyLength { left: length.filter(|_| has_body) }
    }
}

/// Returns the length in a head, if there is one and it is a number.
fn length_in(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(length), None) = (lengths.next(), lengths.next()) else { return None };
    let digits = length.to_str().ok()?;
    digits.parse().ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Returns whether a body of an unknown size, or of this one, may have this length.
fn may_have(body: &Body, length: u64) -> bool {
    let size = body.size_hint();
    size.lower() <= length && size.upper().is_none_or(|upper| length <= upper)
}

/// How much is to come of a body whose head tells its length. A peer takes a body of another length for
/// malformed (RFC 9113 §8.1.1).
#[derive(Debug)]
pub(super) struct BodyLength {
    /// `None` if the head tells no length.
    left: Option<u64>,
}

impl BodyLength {
    /// Takes the next frame, which is `None` at the body's end. Returns false if the body is longer or
    /// shorter than its head tells.
    pub(super) fn take(&mut self, frame: Option<&Frame<Bytes>>) -> bool {
        let Some(left) = &mut self.left else { return true };
        let is_over = frame.is_none_or(Frame::is_trailers);
        let length = frame.and_then(Frame::data_ref).map_or(0, Bytes::len);
        match left.checked_sub(length as u64) {
            Some(rest) => *left = rest,
            None => return false,
        }
        !is_over || *left == 0
    }

    /// Returns whether a part of the body is to come.
    pub(super) fn lacks_data(&self) -> bool {
        self.left.is_some_and(|left| left > 0)
    }
}

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
    failure_of(status_of(error).code(), StatusCode::INTERNAL_SERVER_ERROR)
}

/// Returns the response for a failure that gRPC has a code for: 503 for a limit, which holds for a time
/// only, and `other` for each other failure.
pub(super) fn failure_of(code: Code, other: StatusCode) -> Response<Body> {
    empty_response(match code {
        Code::ResourceExhausted => StatusCode::SERVICE_UNAVAILABLE,
        _ => other,
    })
}
