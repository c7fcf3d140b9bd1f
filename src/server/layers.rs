//! [`Layers`]: what stands between a connection and the services.

use std::fmt;
use std::sync::Arc;

use http::{Request, Response};
use tonic::body::Body;
use tower::layer::Layer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt};

use super::routes::Routes;
use crate::grpc::{BoxFuture, HttpService, RequestBody, call};

/// What a layer wraps: all services of a server, within the layers that were added after it.
///
/// It is always ready, unless such a layer is not, and has no errors but theirs.
pub type LayeredService = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// A layer whose type is forgotten.
type Wrap = Arc<dyn Fn(LayeredService) -> LayeredService + Send + Sync>;

/// The layers of a server, the outermost first.
#[derive(Clone, Default)]
pub(super) struct Layers(Vec<Wrap>);

impl Layers {
    /// Adds one within those that are there.
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
    // `Body::new` passes a body on that is a `Body` already.
    let service = service.map_response(|response: Response<_>| response.map(Body::new));
    BoxCloneSyncService::new(service.map_err(Into::into))
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} layers", self.0.len())
    }
}

/// The services of a server with its layers, as a connection calls them.
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
