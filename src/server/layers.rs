//! [`Layers`]: the tower layers around the services of a server.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tower::layer::Layer;
use tower::util::BoxCloneSyncService;

use super::routes::Routes;
use crate::grpc::{
    BoxFuture, HttpService, RequestBody, answer, boxed, call, grpc_failure, status_of,
};

/// The service that a layer wraps: all services of a server, within the layers that were added
/// after it.
///
/// Without such layers it is always ready. It never fails: an error of such a layer becomes a
/// response with its status.
pub type LayeredService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// A layer whose type is erased.
type Wrap = Arc<dyn Fn(LayeredService) -> LayeredService + Send + Sync>;

/// The layers of a server, the outermost first.
#[derive(Clone, Default)]
pub(super) struct Layers(Vec<Wrap>);

impl Layers {
    /// Adds a layer inside the others.
    pub(super) fn add<L>(&mut self, layer: L)
    where
        L: Layer<LayeredService> + Send + Sync + 'static,
        L::Service: HttpService<Body>,
    {
        self.0.push(Arc::new(move |inner| layered(layer.layer(inner))));
    }

    pub(super) fn around(&self, routes: Routes) -> Services {
        let mut layers = self.0.iter().rev();
        let Some(innermost) = layers.next() else { return Services::Plain(routes) };
        let wrapped = innermost(layered(routes));
        Services::Layered(layers.fold(wrapped, |inner, layer| layer(inner)))
    }
}

fn layered<S: HttpService<Body>>(service: S) -> LayeredService {
    BoxCloneSyncService::new(Answers { service, failure: None })
}

/// A service whose errors become responses, so that a layer around it sees the status that the
/// client gets.
#[derive(Clone)]
struct Answers<S> {
    service: S,
    /// The error of `poll_ready`, which the next call returns.
    failure: Option<Status>,
}

impl<S: HttpService<Body>> Service<Request<Body>> for Answers<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.failure.is_none() {
            match self.service.poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.failure = Some(status_of(error.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> BoxFuture {
        match self.failure.take() {
            None => boxed(self.service.call(request), grpc_failure),
            Some(status) => answer(status),
        }
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} layers", self.0.len())
    }
}

/// The services of a server, within its layers if it has any.
#[derive(Clone, Debug)]
pub(super) enum Services {
    Plain(Routes),
    Layered(LayeredService),
}

impl Services {
    pub(super) fn call(&mut self, request: Request<RequestBody>) -> BoxFuture {
        match self {
            Self::Plain(routes) => routes.route(request),
            Self::Layered(service) => call(service.clone(), request.map(Body::new), grpc_failure),
        }
    }
}
