//! Turns failures of streams and connections into gRPC statuses.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tonic::{Code, Status};
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;

use super::{field, normalise};
use crate::address::Address;
use crate::driver::{BoxError, CloseReason, StreamError};
use crate::http2::{ErrorCode, is_grpc_type};

/// Returns the status of a call whose stream ended before its message. If the connection broke, the
/// status names the `server`.
pub(crate) fn status(error: StreamError, server: Option<&Arc<Address>>) -> Status {
    let lost = || match server {
        Some(address) if error.may_be_sent_again() => format!("{address}: {error}"),
        Some(address) => format!("{address}: {error}: the call may have been processed"),
        None => error.to_string(),
    };
    match error {
        StreamError::Body(status) => status,
        StreamError::Reset(reset) => Status::new(code(reset.code), error.to_string()),
        StreamError::ConnectionEnded {
            close_reason: CloseReason::GoneAway { code: ErrorCode::ENHANCE_YOUR_CALM, .. },
            unprocessed: false,
        } => Status::resource_exhausted(lost()),
        StreamError::ConnectionEnded { .. } => Status::unavailable(lost()),
    }
}

/// Returns the trailers of a call that succeeded.
pub(crate) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// Returns the trailers of a call that failed.
///
/// # Errors
///
/// INTERNAL if the status cannot be written as header fields.
#[allow(clippy::result_large_err, reason = "the type is tonic's")]
pub(crate) fn trailers_of(failure: &Status) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    failure.add_header(&mut trailers).map(|()| trailers)
}

/// Returns the status of a service's or a layer's error, which may be anywhere in its chain of
/// sources. tonic alone does not know tower's own errors, or knows them only with its feature
/// `server`.
pub(crate) fn status_of(error: BoxError) -> Status {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    let mut status = None;
    while let Some(error) = source {
        if error.is::<Status>() {
            break;
        }
        if error.is::<Overloaded>() {
            status = Some(Status::resource_exhausted("the service is overloaded"));
            break;
        }
        if error.is::<Elapsed>() {
            status = Some(Status::deadline_exceeded("the service took longer than its timeout"));
            break;
        }
        source = error.source();
    }
    match status {
        Some(mut status) => {
            status.set_source(Arc::from(error));
            status
        }
        None => Status::from_error(error),
    }
}

/// Follows the table "HTTP2 Transport Mapping, Errors" of PROTOCOL-HTTP2.md.
fn code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::REFUSED_STREAM => Code::Unavailable,
        ErrorCode::CANCEL => Code::Cancelled,
        ErrorCode::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        ErrorCode::INADEQUATE_SECURITY => Code::PermissionDenied,
        ErrorCode::NO_ERROR
        | ErrorCode::PROTOCOL_ERROR
        | ErrorCode::INTERNAL_ERROR
        | ErrorCode::FLOW_CONTROL_ERROR
        | ErrorCode::SETTINGS_TIMEOUT
        | ErrorCode::FRAME_SIZE_ERROR
        | ErrorCode::COMPRESSION_ERROR
        | ErrorCode::CONNECT_ERROR => Code::Internal,
        _ => Code::Unknown,
    }
}

/// Returns the code for an HTTP status ("HTTP to gRPC Status Code Mapping" of the gRPC project).
pub(crate) fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        400 | 431 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// Returns the status of a response that is not gRPC: a proxy, or a server without gRPC, has
/// answered. The HTTP status decides it. Returns `None` if the response has a `grpc-status`.
pub(crate) fn not_grpc(status: StatusCode, headers: &HeaderMap) -> Option<Status> {
    if status == StatusCode::OK && is_grpc(headers) || headers.contains_key("grpc-status") {
        return None;
    }
    let code = code_of(status);
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().escape_ascii());
    let kind = kind.map_or_else(|| "no content type".to_owned(), |kind| kind.to_string());
    Some(Status::new(code, format!("the answer is not gRPC's: HTTP status {status}, {kind}")))
}

/// Returns the failure that a response's head has the status of, if it has one.
pub(crate) fn failure_in(head: &HeaderMap) -> Option<Status> {
    if field(head, &Status::GRPC_STATUS)? == "0" {
        return None;
    }
    let mut head = head.clone();
    // tonic panics at details that are not base64.
    normalise(&mut head);
    Status::from_header_map(&head)
}

/// Returns whether trailers have the status OK.
pub(super) fn succeeded(trailers: &HeaderMap) -> bool {
    trailers.get("grpc-status").is_some_and(|code| code == "0")
}

/// Returns whether the content type is `application/grpc`, with or without a subtype or parameters.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    field(headers, &header::CONTENT_TYPE).is_some_and(is_grpc_type)
}
