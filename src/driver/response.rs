//! A server's response on its way into the connection.

use std::time::Instant;

use bytes::Bytes;
use http::response::{Parts, Response};
use http::{HeaderMap, StatusCode};
use tonic::Status;

use super::discard::discard;
use super::fields::Fields;
use super::handler::MessageAnswer;
use super::options::BoxError;
use super::send::{Outbound, RestOfBody, Start, StartEnd, send_start, start};
use super::shared::State;
use crate::descriptors::Descriptors;
use crate::http2::{StreamKey, Unopened, WholeResponse};
use crate::throttle::Throttle;

/// What a handler keeps for a response that goes on, in bytes: a queue of messages, which has room for 32 from
/// the first one on, and a task that fills it. For health checks 3 KiB were measured, and 9 for reflection.
const STREAMED: usize = 10 * 1024;

/// Limits the log events of such requests, which observers do not see, to one in a second.
static TOO_LARGE_LOGGED: Throttle = Throttle::new(1);

/// Answers a request whose header list is larger than this end accepts.
pub(super) fn refuse_headers(
    state: &mut State,
    key: StreamKey,
    (status, headers): (StatusCode, HeaderMap),
) {
    if let Some(unlogged) = TOO_LARGE_LOGGED.pass(Instant::now()) {
        tracing::warn!(
            unlogged,
            "a call was refused: its headers are larger than this server takes"
        );
    }
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
    discard(std::mem::take(&mut parts.extensions));
    ResponseParts { parts, descriptors, start: start(body) }
}

/// A request that a handler is called for.
#[derive(Debug)]
pub(super) enum Unanswered {
    Stream(StreamKey),
    /// It has arrived whole. If it is answered at once, it needs no stream.
    Whole(Unopened),
}

impl Unanswered {
    /// Returns the request's stream.
    pub(super) fn open(self, state: &mut State) -> StreamKey {
        match self {
            Self::Stream(key) => key,
            Self::Whole(request) => state.h2.open(request),
        }
    }

    /// Sends a response of one message, empties the message's buffer, and ends the call.
    #[inline(always)] // It has one caller.
    pub(super) fn answer(self, state: &mut State, answer: MessageAnswer, message: &mut Vec<u8>) {
        let request = match (self, answer.whole(message)) {
            (Self::Whole(request), Some(response)) => match state.h2.answer(request, response) {
                Ok(()) => return message.clear(),
                Err(request) => Self::Whole(request),
            },
            (request, _) => request,
        };
        let key = request.open(state);
        send_message(state, key, answer, message);
        state.forget(key);
    }
}

impl MessageAnswer {
    /// Returns the response as one of which only the data changes, if it is such a one.
    #[inline]
    fn whole<'a>(&self, data: &'a [u8]) -> Option<WholeResponse<'a>> {
        match (&self.head, &self.descriptors) {
            (Fields::Static(head), None) => {
                Some(WholeResponse { head, data, trailers: self.trailers })
            }
            _ => None,
        }
    }
}

/// Sends a response of one message, and empties the message's buffer.
pub(super) fn send_message(
    state: &mut State,
    key: StreamKey,
    answer: MessageAnswer,
    message: &mut Vec<u8>,
) {
    if let Some(response) = answer.whole(message)
        && state.h2.send_whole(key, response)
    {
        return message.clear();
    }
    let MessageAnswer { head, descriptors, trailers } = answer;
    let head = &head;
    let goes_on = match (head, &descriptors) {
        (Fields::Static(head), None) => {
            state.h2.send_static_response(key, head);
            true
        }
        _ => send_head(state, key, StatusCode::OK, head, descriptors.as_ref(), false),
    };
    if goes_on {
        state.h2.send_small(key, message, false);
        state.h2.send_static_trailers(key, trailers);
    }
    message.clear();
}

/// Sends a head with the descriptors that go with it. Returns whether the rest may follow. If the
/// descriptors could not be sent, an error was sent instead.
fn send_head(
    state: &mut State,
    key: StreamKey,
    status: StatusCode,
    fields: &HeaderMap,
    descriptors: Option<&Descriptors>,
    end: bool,
) -> bool {
    if let Some(descriptors) = descriptors.filter(|list| !list.is_empty())
        && let Err(status) = send_descriptors(state, key, descriptors)
    {
        let (parts, _) = status.into_http::<()>().into_parts();
        state.h2.send_response(key, parts.status, &parts.headers, true);
        return false;
    }
    state.h2.send_response(key, status, fields, end);
    true
}

/// Announces the descriptors of a response, or returns why they cannot be sent.
#[allow(clippy::result_large_err, reason = "the type is tonic's")]
fn send_descriptors(
    state: &mut State,
    key: StreamKey,
    descriptors: &Descriptors,
) -> Result<(), Status> {
    let count = descriptors.len();
    let Some(quotas) = &state.response_quotas else {
        return Err(Status::failed_precondition(
            "the response has file descriptors, and the server sends none: Server::descriptors \
             allows them, over Unix sockets",
        ));
    };
    let limit = state.h2.peer_takes_descriptors();
    if count > limit as usize {
        let why = format!(
            "the response has {count} file descriptors, and the client takes {limit} with a call: \
             ChannelBuilder::descriptors sets how many"
        );
        return Err(Status::failed_precondition(why));
    }
    let Some(descriptors) = descriptors.of_response(quotas) else {
        let why = format!(
            "the response has {count} file descriptors, and too many of other responses wait for \
             the client to read them"
        );
        return Err(Status::resource_exhausted(why));
    };
    state.h2.send_descriptors(key, &descriptors);
    Ok(())
}

/// Sends a head and the part of its body that was ready at once. Returns the rest of the body if that is
/// to be sent. Otherwise it stays in `response`, which the caller drops without the lock.
pub(super) fn send_parts<B>(
    state: &mut State,
    key: StreamKey,
    response: &mut ResponseParts<B>,
) -> Option<RestOfBody<B>> {
    let ResponseParts { parts, descriptors, start: Start { data, end } } = response;
    let empty = data.is_none() && matches!(end, StartEnd::Plain);
    let goes_on = send_head(state, key, parts.status, &parts.headers, descriptors.as_ref(), empty);
    if !goes_on || empty || send_start(state, key, data.take(), end) {
        return None;
    }
    let rest = end.take_rest()?;
    state.h2.hold(key, STREAMED);
    Some(rest)
}
