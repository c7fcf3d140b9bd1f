//! [`ResponseFuture`]: a call of an HTTP request, until its response's head.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::CONTENT_LENGTH;
use http::uri::PathAndQuery;
use http::{Request, Response, Version};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::builder::WaitForReady;
use super::call::{Calling, LinkResponse};
use super::channel::Channel;
use super::watched::WatchedCall;
use crate::descriptors::{Descriptors, OfCall};
use crate::driver::{BodyRequest, Responded};
use crate::grpc::{ResponseBody, field, is_length_of, normalise, not_grpc};

impl Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = ResponseFuture;

    /// A channel is always ready: each call waits for its connection itself.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        let (mut parts, body) = request.into_parts();
        // A server would reset the stream if the length were not the body's (RFC 9113 §8.1.1).
        if field(&parts.headers, &CONTENT_LENGTH).is_some_and(|length| !is_length_of(length, &body))
        {
            parts.headers.remove(CONTENT_LENGTH);
        }
        let wait = parts.extensions.get::<WaitForReady>().copied();
        let path = parts.uri.into_parts().path_and_query;
        let path = path.unwrap_or(PathAndQuery::from_static("/"));
        let watched = self.0.config.observers.as_ref();
        let watched = watched.map(|observers| WatchedCall::began(observers, &path));
        let body = match &watched {
            None => body,
            Some(watched) => watched.counted(body),
        };
        let descriptors = of_call(parts.extensions.remove());
        let request = BodyRequest::new(parts.method, path, parts.headers, descriptors, body);
        ResponseFuture { call: Calling::new(Arc::clone(&self.0), request, wait), watched }
    }
}

/// Returns the descriptors that travel with a call, if there are any.
pub(crate) fn of_call(descriptors: Option<Descriptors>) -> OfCall {
    OfCall(descriptors.filter(|list| !list.is_empty()))
}

/// A [`Channel`]'s call, until the response's head has come. Dropping it cancels the call.
pub struct ResponseFuture {
    call: Calling<BodyRequest<Body>>,
    watched: Option<WatchedCall>,
}

impl ResponseFuture {
    fn response(&mut self, answer: LinkResponse) -> Result<Response<ResponseBody>, Status> {
        let LinkResponse { responded, link } = answer;
        let Responded { head, body, descriptors } = responded;
        if let Some(status) = not_grpc(head.status, &head.headers) {
            return Err(status);
        }
        let deadline = self.call.take_deadline().map(|deadline| self.call.named(deadline));
        let body = ResponseBody::new(body, deadline, link.address.clone());
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.version_mut() = Version::HTTP_2;
        *response.headers_mut() = match Arc::try_unwrap(head) {
            Ok(head) => head.headers,
            Err(head) => head.headers.clone(),
        };
        normalise(response.headers_mut());
        *response.extensions_mut() = link.extensions(descriptors)?;
        if let Some(watched) = self.watched.take() {
            let observation = watched.answered(&link, response.headers());
            response.body_mut().observe(observation);
        }
        Ok(response)
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let answer = match &mut this.watched {
            None => ready!(this.call.poll_answer(cx)),
            Some(watched) => ready!(watched.poll(&mut this.call, cx)),
        };
        let result = answer.and_then(|answer| this.response(answer));
        if let Err(status) = &result
            && let Some(watched) = this.watched.take()
        {
            watched.failed(status.code());
        }
        Poll::Ready(result)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
