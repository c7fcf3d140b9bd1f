//! [`Calls`]: applies the method policy and the call limit to requests, and calls their services.

use http::{Request, StatusCode};

use super::layers::Services;
use super::limiter::Limiter;
use super::mount::Route;
use super::routes::Routes;
use crate::grpc::{
    Arriving, BoxFuture, DirectAnswer, Dispatch, RequestBody, answer, empty_response, ready,
};
use crate::observer::Known;
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
            return answer(status);
        }
        let Some(limiter) = &self.limiter else { return self.services.call(request) };
        let mut services = self.services.clone();
        limiter.run(move || services.call(request)).unwrap_or_else(answer)
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

    fn knows(&self, path: &str) -> Known {
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
            _ => return ready(empty_response(StatusCode::FORBIDDEN)),
        };
        match &self.limiter {
            Some(limiter) => limiter
                .run(move || route(request))
                .unwrap_or_else(|_| ready(empty_response(StatusCode::SERVICE_UNAVAILABLE))),
            None => route(request),
        }
    }
}
