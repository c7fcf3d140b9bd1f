//! [`Routes`]: finds the service that a request's path names. Methods within a service are found
//! by the service itself.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::mount::{Mounted, Route};
use crate::grpc::{Answering, Arriving, BoxFuture, RequestBody};

/// The services of a [`Server`](crate::Server), as one tower service. A request for none of them
/// is the fallback's, or gets UNIMPLEMENTED.
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

    pub(super) fn call_directly(&self, request: Arriving) -> Result<Answering, Arriving> {
        match self.find(request.head.path.path()).and_then(|service| service.direct.as_ref()) {
            Some(direct) => Ok(direct(request)),
            None => Err(request),
        }
    }

    /// Whether one of the services is named by a path.
    pub(super) fn knows(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// Servers have a handful of services, of which most differ in length: to compare the names is
    /// less work than to find the name's end and hash it.
    fn find(&self, path: &str) -> Option<&Mounted> {
        let path = path.strip_prefix('/')?;
        let is_of =
            |name: &str| path.as_bytes().get(name.len()) == Some(&b'/') && path.starts_with(name);
        self.services.iter().find(|service| is_of(service.name))
    }
}

/// What layers wrap.
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
