//! [`Calls`]: what a connection's calls go through before they reach a service.

use http::Request;

use super::layers::Services;
use crate::grpc::{BoxFuture, Dispatch, RequestBody};
use crate::policy::Guard;

/// The services of a server within its layers, and before them the policy of its methods.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) guard: Option<Guard>,
    pub(super) services: Services,
}

impl Dispatch for Calls {
    fn call(&mut self, request: Request<RequestBody>) -> BoxFuture {
        if let Some(status) = self.guard.as_ref().and_then(|guard| guard.refusal(&request)) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        self.services.call(request)
    }
}
