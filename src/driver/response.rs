//! A server's response on its way into the connection.

use bytes::Bytes;
use http::response::{Parts, Response};
use http::{HeaderMap, StatusCode};
use tonic::Status;

use super::fields::Fields;
use super::options::BoxError;
use super::send::{Outbound, Rest, Start, StartEnd, send_start, start};
use super::shared::State;
use crate::descriptors::Descriptors;
use crate::http2::StreamKey;

/// Answers a request whose header list is larger than this end accepts.
pub(super) fn refuse_headers(
    state: &mut State,
    key: StreamKey,
    (status, headers): (StatusCode, HeaderMap),
) {
    tracing::debug!(stream = key.id(), "a request's headers are too large");
    state.h2.send_response(key, status, &headers, true);
    state.forget(key);
}

/// The parts of a response that are sent.
pub(super) struct ResponseParts<B> {
    parts: Parts,
    /// Descriptors that travel with the head.
    descriptors: Option<Descriptors>,
    start: Start<B>,
}

/// Takes a response apart. The rest of it is dropped here, while no lock is held.
pub(super) fn taken_apart<B>(response: Response<B>) -> ResponseParts<B>
where
    B: Outbound<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let (mut parts, body) = response.into_parts();
    let descriptors = parts.extensions.remove::<Descriptors>();
    parts.extensions.clear();
    ResponseParts { parts, descriptors, start: start(body) }
}

/// Sends a response of one message, and empties the message's buffer.
pub(super) fn send_message(
    state: &mut State,
    key: StreamKey,
    (head, descriptors): (&Fields, Option<Descriptors>),
    message: &mut Vec<u8>,
    trailers: &'static HeaderMap,
) {
    let goes_on = match (head, &descriptors) {
        (Fields::Static(head), None) => {
            state.h2.send_static_response(key, head);
            true
        }
        _ => send_head(state, key, StatusCode::OK, head, descriptors, false),
    };
    if goes_on {
        state.h2.send_small(key, message, false);
        state.h2.send_static_trailers(key, trailers);
    }
    message.clear();
}

/// Sends a head with the descriptors that travel with it. Returns whether the rest may follow. If
/// the client does not take the descriptors, an error was sent instead.
fn send_head(
    state: &mut State,
    key: StreamKey,
    status: StatusCode,
    fields: &HeaderMap,
    descriptors: Option<Descriptors>,
    end: bool,
) -> bool {
    if let Some(descriptors) = descriptors.filter(|list| !list.is_empty())
        && let Err(limit) = state.h2.send_descriptors(key, &descriptors)
    {
        let why =
            format!("the response has file descriptors, and the client takes {limit} with a call");
        let (parts, _) = Status::failed_precondition(why).into_http::<()>().into_parts();
        state.h2.send_response(key, parts.status, &parts.headers, true);
        return false;
    }
    state.h2.send_response(key, status, fields, end);
    true
}

/// Sends a head and the part of its body that was ready at once. Returns the rest of the body.
pub(super) fn send_reply<B>(
    state: &mut State,
    key: StreamKey,
    ResponseParts { parts, descriptors, start: Start { data, end } }: ResponseParts<B>,
) -> Option<Rest<B>> {
    let empty = data.is_none() && matches!(end, StartEnd::Plain);
    let goes_on = send_head(state, key, parts.status, &parts.headers, descriptors, empty);
    if !goes_on || empty || send_start(state, key, data, &end) {
        return None;
    }
    match end {
        StartEnd::More { body, next } => Some((body, next)),
        _ => None,
    }
}
