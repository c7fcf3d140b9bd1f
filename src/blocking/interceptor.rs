//! [`BoxInterceptor`]: the interceptor of a blocking client, whose type the client does not show.

use std::fmt;

use tonic::service::Interceptor;
use tonic::{Request, Status};

/// An interceptor. Each clone of a client has a clone of it, as with tonic's clients.
pub(super) struct BoxInterceptor(Box<dyn CloneInterceptor>);

/// Returns an interceptor in a box.
pub(super) fn boxed<F>(interceptor: F) -> BoxInterceptor
where
    F: Interceptor + Clone + Send + Sync + 'static,
{
    BoxInterceptor(Box::new(interceptor))
}

trait CloneInterceptor: Send + Sync {
    fn intercept(&mut self, request: Request<()>) -> Result<Request<()>, Status>;
    fn cloned(&self) -> BoxInterceptor;
}

impl<F: Interceptor + Clone + Send + Sync + 'static> CloneInterceptor for F {
    fn intercept(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.call(request)
    }

    fn cloned(&self) -> BoxInterceptor {
        boxed(self.clone())
    }
}

impl BoxInterceptor {
    /// Returns the request as it is to be sent, or the status by which it is refused.
    pub(super) fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.0.intercept(request)
    }
}

impl Clone for BoxInterceptor {
    fn clone(&self) -> Self {
        self.0.cloned()
    }
}

impl fmt::Debug for BoxInterceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interceptor")
    }
}
