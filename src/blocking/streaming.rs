//! [`Streaming`] and [`Conversation`]: messages of a call, one after another.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use http::{Extensions, HeaderMap, StatusCode};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use super::call::{BlockingCall, ResponsePart};
use crate::client::DirectResponse;
use crate::grpc::normalise;
use crate::stubs::{ClientOptions, Deframer, Whole, conclude, early_status, outcome, with_head};

/// The responses of a call: an iterator that waits for each. It ends after the last one, or after
/// an error. Dropping it before that cancels the call.
pub struct Streaming<R> {
    call: BlockingCall,
    status: StatusCode,
    early: Option<Status>,
    messages: Deframer,
    /// Whether there was no data.
    empty: bool,
    trailers: Option<MetadataMap>,
    over: bool,
    of: PhantomData<fn() -> R>,
}

impl<R: Message + Default> Streaming<R> {
    /// # Errors
    ///
    /// The status of a failure that is all of the response.
    pub(super) fn new(
        mut call: BlockingCall,
        response: DirectResponse,
        options: &ClientOptions,
    ) -> Result<Response<Self>, Status> {
        let (status, mut headers, extensions) = parts(response);
        let messages = options.messages(&headers);
        let early = match early_status(&mut headers) {
            Some(failure) if failure.code() != Code::Ok && call.is_answered_by_head() => {
                return Err(call.ended(failure));
            }
            early => early,
        };
        let streaming = Self {
            call,
            status,
            early,
            messages,
            empty: true,
            trailers: None,
            over: false,
            of: PhantomData,
        };
        Ok(Response::from_parts(MetadataMap::from_headers(headers), streaming, extensions))
    }

    /// Waits for the next message, until the call's deadline or for ever if it has none. Returns `None`
    /// after the last one.
    ///
    /// # Errors
    ///
    /// The call's status if it is not OK. There are no more messages after it.
    pub fn message(&mut self) -> Result<Option<R>, Status> {
        if self.over {
            return Ok(None);
        }
        let next = self.find();
        let next = self.call.conclude(next);
        self.over = !matches!(next, Ok(Some(_)));
        next
    }

    fn find(&mut self) -> Result<Option<R>, Status> {
        loop {
            if let Some(message) = self.messages.next()? {
                return Ok(Some(message));
            }
            match self.call.next()? {
                ResponsePart::Data(data) => {
                    self.empty &= data.is_empty();
                    self.messages.push(data);
                }
                ResponsePart::End(trailers) => {
                    match self.early.take() {
                        Some(status) if self.empty && trailers.is_none() => {
                            return if status.code() == Code::Ok { Ok(None) } else { Err(status) };
                        }
                        _ => {
                            let is_cut_off = !self.messages.is_empty();
                            outcome(trailers.as_ref(), self.status, is_cut_off)?;
                        }
                    }
                    self.trailers = trailers.map(MetadataMap::from_headers);
                    return Ok(None);
                }
            }
        }
    }

    /// Returns the metadata that came after the last message, once that message was read.
    pub fn trailers(&self) -> Option<&MetadataMap> {
        self.trailers.as_ref()
    }
}

impl<R: Message + Default> Iterator for Streaming<R> {
    type Item = Result<R, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        self.message().transpose()
    }
}

/// A call whose requests and responses are streams. The caller decides when to send and when to
/// read. Dropping it before its end cancels the call.
///
/// If the server waits for a request while the caller waits for a response, both wait for ever,
/// unless there is a deadline.
pub struct Conversation<Q, R> {
    state: ConversationState<R>,
    options: ClientOptions,
    of: PhantomData<fn(Q)>,
}

enum ConversationState<R> {
    /// The head of the response is not read yet.
    Begun(BlockingCall),
    Answered(Box<(MetadataMap, Streaming<R>)>),
    Over,
}

impl<Q: Message, R: Message + Default> Conversation<Q, R> {
    pub(super) fn new(call: BlockingCall, options: &ClientOptions) -> Self {
        Self { state: ConversationState::Begun(call), options: options.clone(), of: PhantomData }
    }

    /// Sends a request, and waits while the server takes no more, until the call's deadline or for ever
    /// if it has none. Then the socket has all of it, so that it arrives whatever the thread does next.
    /// Returns whether the server takes more. If it has ended the call, [`message`](Self::message)
    /// returns its status. After [`finish`](Self::finish) nothing is sent.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED if the message is too large, or DEADLINE_EXCEEDED.
    pub fn send(&mut self, request: &Q) -> Result<bool, Status> {
        let mut data = Vec::new();
        self.options.encode(request, &mut data)?;
        match &mut self.state {
            ConversationState::Begun(call) => call.send(data),
            ConversationState::Answered(answered) => answered.1.call.send(data),
            ConversationState::Over => Ok(false),
        }
    }

    /// Tells the server that there are no more requests. It waits as [`send`](Self::send) does.
    pub fn finish(&mut self) {
        match &mut self.state {
            ConversationState::Begun(call) => call.finish(),
            ConversationState::Answered(answered) => answered.1.call.finish(),
            ConversationState::Over => {}
        }
    }

    /// Waits for the metadata before the first response.
    ///
    /// # Errors
    ///
    /// The call's status if it has failed.
    pub fn metadata(&mut self) -> Result<&MetadataMap, Status> {
        self.answered().map(|answered| &answered.0)
    }

    /// Waits for the next response, until the call's deadline or for ever if it has none. Returns `None`
    /// after the last one.
    ///
    /// # Errors
    ///
    /// The call's status if it is not OK. There are no more responses after it.
    pub fn message(&mut self) -> Result<Option<R>, Status> {
        if matches!(self.state, ConversationState::Over) {
            return Ok(None);
        }
        self.answered()?.1.message()
    }

    fn answered(&mut self) -> Result<&mut (MetadataMap, Streaming<R>), Status> {
        if let ConversationState::Begun(_) = &self.state
            && let ConversationState::Begun(mut call) =
                std::mem::replace(&mut self.state, ConversationState::Over)
        {
            let response = call.head()?;
            let response = Streaming::new(call, response, &self.options)?;
            let (metadata, responses, _) = response.into_parts();
            self.state = ConversationState::Answered(Box::new((metadata, responses)));
        }
        match &mut self.state {
            ConversationState::Answered(answered) => Ok(answered),
            _ => Err(Status::internal("the call has ended already")),
        }
    }
}

impl<Q: Message, R: Message + Default> Iterator for Conversation<Q, R> {
    type Item = Result<R, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        self.message().transpose()
    }
}

/// Returns the parts of a response's head, with its metadata normalised.
fn parts(response: DirectResponse) -> (StatusCode, HeaderMap, Extensions) {
    let DirectResponse { head, extensions, .. } = response;
    let status = head.status;
    let mut headers = match Arc::try_unwrap(head) {
        Ok(head) => head.headers,
        Err(head) => head.headers.clone(),
    };
    normalise(&mut headers);
    (status, headers, extensions)
}

/// Reads a response that must have one message.
pub(super) fn single<R: Message + Default>(
    mut call: BlockingCall,
    response: DirectResponse,
    options: &ClientOptions,
) -> Result<Response<R>, Status> {
    let (status, mut headers, extensions) = parts(response);
    let mut messages = options.messages(&headers);
    let early = early_status(&mut headers);
    let mut whole = Whole::default();
    loop {
        match call.next() {
            Ok(ResponsePart::Data(data)) => {
                if let Err(status) = whole.take(data, &mut messages) {
                    return Err(with_head(call.ended(status), headers));
                }
            }
            Ok(ResponsePart::End(trailers)) => {
                whole.end(trailers, &messages);
                return call.conclude(conclude(whole, early, status, headers, extensions));
            }
            Err(status) => return Err(with_head(status, headers)),
        }
    }
}

impl<R> fmt::Debug for Streaming<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming").field("over", &self.over).finish_non_exhaustive()
    }
}

impl<Q, R> fmt::Debug for Conversation<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation").finish_non_exhaustive()
    }
}
