//! [`Calls`]: applies the method policy and the call limit to requests, and calls their services.

use http::{Request, Response, StatusCode};
use tonic::body::Body;

use super::layers::Services;
use super::limiter::Limiter;
use super::mount::Route;
use super::routes::Routes;
use crate::grpc::{Arriving, BoxFuture, DirectAnswer, Dispatch, RequestBody};
use crate::policy::PolicyGuard;

/// The services of a server within its layers, behind the policy of its methods and the limit on
/// calls.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) guard: Option<PolicyGuard>,
    pub(super) limiter: Option<Limiter>,
    pub(super) routes: Routes,
    pub(super) services: Services,
    /// The service of requests that are not gRPC.
    pub(super) http: Option<Route>,
}

impl Dispatch for Calls {
    fn call(&mut self, request: Request<RequestBody>) -> BoxFuture {
        if let Some(status) = self.guard.as_ref().and_then(|guard| guard.refusal(&request)) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        let Some(limiter) = &self.limiter else { return self.services.call(request) };
        let mut services = self.services.clone();
        limiter.run(move || services.call(request))
    }

    fn call_directly(
        &mut self,
        request: Arriving,
        message: Option<&mut Vec<u8>>,
    ) -> Result<DirectAnswer, Arriving> {
        match &self.services {
            Services::Plain(routes) if self.guard.is_none() && self.limiter.is_none() => {
                routes.call_directly(request, message)
            }
            _ => Err(request),
        }
    }

    fn knows(&self, path: &str) -> bool {
        self.routes.knows(path)
    }

    fn takes_http(&self) -> bool {
        self.http.is_some()
    }

    fn call_http(&mut self, request: Request<RequestBody>) -> BoxFuture {
        let route = match &self.http {
            Some(route) if self.guard.as_ref().is_none_or(|guard| guard.allows(&request)) => {
                route.clone()
            }
            _ => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::FORBIDDEN;
                return Box::pin(std::future::ready(Ok(response)));
            }
        };
        match &self.limiter {
            Some(limiter) => limiter.run(move || route(request)),
            None => route(request),
        }
    }
}
