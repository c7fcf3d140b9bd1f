//! [`Layers`]: the tower layers around the services of a server.

use std::fmt;
use std::sync::Arc;

use http::{Request, Response};
use tonic::body::Body;
use tower::layer::Layer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt};

use super::routes::Routes;
use crate::grpc::{BoxFuture, HttpService, RequestBody, call};

/// The service that a layer wraps: all services of a server, within the layers that were added
/// after it.
///
/// Without such layers it is always ready and never fails.
pub type LayeredService = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

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
        self.0.push(Arc::new(move |inner| boxed(layer.layer(inner))));
    }

    pub(super) fn around(&self, routes: Routes) -> Services {
        let mut layers = self.0.iter().rev();
        let Some(innermost) = layers.next() else { return Services::Plain(routes) };
        let wrapped = innermost(boxed(routes));
        Services::Layered(layers.fold(wrapped, |inner, layer| layer(inner)))
    }
}

fn boxed<S: HttpService<Body>>(service: S) -> LayeredService {
    // `Body::new` returns a body that is a `Body` already as it is.
    let service = service.map_response(|response: Response<_>| response.map(Body::new));
    BoxCloneSyncService::new(service.map_err(Into::into))
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
            Self::Layered(service) => call(service, request.map(Body::new)),
        }
    }
}
