//! The server's stubs: the forms in which servers take a generated one.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Request as HttpRequest, Response as HttpResponse};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tower::Service;

use super::direct;
use super::layered::Layered;
use super::methods::Methods;
use crate::server::Mounted;

/// Answers an HTTP request: under tower layers, in tonic's own server or in axum.
pub fn call<D: Methods>(
    server: &D,
    request: HttpRequest<Body>,
) -> BoxFuture<HttpResponse<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    server.answer(direct::method::<D>(&path), Layered(request))
}

/// Returns the service for samehost's own server.
pub fn mount<D: Methods>(server: D) -> Mounted {
    let directly = server.clone();
    Mounted::new(
        D::NAME,
        D::NAMES,
        move |request| call(&server, request.map(Body::new)),
        move |request, message| direct::answer(&directly, request, message),
    )
}

/// A generated server as a tower service for requests with any body. `into_service` returns it.
#[derive(Clone, Debug)]
pub struct AnyBody<D>(D);

impl<D> AnyBody<D> {
    /// Returns a service that serves what `server` serves.
    pub fn new(server: D) -> Self {
        Self(server)
    }
}

impl<D: NamedService> NamedService for AnyBody<D> {
    const NAME: &'static str = D::NAME;
}

impl<D, B> Service<HttpRequest<B>> for AnyBody<D>
where
    D: Methods,
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<HttpResponse<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<B>) -> Self::Future {
        call(&self.0, request.map(erase))
    }
}

/// Returns the body as tonic's type.
fn erase<B>(body: B) -> Body
where
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = Some(body);
    if let Some(body) = (&mut body as &mut dyn std::any::Any).downcast_mut::<Option<Body>>() {
        return body.take().unwrap_or_default();
    }
    body.map_or_else(Body::empty, |body| Body::new(InBytes { body }))
}

pin_project! {
    /// A body whose data is turned into `Bytes`.
    struct InBytes<B> {
        #[pin]
        body: B,
    }
}

impl<B: HttpBody> HttpBody for InBytes<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let in_bytes =
            |frame: Frame<B::Data>| frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
        self.project().body.poll_frame(cx).map_ok(in_bytes)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
