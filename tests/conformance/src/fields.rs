//! Header fields and trailers apart from each other, which tonic joins: a server's are set and a
//! client's are seen by a layer around the generated code.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// What a response has beside its messages.
#[derive(Clone, Debug, Default)]
pub struct Fields(Arc<Mutex<Parts>>);

#[derive(Debug, Default)]
pub struct Parts {
    pub head: HeaderMap,
    pub trailers: HeaderMap,
}

impl Fields {
    pub fn with<R>(&self, act: impl FnOnce(&mut Parts) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Adds [`Fields`] to a request's extensions, and what a handler puts there to the response.
#[derive(Clone)]
pub struct Set<S>(pub S);

type Future<E> =
    std::pin::Pin<Box<dyn std::future::Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Set<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Future<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let fields = Fields::default();
        request.extensions_mut().insert(fields.clone());
        let answer = self.0.call(request);
        Box::pin(async move {
            let (mut parts, mut body) = answer.await?.into_parts();
            let head = fields.with(|parts| std::mem::take(&mut parts.head));
            if parts.headers.contains_key("grpc-status") {
                // The status is the only thing there is, and goes behind the head's own fields.
                let mut trailers = std::mem::take(&mut parts.headers);
                if let Some(kind) = trailers.remove("content-type") {
                    parts.headers.insert("content-type", kind);
                }
                body = Body::new(Empty::new().with_trailers(async move { Some(Ok(trailers)) }));
            }
            parts.headers.extend(head);
            let body = body.map_frame(move |frame| match frame.into_trailers() {
                Ok(mut trailers) => {
                    trailers.extend(fields.with(|parts| std::mem::take(&mut parts.trailers)));
                    http_body::Frame::trailers(trailers)
                }
                Err(frame) => frame,
            });
            Ok(Response::from_parts(parts, Body::new(body)))
        })
    }
}

/// A channel that notes what its response has.
#[derive(Clone)]
pub struct Seen {
    pub channel: samehost::Channel,
    pub fields: Fields,
}

impl Service<Request<Body>> for Seen {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Future<Status>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.channel.call(request);
        let fields = self.fields.clone();
        Box::pin(async move {
            let (parts, body) = answer.await?.into_parts();
            fields.with(|seen| {
                // A head with a status is trailers (gRPC over HTTP/2, Trailers-Only).
                let only = parts.headers.contains_key("grpc-status");
                let seen = if only { &mut seen.trailers } else { &mut seen.head };
                seen.clone_from(&parts.headers);
            });
            let body = body.map_frame(move |frame| {
                if let Some(trailers) = frame.trailers_ref() {
                    fields.with(|seen| seen.trailers.clone_from(trailers));
                }
                frame
            });
            Ok(Response::from_parts(parts, Body::new(body)))
        })
    }
}
