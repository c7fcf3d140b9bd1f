//! [`Routes`]: finds the service that a request's path names. Methods within a service are found
//! by the service itself.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::grpc::{BoxError, GrpcService, call};

/// The services of a [`Server`](crate::Server), as one tower service. A request for none of them
/// gets UNIMPLEMENTED.
#[derive(Clone, Default)]
pub struct Routes(Arc<Vec<(&'static str, Arc<Route>)>>);

/// A service whose type is forgotten. Unlike tower's boxed services it is called by reference, so
/// a call clones only the service itself.
type Route = dyn Fn(Request<Body>) -> RouteFuture + Send + Sync;

impl Routes {
    pub(super) fn add<S, B>(&mut self, service: S)
    where
        S: GrpcService<B> + NamedService + Sync,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let route = move |request| call(service.clone(), request);
        let routes = Arc::make_mut(&mut self.0);
        // The last one of a name counts.
        routes.retain(|(name, _)| *name != S::NAME);
        routes.push((S::NAME, Arc::new(route)));
    }

    /// Servers have a handful of services, of which most differ in length: to compare the names is
    /// less work than to find the name's end and hash it.
    fn find(&self, path: &str) -> Option<&Route> {
        let path = path.strip_prefix('/')?;
        let is_of =
            |name: &str| path.as_bytes().get(name.len()) == Some(&b'/') && path.starts_with(name);
        self.0.iter().find(|(name, _)| is_of(name)).map(|(_, route)| &**route)
    }
}

impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RouteFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> RouteFuture {
        // A path is "/package.Service/Method" (gRPC over HTTP/2, Requests).
        let path = request.uri().path();
        match self.find(path) {
            Some(route) => route(request),
            None => {
                let status = Status::unimplemented(format!("no service here has {path}"));
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The future of [`Routes`]: what the servers that tonic generates return, as it is.
pub type RouteFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;
