//! gRPC on HTTP/2 ("gRPC over HTTP2", PROTOCOL-HTTP2.md of the gRPC project): checks requests,
//! keeps deadlines and turns failures of a stream into statuses.

mod body;
mod handler;
mod http_service;
mod message;
mod metadata;
mod panics;
mod plain_http;
mod refusing;
mod request;
mod status;
mod timeout;
mod usual_heads;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use crate::driver::BoxError;
pub use body::ResponseBody;
pub(crate) use handler::{
    Answering, Arriving, DirectAnswer, Dispatch, Grpc, MessageCall, MessageHead, is_length_of,
};
pub use http_service::HttpService;
pub(crate) use http_service::{BoxFuture, OfError, answer, boxed, call, grpc_failure, ready};
pub(crate) use message::{PREFIX, cut_off};
pub(crate) use metadata::{is_normalised, normalise};
pub(crate) use panics::panic_message;
pub(crate) use plain_http::{empty_response, http_failure};
pub(crate) use refusing::Refusing;
pub use request::RequestBody;
pub(crate) use status::{
    code_of, failure_in, not_grpc, ok_trailers, status, status_of, trailers_of,
};
pub(crate) use timeout::{Deadline, GRPC_TIMEOUT, grpc_timeout, timeout_value};

/// Returns the first value of a field. A call has few fields: to compare each name is less work
/// than to hash one.
pub(crate) fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    const FEW: usize = 8;
    if headers.len() > FEW {
        return headers.get(name);
    }
    headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
}
