//! Failures of streams and connections as gRPC statuses.

use tonic::{Code, Status};

use crate::driver::{Lost, StreamError};
use crate::http2::ErrorCode;

/// The status of a call whose stream ended before its message.
pub(crate) fn status(error: StreamError) -> Status {
    match error {
        StreamError::Body(status) => status,
        StreamError::Reset(reset) => Status::new(code(reset.code), error.to_string()),
        StreamError::Lost {
            lost: Lost::GoneAway { code: ErrorCode::ENHANCE_YOUR_CALM, .. },
            ..
        } => Status::resource_exhausted(error.to_string()),
        StreamError::Lost { .. } => Status::unavailable(error.to_string()),
    }
}

/// The table "HTTP2 Transport Mapping, Errors" of PROTOCOL-HTTP2.md.
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
