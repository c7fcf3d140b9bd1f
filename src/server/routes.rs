//! [`Routes`]: finds the service that a request's path names. The service itself finds the method.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::mount::{Mounted, Route};
use crate::grpc::{Arriving, BoxFuture, DirectAnswer, RequestBody};
use crate::observer::Known;

/// The services of a [`Server`](crate::Server), as one tower service. The fallback answers requests
/// for other services; without one they get UNIMPLEMENTED.
#[derive(Clone)]
pub(super) struct Routes {
    services: Arc<[Mounted]>,
    fallback: Option<Route>,
}

impl Routes {
    pub(super) fn new(services: Vec<Mounted>, fallback: Option<Route>) -> Self {
        Self { services: services.into(), fallback }
    }

    pub(super) fn route(&self, request: Request<RequestBody>) -> BoxFuture {
        // A path is "/package.Service/Method" (gRPC over HTTP/2, Requests).
        let path = request.uri().path();
        match self.find(path).map(|service| &service.route).or(self.fallback.as_ref()) {
            Some(route) => route(request),
            None => {
                let status = Status::unimplemented(format!("no service here has {path}"));
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }

    pub(super) fn call_directly(
        &self,
        request: Arriving,
        message: Option<&mut Vec<u8>>,
    ) -> Result<DirectAnswer, Arriving> {
        match self.find(request.head.path.path()).and_then(|service| service.direct.as_ref()) {
            Some(direct) => Ok(direct(request, message)),
            None => Err(request),
        }
    }

    /// Returns whether a path names one of the services, and one of its methods.
    pub(super) fn knows(&self, path: &str) -> Known {
        let Some(service) = self.find(path) else { return Known::Nothing };
        let Some(methods) = service.methods else { return Known::Service };
        // The path is "/name/method".
        match path.get(service.name.len() + 2..) {
            Some(method) if methods.contains(&method) => Known::Method,
            _ => Known::Nothing,
        }
    }

    /// Compares a path with each service's name. Servers have few services, and most names differ
    /// in length: to compare them is less work than to find the end of the name in the path and
    /// hash it.
    fn find(&self, path: &str) -> Option<&Mounted> {
        let path = path.strip_prefix('/')?;
        let is_of =
            |name: &str| path.as_bytes().get(name.len()) == Some(&b'/') && path.starts_with(name);
        self.services.iter().find(|service| is_of(service.name))
    }
}

/// Layers wrap the services in this form.
impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> BoxFuture {
        self.route(request.map(RequestBody::from))
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.services.iter().map(|service| service.name)).finish()
    }
}
