//! [`Mount`]: what can be added to a server.

use std::fmt;
use std::sync::Arc;

use http::Request;
use tonic::server::NamedService;

use crate::grpc::{Answering, Arriving, BoxFuture, HttpService, RequestBody, call};

/// A service that [`Server::add_service`](crate::Server::add_service) takes.
///
/// Every tower service that has a name (`NamedService`) and answers requests with a [`RequestBody`]
/// is one: the servers that tonic generates, alone, with an interceptor or within layers. A service
/// that is written by hand takes a `http::Request<RequestBody>`, or one of any body as tonic's do.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be added to a samehost server",
    note = "a service written by hand implements `tonic::server::NamedService` and \
            `tower::Service<http::Request<samehost::RequestBody>>`, and is `Clone + Send + Sync`"
)]
pub trait Mount {
    /// Gives the service up for a server to call.
    #[doc(hidden)]
    fn mount(self) -> Mounted;
}

impl<S> Mount for S
where
    S: HttpService<RequestBody> + NamedService,
{
    fn mount(self) -> Mounted {
        Mounted { name: S::NAME, route: route(self), direct: None }
    }
}

/// A service whose type is forgotten. Unlike tower's boxed services it is called by reference, so
/// a call clones only the service itself.
pub(super) type Route = Arc<dyn Fn(Request<RequestBody>) -> BoxFuture + Send + Sync>;

pub(super) fn route(service: impl HttpService<RequestBody>) -> Route {
    Arc::new(move |request| call(&mut service.clone(), request))
}

/// A service that a server can call.
#[doc(hidden)]
#[derive(Clone)]
pub struct Mounted {
    pub(super) name: &'static str,
    pub(super) route: Route,
    /// For calls that nothing stands before.
    pub(super) direct: Option<Direct>,
}

/// The same without an HTTP request.
pub(super) type Direct = Arc<dyn Fn(Arriving) -> Answering + Send + Sync>;

impl Mounted {
    /// A service of this name that answers by `route`, and by `direct` where nothing stands before it.
    pub(crate) fn new(
        name: &'static str,
        route: impl Fn(Request<RequestBody>) -> BoxFuture + Send + Sync + 'static,
        direct: impl Fn(Arriving) -> Answering + Send + Sync + 'static,
    ) -> Self {
        Self { name, route: Arc::new(route), direct: Some(Arc::new(direct)) }
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mounted").field(&self.name).finish()
    }
}
