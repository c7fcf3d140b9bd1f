//! [`Grpc`]: answers a connection's requests by the rules of gRPC.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use tonic::Status;
use tonic::body::Body;

use super::body::ServiceBody;
use super::field;
use super::http_service::{BoxFuture, answer, ready};
use super::metadata::normal;
use super::panics::panicked;
use super::plain_http::{PlainHttp, empty_response};
use super::request::{RequestBody, http_request, request};
use super::status::{code_of, is_grpc, ok_trailers};
use super::timeout::{Deadline, LimitOf, grpc_timeout};
use super::usual_heads::UsualHeads;
use crate::descriptors::{Descriptors, ReceivedSet};
use crate::driver::{
    Answer, Called, Fields, Handler, Incoming, MessageAnswer, PollAnswer, discard,
};
use crate::http2::RequestHead;
use crate::observer::{CallObservation, CallObserver, Known};

/// Finds the service of a request and calls it.
pub(crate) trait Dispatch: Send + 'static {
    fn call(&mut self, request: Request<RequestBody>) -> BoxFuture;

    /// Answers without an HTTP request. Returns the request if something in front of the service
    /// needs an HTTP request. `message` is an empty buffer for one message; with it, the method may
    /// be polled once, with a waker that does nothing.
    fn call_directly(
        &mut self,
        request: Arriving,
        _message: Option<&mut Vec<u8>>,
    ) -> Result<DirectAnswer, Arriving> {
        Err(request)
    }

    /// Returns whether there is a service and a method for a path.
    fn knows(&self, path: &str) -> Known;

    /// Returns whether requests that are not gRPC are answered.
    fn takes_http(&self) -> bool;

    /// Answers a request that is not gRPC.
    fn call_http(&mut self, request: Request<RequestBody>) -> BoxFuture;
}

/// Answers a connection's requests by a [`Dispatch`], after checking them by the rules of gRPC.
#[derive(Debug)]
pub(crate) struct Grpc<D> {
    dispatch: D,
    /// The extensions that each request gets.
    extensions: Extensions,
    /// The longest time that a call may take.
    timeout: Option<Duration>,
    observer: Option<CallObserver>,
    usual: UsualHeads,
}

impl<D> Grpc<D> {
    /// Returns a handler that gives `extensions` to each request.
    pub(crate) fn new(
        dispatch: D,
        extensions: Extensions,
        timeout: Option<Duration>,
        observer: Option<CallObserver>,
    ) -> Self {
        Self { dispatch, extensions, timeout, observer, usual: UsualHeads::default() }
    }
}

impl<D: Dispatch> Grpc<D> {
    /// Answers a request that is not gRPC.
    fn call_http(&mut self, head: Arc<RequestHead>, body: Incoming, is_post: bool) -> RunningCall {
        if self.dispatch.takes_http() {
            let http = PlainHttp { is_head: head.method == Method::HEAD };
            let request = http_request(head, body, self.extensions.clone());
            let call = catch_unwind(AssertUnwindSafe(|| self.dispatch.call_http(request)));
            return match call {
                Ok(call) => RunningCall::plain_http(call, http),
                Err(panic) => RunningCall::ready(panicked_http(&*panic)),
            };
        }
        RunningCall::ready(empty_response(match is_post {
            true => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            false => StatusCode::METHOD_NOT_ALLOWED,
        }))
    }

    /// Refuses a request of gRPC, which observers are told of.
    fn refused(&self, path: &PathAndQuery, status: Status) -> Answering {
        let Some(observer) = self.observer.clone() else { return Answering::Http(answer(status)) };
        let (path, known) = (path.clone(), self.dispatch.knows(path.path()));
        Answering::Unstarted(Box::new(move || {
            (answer(status), Box::new(observer.began(&path, known)))
        }))
    }

    /// Answers a request of gRPC that no observer is told of.
    fn start(
        &mut self,
        request: Arriving,
        deadline: Option<Deadline>,
        mut message: Option<&mut Vec<u8>>,
    ) -> Called<RunningCall> {
        let started = catch_unwind(AssertUnwindSafe(|| {
            match self.dispatch.call_directly(request, message.as_deref_mut()) {
                Ok(call) => call,
                Err(request) => {
                    DirectAnswer::Unpolled(Answering::Http(self.dispatch.call(request.into_http())))
                }
            }
        }));
        let call = match started {
            Ok(DirectAnswer::Answered(Ok(head))) => return Called::Answered(head.into_answer()),
            Ok(DirectAnswer::Pending(call)) => {
                return Called::Pending(RunningCall::new(Answering::Message(call), deadline));
            }
            Ok(DirectAnswer::Answered(Err(status))) => Answering::Http(answer(status)),
            Ok(DirectAnswer::Unpolled(call)) => call,
            Err(panic) => {
                if let Some(message) = message {
                    message.clear();
                }
                Answering::Http(answer(panicked(&*panic)))
            }
        };
        Called::Unpolled(RunningCall::new(call, deadline))
    }
}

/// Returns a call that `observer` is told of. It is an HTTP request, so that its bodies can be counted. It
/// begins when it is first polled: a task of its own does that for a method that takes long.
fn observed(
    observer: CallObserver,
    mut dispatch: impl Dispatch,
    path: PathAndQuery,
    request: Request<RequestBody>,
) -> Answering {
    Answering::Unstarted(Box::new(move || {
        let known = dispatch.knows(path.path());
        let mut observed = Box::new(observer.began(&path, known));
        let request = request.map(|body| body.counted(observed.received()));
        let call = AssertUnwindSafe(|| observed.run(|| dispatch.call(request)));
        let call = catch_unwind(call).unwrap_or_else(|panic| answer(panicked(&*panic)));
        (call, observed)
    }))
}

impl<D: Dispatch + Clone> Handler for Grpc<D> {
    type Body = ServiceBody;
    type Running = RunningCall;

    fn call(
        &mut self,
        head: Arc<RequestHead>,
        body: Incoming,
        descriptors: Option<Box<ReceivedSet>>,
        message: Option<&mut Vec<u8>>,
    ) -> Called<RunningCall> {
        let usual = self.usual.find(&head);
        let is_post = usual.is_some() || head.method == Method::POST;
        if !is_post || usual.is_none() && !is_grpc(&head.headers) {
            return Called::Unpolled(self.call_http(head, body, is_post));
        }
        let asked = if usual.is_some() { None } else { grpc_timeout(&head.headers) };
        let limited = match (asked, self.timeout) {
            (Some(asked), most) if most.is_none_or(|most| asked <= most) => {
                Some((asked, LimitOf::Client))
            }
            (_, most) => most.map(|most| (most, LimitOf::Server)),
        };
        let deadline =
            limited.and_then(|(timeout, limit)| Deadline::of_call(&head.path, timeout, limit));
        let mut extensions = self.extensions.clone();
        match descriptors.map(|arrived| arrived.set) {
            None => {}
            Some(Ok(descriptors)) => drop(extensions.insert(descriptors)),
            Some(Err(why)) => {
                let status = Status::resource_exhausted(why);
                return Called::Unpolled(RunningCall::new(self.refused(&head.path, status), None));
            }
        }
        let head = match usual {
            Some(_) => head,
            None => {
                let normal = normal(Arc::clone(&head));
                if asked.is_none() && Arc::ptr_eq(&normal, &head) {
                    drop(normal);
                    self.usual.keep(&head);
                    head
                } else {
                    normal
                }
            }
        };
        let Some(observer) = &self.observer else {
            let is_plain = usual == Some(true);
            let arriving = Arriving { head, body, extensions, is_plain };
            return self.start(arriving, deadline, message);
        };
        let (observer, path) = (observer.clone(), head.path.clone());
        let request = request(head, body, extensions);
        let call = observed(observer, self.dispatch.clone(), path, request);
        Called::Unpolled(RunningCall::new(call, deadline))
    }

    fn too_large(limit: u32, foreign: bool) -> (StatusCode, HeaderMap) {
        if foreign {
            return (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, HeaderMap::new());
        }
        let status = Status::resource_exhausted(format!(
            "the request's headers are larger than the {limit} bytes that this server takes: raise \
             Server::max_header_list_size"
        ));
        let (parts, _) = status.into_http::<Body>().into_parts();
        (parts.status, parts.headers)
    }
}

/// A gRPC request, as a connection has received it.
pub(crate) struct Arriving {
    pub(crate) head: Arc<RequestHead>,
    pub(crate) body: Incoming,
    pub(crate) extensions: Extensions,
    /// Whether the messages are known to be protobuf and not compressed.
    pub(crate) is_plain: bool,
}

impl Arriving {
    /// Returns the request in the form that services read.
    pub(crate) fn into_http(self) -> Request<RequestBody> {
        request(self.head, self.body, self.extensions)
    }
}

/// A response that is being made.
pub(crate) enum Answering {
    Http(BoxFuture),
    /// A response of one message, which is encoded into the connection's write buffer.
    Message(Pin<Box<dyn MessageCall>>),
    /// A call that is observed, before its first poll.
    Unstarted(Box<dyn FnOnce() -> (BoxFuture, Box<CallObservation>) + Send>),
}

/// A call that a service answers without an HTTP request.
pub(crate) enum DirectAnswer {
    /// It was polled, and is answered. The message, if there is one, is in the buffer.
    Answered(Result<MessageHead, Status>),
    /// It was polled, and is not ready.
    Pending(Pin<Box<dyn MessageCall>>),
    /// It was not polled.
    Unpolled(Answering),
}

/// The head of a response of one message.
pub(crate) struct MessageHead {
    pub(crate) fields: Fields,
    /// The descriptors that are sent with the response.
    pub(crate) descriptors: Option<Descriptors>,
}

impl MessageHead {
    /// Returns the answer, without a length, which the head of another message may have had.
    #[inline]
    fn into_answer(self) -> MessageAnswer {
        let Self { mut fields, descriptors } = self;
        if let Fields::Own(fields) = &mut fields {
            fields.remove(header::CONTENT_LENGTH);
        }
        MessageAnswer { head: fields, descriptors, trailers: &OK }
    }
}

/// A running method whose response is one message.
pub(crate) trait MessageCall: Send {
    /// Polls like a future. When it is ready with the response's head, it has put the message with
    /// its prefix into `message`.
    fn poll_message(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: &mut Vec<u8>,
    ) -> Poll<Result<MessageHead, Status>>;
}

static OK: LazyLock<HeaderMap> = LazyLock::new(ok_trailers);

/// The response of a service, with its deadline.
pub(crate) struct RunningCall {
    call: Answering,
    /// In a box, so that the future is small to move.
    deadline: Option<Box<Deadline>>,
    observed: Option<Box<CallObservation>>,
    /// `Some` if the request is not gRPC.
    http: Option<PlainHttp>,
}

impl RunningCall {
    fn new(call: Answering, deadline: Option<Deadline>) -> Self {
        let deadline = deadline.map(Box::new);
        Self { call, deadline, observed: None, http: None }
    }

    /// Returns the answer to a request that is not gRPC. Its failures are not gRPC's, either.
    fn plain_http(call: BoxFuture, http: PlainHttp) -> Self {
        Self { http: Some(http), ..Self::new(Answering::Http(call), None) }
    }

    /// Returns a response that may be sent.
    fn finished(&mut self, mut response: Response<Body>) -> Response<ServiceBody> {
        if response.status().is_informational() {
            discard(std::mem::replace(&mut response, self.not_final()));
        }
        let http = self.http.map(|http| http.fit(&mut response));
        if http.is_none() {
            check_length(&mut response);
        }
        let deadline = self.deadline.take().map(|deadline| *deadline);
        let mut observed = self.observed.take();
        if let Some(observed) = &mut observed {
            note_head(observed, &response);
        }
        response.map(|body| ServiceBody::new(body, deadline, observed, http))
    }

    /// Returns the answer in place of a response with a status of 1xx, after which another one would have
    /// to follow (RFC 9110 §15.2). A service has only one.
    #[cold]
    fn not_final(&self) -> Response<Body> {
        tracing::debug!("a service has answered with a status of 1xx, which is not final");
        match self.http {
            Some(_) => empty_response(StatusCode::INTERNAL_SERVER_ERROR),
            None => Status::internal("the service's HTTP status is not final").into_http(),
        }
    }

    #[cold]
    fn start(&mut self) {
        let never = Answering::Http(Box::pin(std::future::pending()));
        match std::mem::replace(&mut self.call, never) {
            Answering::Unstarted(start) => {
                let (call, observed) = start();
                (self.call, self.observed) = (Answering::Http(call), Some(observed));
            }
            other => self.call = other,
        }
    }

    /// Returns a response that is ready.
    pub(super) fn ready(response: Response<Body>) -> Self {
        Self::new(Answering::Http(ready(response)), None)
    }

    /// Returns a response that is never ready.
    pub(super) fn never() -> Self {
        Self::new(Answering::Http(Box::pin(std::future::pending())), None)
    }
}

impl PollAnswer for RunningCall {
    type Body = ServiceBody;

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Vec<u8>,
    ) -> Poll<Answer<ServiceBody>> {
        if let Answering::Unstarted(_) = &self.call {
            self.start();
        }
        let Self { call, observed, .. } = &mut *self;
        let polled = catch_unwind(AssertUnwindSafe(|| match call {
            Answering::Http(call) => match observed {
                None => call.as_mut().poll(cx),
                Some(observed) => observed.run(|| call.as_mut().poll(cx)),
            }
            .map(|response| match response {
                Ok(response) => Answer::Response(response),
            }),
            Answering::Message(call) => {
                let polled = call.as_mut().poll_message(cx, message);
                polled.map(|answer| match answer {
                    Ok(head) => Answer::Message(head.into_answer()),
                    Err(status) => Answer::Response(status.into_http()),
                })
            }
            Answering::Unstarted(_) => unreachable!("it was started"),
        }));
        let response = match polled {
            Ok(Poll::Ready(Answer::Message(answer))) => {
                return Poll::Ready(Answer::Message(answer));
            }
            Ok(Poll::Ready(Answer::Response(response))) => response,
            Err(panic) => {
                message.clear();
                match self.http {
                    Some(_) => panicked_http(&*panic),
                    None => panicked(&*panic).into_http(),
                }
            }
            Ok(Poll::Pending) => {
                let Some(deadline) = &mut self.deadline else { return Poll::Pending };
                if Pin::new(&mut *deadline).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                deadline.exceeded().into_http()
            }
        };
        Poll::Ready(Answer::Response(self.finished(response)))
    }
}

/// Logs a panic and returns the answer to a request that is not gRPC.
fn panicked_http(panic: &(dyn Any + Send)) -> Response<Body> {
    panicked(panic);
    empty_response(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Notes the status of a call if the response's head decides it. That of HTTP does where no trailers can
/// follow, or where it is no success.
fn note_head(observed: &mut CallObservation, response: &Response<Body>) {
    observed.fields(response.headers());
    if response.status() != StatusCode::OK || response.body().is_end_stream() {
        observed.ended_with(code_of(response.status()));
    }
}

/// Removes `content-length` from a call's head if it is not known to be the body's length, for example
/// because the head was copied from another message. A peer would reset the stream for it (RFC 9113
/// §8.1.1).
fn check_length(response: &mut Response<Body>) {
    if let Some(length) = field(response.headers(), &header::CONTENT_LENGTH)
        && !is_length_of(length, response.body())
    {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
}

/// Returns whether a body knows its length and `length` equals it.
pub(crate) fn is_length_of(length: &HeaderValue, body: &Body) -> bool {
    let known = body.size_hint().exact();
    known.is_some() && length.to_str().ok().and_then(|length| length.parse().ok()) == known
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::task::Waker;

    use tonic::Code;

    use super::*;
    use crate::observer::{ConnectionObservation, Event, Observer, ObserverOptions};
    use crate::socket::Peer;

    struct NeverCalled;

    impl Dispatch for NeverCalled {
        fn call(&mut self, _: Request<RequestBody>) -> BoxFuture {
            unreachable!("the call is refused")
        }

        fn knows(&self, _: &str) -> Known {
            Known::Method
        }

        fn takes_http(&self) -> bool {
            false
        }

        fn call_http(&mut self, _: Request<RequestBody>) -> BoxFuture {
            unreachable!("it takes none")
        }
    }

    #[derive(Clone, Default)]
    struct Codes(Arc<Mutex<Vec<Code>>>);

    impl Observer for Codes {
        fn observe(&self, event: &Event<'_>) {
            if let Event::CallEnded { end, .. } = event {
                self.0.lock().unwrap().push(end.code());
            }
        }
    }

    #[test]
    fn observers_are_told_of_a_call_that_is_refused() {
        let codes = Codes::default();
        let mut options = ObserverOptions::default();
        options.add(codes.clone());
        let observers = options.observers().unwrap();
        let connection = ConnectionObservation::opened(&observers, None, &Peer::Unknown);
        let grpc = Grpc::new(NeverCalled, Extensions::new(), None, Some(connection.calls()));
        let path = PathAndQuery::from_static("/a.B/C");
        let mut refused =
            RunningCall::new(grpc.refused(&path, Status::resource_exhausted("too many")), None);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(refused.poll_answer(&mut cx, &mut Vec::new()).is_ready());
        assert_eq!(*codes.0.lock().unwrap(), [Code::ResourceExhausted]);
    }
}
