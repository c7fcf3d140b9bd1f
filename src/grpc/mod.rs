//! gRPC on HTTP/2 ("gRPC over HTTP2", PROTOCOL-HTTP2.md of the gRPC project): what a request must
//! look like, deadlines, and how failures of a stream become statuses.

mod body;
mod handler;
mod message;
mod metadata;
mod panics;
mod refusing;
mod request;
mod status;
mod timeout;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use crate::driver::BoxError;
pub use body::ResponseBody;
pub use handler::HttpService;
pub(crate) use handler::{
    Answering, Arriving, BoxFuture, Dispatch, Grpc, MessageCall, MessageHead, call, is_length_of,
};
pub(crate) use metadata::normalise;
pub(crate) use refusing::Refusing;
pub use request::RequestBody;
pub(crate) use status::{not_grpc, status};
pub(crate) use timeout::{Deadline, GRPC_TIMEOUT, grpc_timeout, timeout_value};

/// The first value of a field. A call has a handful of fields: to look at each is less work than to
/// hash the name.
pub(crate) fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    const FEW: usize = 8;
    if headers.len() > FEW {
        return headers.get(name);
    }
    headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
}
