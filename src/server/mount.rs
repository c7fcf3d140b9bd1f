//! [`Mount`]: a service that can be added to a server.

use std::fmt;
use std::sync::Arc;

use http::Request;
use tonic::server::NamedService;

use crate::grpc::{
    Arriving, BoxFuture, DirectAnswer, HttpService, OfError, RequestBody, call, grpc_failure,
};

/// A service that [`Server::add_service`](crate::Server::add_service) takes.
///
/// Every tower service that has a name (`NamedService`) and takes requests with a [`RequestBody`]
/// is one. So are the servers that tonic generates, alone, with an interceptor or within layers. A
/// service that is written by hand takes `http::Request<RequestBody>`, or is generic over the body
/// as tonic's are.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be added to a samehost server",
    note = "a service written by hand implements `tonic::server::NamedService` and \
            `tower::Service<http::Request<samehost::RequestBody>>`, and is `Clone + Send + Sync`"
)]
pub trait Mount {
    /// Turns the service into one that a server can call.
    #[doc(hidden)]
    fn mount(self) -> Mounted;
}

impl<S> Mount for S
where
    S: HttpService<RequestBody> + NamedService,
{
    fn mount(self) -> Mounted {
        Mounted { name: S::NAME, methods: None, route: route(self, grpc_failure), direct: None }
    }
}

/// A service whose type is erased. Unlike tower's boxed services it is called by reference, so that
/// a call clones only the service itself.
pub(super) type Route = Arc<dyn Fn(Request<RequestBody>) -> BoxFuture + Send + Sync>;

pub(super) fn route(service: impl HttpService<RequestBody>, failed: OfError) -> Route {
    Arc::new(move |request| call(service.clone(), request, failed))
}

/// A service that a server can call.
#[doc(hidden)]
#[derive(Clone)]
pub struct Mounted {
    pub(super) name: &'static str,
    /// The names of its methods, if they are known.
    pub(super) methods: Option<&'static [&'static str]>,
    pub(super) route: Route,
    /// Answers calls on a server that has no layers, no method policy and no call limit.
    pub(super) direct: Option<DirectRoute>,
}

/// Answers a call without an HTTP request.
pub(super) type DirectRoute =
    Arc<dyn Fn(Arriving, Option<&mut Vec<u8>>) -> DirectAnswer + Send + Sync>;

impl Mounted {
    /// Returns a service that answers by `route`, or by `direct` on a server that has no layers, no
    /// method policy and no call limit.
    pub(crate) fn new(
        name: &'static str,
        methods: &'static [&'static str],
        route: impl Fn(Request<RequestBody>) -> BoxFuture + Send + Sync + 'static,
        direct: impl Fn(Arriving, Option<&mut Vec<u8>>) -> DirectAnswer + Send + Sync + 'static,
    ) -> Self {
        let (methods, direct) = (Some(methods), Some(Arc::new(direct) as DirectRoute));
        Self { name, methods, route: Arc::new(route), direct }
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mounted").field(&self.name).finish()
    }
}
