//! The one message of a body that must have one.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderMap, StatusCode};
use http_body::Body as _;
use prost::Message;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use crate::grpc::cut_off;
use crate::http2::Content;

use super::compression::ReceivedEncoding;
use super::framing::{Deframer, take_single};
use super::limit::Limit;
use super::metadata::{merge, outcome, with_head};

/// The contents of a body.
#[derive(Debug)]
pub(crate) struct Whole<M> {
    pub(super) message: Option<M>,
    pub(super) trailers: Option<HeaderMap>,
    /// Whether there was no data at all.
    pub(super) empty: bool,
    /// Whether the end came within a message.
    pub(super) cut_off: bool,
}

/// Reads a body to its end.
///
/// # Errors
///
/// The status if the body fails, if a message is not valid, or if there is a second one.
pub(super) async fn receive<M>(mut body: Body, mut messages: Deframer) -> Result<Whole<M>, Status>
where
    M: Message + Default,
{
    let mut whole = Whole::default();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) => whole.take(data, &mut messages)?,
            Err(frame) => whole.trailers = frame.into_trailers().ok(),
        }
    }
    whole.cut_off = !messages.is_empty();
    Ok(whole)
}

impl<M: Message + Default> Whole<M> {
    /// Returns the contents of a body that has arrived in full.
    ///
    /// # Errors
    ///
    /// As for [`receive`].
    pub(super) fn of(
        content: Content,
        received: ReceivedEncoding,
        limit: Limit,
    ) -> Result<Self, Status> {
        let Content { pieces, trailers } = content;
        let trailers = trailers.map(Arc::unwrap_or_clone);
        let mut whole = Self { message: None, trailers, empty: true, cut_off: false };
        let mut pieces = match take_single(pieces, limit) {
            Ok(message) => return Ok(Self { message: Some(message?), empty: false, ..whole }),
            Err(pieces) => pieces,
        };
        let mut messages = Deframer::new(received, limit);
        while let Some(piece) = pieces.pop() {
            whole.take(piece, &mut messages)?;
        }
        whole.cut_off = !messages.is_empty();
        Ok(whole)
    }
}

impl<M> Default for Whole<M> {
    fn default() -> Self {
        Self { message: None, trailers: None, empty: true, cut_off: false }
    }
}

impl<M: Message + Default> Whole<M> {
    /// Adds data of the body.
    ///
    /// # Errors
    ///
    /// As for [`receive`].
    pub(crate) fn take(&mut self, data: Bytes, messages: &mut Deframer) -> Result<(), Status> {
        self.empty &= data.is_empty();
        messages.push(data);
        while let Some(message) = messages.next()? {
            if self.message.replace(message).is_some() {
                return Err(cardinality("more than one message"));
            }
        }
        Ok(())
    }

    /// Notes the end of the body.
    pub(crate) fn end(&mut self, trailers: Option<HeaderMap>, messages: &Deframer) {
        self.trailers = trailers;
        self.cut_off = !messages.is_empty();
    }
}

impl<M> Whole<M> {
    /// Returns the message and the trailers if there is exactly one message.
    pub(super) fn into_message(self) -> Result<(M, Option<HeaderMap>), Status> {
        if self.cut_off {
            return Err(cut_off());
        }
        let message = self.message.ok_or_else(|| cardinality("no message"))?;
        Ok((message, self.trailers))
    }
}

/// Returns the outcome of a call whose answer must be one message. `early` is the status in the
/// response's head.
pub(crate) fn conclude<M>(
    whole: Whole<M>,
    early: Option<Status>,
    http: StatusCode,
    head: HeaderMap,
    extensions: Extensions,
) -> Result<Response<M>, Status> {
    match (early, &whole.trailers) {
        (Some(status), None) if whole.empty && status.code() != Code::Ok => return Err(status),
        (Some(_), None) if whole.empty => {}
        _ => {
            if let Err(status) = outcome(whole.trailers.as_ref(), http, whole.cut_off) {
                return Err(with_head(status, head));
            }
        }
    }
    let (message, trailers) = match whole.into_message() {
        Ok(received) => received,
        Err(status) => return Err(with_head(status, head)),
    };
    let mut metadata = MetadataMap::from_headers(head);
    if let Some(trailers) = trailers {
        merge(&mut metadata, trailers);
    }
    Ok(Response::from_parts(metadata, message, extensions))
}

/// Returns the status for a request or a response that must have one message and has another number
/// of them ("Status codes and their use in gRPC": cardinality violations).
fn cardinality(found: &str) -> Status {
    Status::unimplemented(format!("there has to be exactly one message, and there is {found}"))
}
