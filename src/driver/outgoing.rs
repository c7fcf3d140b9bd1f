//! Requests on their way into a connection: [`BodyRequest`] has the body of an HTTP request,
//! [`MessageRequest`] one message.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::Body as HttpBody;

use super::body_task::{BodyTask, panicked};
use super::client::Unsent;
use super::encode_buffer::EncodeBuffer;
use super::error::StreamError;
use super::fields::Fields;
use super::options::BoxError;
use super::send::{Outbound, SendBody, Start, StartEnd, send_start, start};
use super::shared::{Shared, State};
use crate::descriptors::{Descriptors, OfCall};
use crate::http2::{HeadId, StreamKey};

/// A request that can be put into a connection, and into another one if it was not processed.
pub(crate) trait OutgoingRequest {
    /// The part that is prepared before the connection is locked.
    type Content;

    /// Prepares what follows the head. If that fails, nothing can be sent.
    fn prepare(&mut self) -> Result<Self::Content, Unsent>;

    /// Returns what is sent first.
    fn head(&self) -> OutgoingHead<'_>;

    /// Returns whether nothing follows the head.
    fn is_empty(&self) -> bool;

    /// Sends what follows the head, as far as it is ready. Returns whether that was everything.
    /// Otherwise the caller has [`send_rest`](Self::send_rest) send the rest.
    fn write(&mut self, content: Self::Content, state: &mut State, key: StreamKey) -> bool;

    /// Spawns a task that sends the rest of the body. The lock is not held.
    fn send_rest(&mut self, _shared: &Arc<Shared>, _key: StreamKey) {}

    /// Returns whether the request may be sent once more.
    fn can_be_sent(&self) -> bool;

    /// Sets a header field, before the request is sent again.
    fn set_field(&mut self, name: HeaderName, value: HeaderValue);

    /// Returns how much of the body is kept for sending it again, in bytes.
    fn buffered(&self) -> usize;
}

/// A request's head.
pub(crate) struct OutgoingHead<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    /// Descriptors that travel with the head.
    pub(crate) descriptors: Option<&'a Descriptors>,
    /// The id of the head, if nothing but its descriptors changes from call to call.
    pub(crate) id: Option<HeadId>,
}

/// A request with a body. It keeps what it needs to be sent again, if its body was complete when it
/// was made.
pub(crate) struct BodyRequest<B> {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    descriptors: OfCall,
    data: Option<Bytes>,
    end: StartEnd<B>,
    spent: bool,
}

impl<B> BodyRequest<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    /// Polls the body as far as it is ready at once.
    pub(crate) fn new(
        method: Method,
        path: PathAndQuery,
        headers: HeaderMap,
        descriptors: OfCall,
        body: B,
    ) -> Self {
        let Start { data, end } = start(body);
        Self { method, path, headers, descriptors, data, end, spent: false }
    }
}

impl<B> OutgoingRequest for BodyRequest<B>
where
    B: Outbound<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Content = ();

    fn prepare(&mut self) -> Result<(), Unsent> {
        if !matches!(self.end, StartEnd::Failed(_) | StartEnd::Panicked) {
            return Ok(());
        }
        self.spent = true;
        Err(Unsent::Body(StreamError::Body(
            match std::mem::replace(&mut self.end, StartEnd::Plain) {
                StartEnd::Failed(error) => tonic::Status::from_error(error),
                _ => panicked(),
            },
        )))
    }

    fn head(&self) -> OutgoingHead<'_> {
        OutgoingHead {
            method: self.method.as_str(),
            path: self.path.as_str(),
            headers: &self.headers,
            descriptors: self.descriptors.0.as_ref(),
            id: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.data.is_none() && matches!(self.end, StartEnd::Plain)
    }

    fn write(&mut self, (): (), state: &mut State, key: StreamKey) -> bool {
        send_start(state, key, self.data.clone(), &self.end)
    }

    fn send_rest(&mut self, shared: &Arc<Shared>, key: StreamKey) {
        let Some((body, next)) = self.end.take_rest() else { return };
        self.spent = true;
        let body = SendBody::new(Arc::clone(shared), key, body, next);
        shared.spawn(key, BodyTask::new(body));
    }

    fn can_be_sent(&self) -> bool {
        !self.spent
    }

    fn set_field(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }

    fn buffered(&self) -> usize {
        self.data.as_ref().map_or(0, Bytes::len)
    }
}

/// A message that is encoded each time it is sent. It is nearly always sent once, so no copy is
/// kept.
pub(crate) trait EncodeMessage {
    /// Appends the message with its prefix.
    fn encode(&self, out: &mut Vec<u8>);

    /// Returns the size of the message with its prefix, in bytes.
    fn encoded_len(&self) -> usize;
}

/// A POST request of one message.
pub(crate) struct MessageRequest<M> {
    path: &'static str,
    headers: Fields,
    descriptors: OfCall,
    message: M,
}

impl<M> MessageRequest<M> {
    pub(crate) fn new(
        path: &'static str,
        headers: Fields,
        descriptors: OfCall,
        message: M,
    ) -> Self {
        Self { path, headers, descriptors, message }
    }
}

impl<M: EncodeMessage> OutgoingRequest for MessageRequest<M> {
    type Content = EncodeBuffer;

    fn prepare(&mut self) -> Result<EncodeBuffer, Unsent> {
        let mut buffer = EncodeBuffer::take();
        self.message.encode(&mut buffer);
        Ok(buffer)
    }

    fn head(&self) -> OutgoingHead<'_> {
        OutgoingHead {
            method: "POST",
            path: self.path,
            headers: &self.headers,
            descriptors: self.descriptors.0.as_ref(),
            id: match self.headers {
                Fields::Static(fields) => Some(HeadId::request(self.path, fields)),
                Fields::Own(_) => None,
            },
        }
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn write(&mut self, mut buffer: EncodeBuffer, state: &mut State, key: StreamKey) -> bool {
        state.h2.send_small(key, &mut buffer, true);
        true
    }

    fn can_be_sent(&self) -> bool {
        true
    }

    fn set_field(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.set(name, value);
    }

    fn buffered(&self) -> usize {
        self.message.encoded_len()
    }
}
