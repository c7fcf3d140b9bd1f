//! [`Grpc`]: a tower service as the handler of a connection's requests.

use std::error::Error;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use tonic::Status;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::body::{ReplyBody, ResponseBody, deadline_exceeded};
use super::status::is_grpc;
use super::timeout::{Deadline, grpc_timeout};
use crate::driver::{Handler, Incoming, Reply};

/// The error type of tower and http-body.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// What a [`Server`](crate::Server)'s layers must make of its services: a cloneable tower service
/// that answers HTTP requests. Implemented for every service that fits; there is nothing to
/// implement.
pub trait GrpcService<B>:
    Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S, B> GrpcService<B> for S where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Answers a connection's requests by a service, under gRPC's rules.
#[derive(Debug)]
pub(crate) struct Grpc<S, B> {
    service: S,
    body: std::marker::PhantomData<fn() -> B>,
}

impl<S, B> Grpc<S, B> {
    pub(crate) fn new(service: S) -> Self {
        Self { service, body: std::marker::PhantomData }
    }
}

impl<S, B> Handler for Grpc<S, B>
where
    S: GrpcService<B>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Body = ReplyBody;

    fn call(&mut self, request: Request<Incoming>) -> Reply<ReplyBody> {
        if request.method() != Method::POST {
            return refuse(StatusCode::METHOD_NOT_ALLOWED);
        }
        if !is_grpc(request.headers()) {
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let mut deadline = grpc_timeout(request.headers()).and_then(Deadline::after);
        let request = request.map(|incoming| Body::new(ResponseBody::new(incoming, None)));
        let call = self.service.clone().oneshot(request);
        Box::pin(async move {
            let mut call = pin!(call);
            let result = std::future::poll_fn(|cx| {
                if let Poll::Ready(result) = call.as_mut().poll(cx) {
                    return Poll::Ready(Some(result));
                }
                match &mut deadline {
                    Some(deadline) => Pin::new(deadline).poll(cx).map(|()| None),
                    None => Poll::Pending,
                }
            })
            .await;
            let response = match result {
                Some(Ok(response)) => response.map(Body::new),
                Some(Err(error)) => Status::from_error(error.into()).into_http(),
                None => deadline_exceeded().into_http(),
            };
            response.map(|body| ReplyBody::new(body, deadline))
        })
    }
}

/// An answer to what is no gRPC request, in plain HTTP.
fn refuse(status: StatusCode) -> Reply<ReplyBody> {
    let mut response = Response::new(ReplyBody::new(Body::empty(), None));
    *response.status_mut() = status;
    Box::pin(std::future::ready(response))
}
