//! [`PeerPolicyLayer`]: which peers may call which services and methods.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tonic::Status;
use tonic::server::NamedService;
use tower::Service;
use tower::layer::Layer;

use super::PeerPolicy;
use crate::socket::PeerIdentity;
use crate::throttle::Throttle;

/// How many refusals are logged in a second.
const LOGGED: u32 = 100;

/// Decides by a [`PeerPolicy`] for each service and method whether a peer may call it. The policy
/// of a method replaces that of its service. Calls of a service without a policy are all refused.
///
/// It is given to [`Server::method_policy`](crate::Server::method_policy). As a tower layer it
/// wraps a single service, or the services of a tonic server on our sockets.
///
/// ```no_run
/// # #[cfg(feature = "ping")]
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// # use samehost::ping::{Ping, PingServiceServer};
/// # use samehost::{Address, Listener};
/// use samehost::{PeerPolicy, PeerPolicyLayer, Server};
///
/// // Only root may call, but everybody may ping.
/// let policies = PeerPolicyLayer::new()
///     .service::<PingServiceServer<Ping>>(PeerPolicy::root())
///     .method::<PingServiceServer<Ping>>("Ping", PeerPolicy::anyone());
/// # let address: Address = "unix:/run/app/ping.sock".parse()?;
/// # let listener = Listener::bind(&address).await?;
/// Server::new()
///     .method_policy(policies)
///     .add_service(PingServiceServer::new(Ping::default()))
///     .serve(listener)
///     .await?;
/// # Ok(()) }
/// ```
///
/// A refused call gets PERMISSION_DENIED, whose text shows nothing of the policy. It leaves a log
/// event (`tracing`, WARN) with the peer's user, group and process. At most 100 are logged in a
/// second; the next event has the number of the others. A call over TCP, or over a stream without
/// identity, is refused and logged in the same way.
#[derive(Clone, Default)]
pub struct PeerPolicyLayer(Arc<Policies>);

#[derive(Clone, Default)]
struct Policies {
    services: HashMap<String, ServicePolicy>,
}

#[derive(Clone, Debug, Default)]
struct ServicePolicy {
    of_all: Option<PeerPolicy>,
    methods: HashMap<String, PeerPolicy>,
}

impl PeerPolicyLayer {
    /// Returns a layer that refuses all calls.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets which peers may call the methods of `S` that have no policy of their own. A second
    /// policy of the same service replaces the first.
    #[must_use]
    pub fn service<S: NamedService>(self, policy: PeerPolicy) -> Self {
        self.service_named(S::NAME, policy)
    }

    /// Sets which peers may call one method of `S`, named as in the proto file: `Watch`, not `watch`.
    /// A second policy of the same method replaces the first.
    ///
    /// [`Server::method_policy`](crate::Server::method_policy) refuses names that the service does not
    /// have, if the service is one of samehost-build's and was added to the server as it is, without an
    /// interceptor or layer of its own. **Elsewhere a misspelt name guards nothing**, and no error tells
    /// of it, since the service's methods are not known. The calls of the method that was meant get the
    /// policy of the [`service`](Self::service). So let that be the strictest one, or leave it out,
    /// which refuses all other methods, and let policies of methods admit more peers. A misspelt name
    /// then admits nobody.
    #[must_use]
    pub fn method<S: NamedService>(self, method: impl Into<String>, policy: PeerPolicy) -> Self {
        self.method_named(S::NAME, method, policy)
    }

    /// Does the same as [`service`](Self::service), by the service's full name, such as
    /// `ping.v1.PingService`.
    #[must_use]
    pub fn service_named(mut self, service: impl Into<String>, policy: PeerPolicy) -> Self {
        self.entry(service.into()).of_all = Some(policy);
        self
    }

    /// Does the same as [`method`](Self::method), by the service's full name. That a misspelt name
    /// guards nothing holds for the service's name, too; generated code has it as `SERVICE_NAME`.
    #[must_use]
    pub fn method_named(
        mut self,
        service: impl Into<String>,
        method: impl Into<String>,
        policy: PeerPolicy,
    ) -> Self {
        self.entry(service.into()).methods.insert(method.into(), policy);
        self
    }

    /// Returns a method of this service that has a policy and is none of `methods`, if there is one.
    pub(crate) fn unknown_method(&self, service: &str, methods: &[&str]) -> Option<&str> {
        let named = self.0.services.get(service)?.methods.keys();
        named.map(String::as_str).filter(|name| !methods.contains(name)).min()
    }

    /// Returns a guard that enforces these policies.
    pub(crate) fn guard(&self) -> PolicyGuard {
        PolicyGuard { policies: Arc::clone(&self.0), throttle: Arc::new(Throttle::new(LOGGED)) }
    }

    fn entry(&mut self, service: String) -> &mut ServicePolicy {
        Arc::make_mut(&mut self.0).services.entry(service).or_default()
    }
}

impl Policies {
    /// Returns the policy for a path such as `/ping.v1.PingService/Ping`.
    fn of(&self, path: &str) -> Option<&PeerPolicy> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let service = self.services.get(service)?;
        service.methods.get(method).or(service.of_all.as_ref())
    }

    fn allow<B>(&self, request: &Request<B>) -> bool {
        let policy = self.of(request.uri().path());
        let peer = identity(request.extensions());
        policy.zip(peer).is_some_and(|(policy, peer)| policy.allows(peer))
    }
}

/// Returns the caller's identity, which our server or tonic's has put into the extensions.
fn identity(extensions: &http::Extensions) -> Option<&PeerIdentity> {
    let identity = extensions.get::<PeerIdentity>();
    #[cfg(feature = "tonic-transport")]
    let identity =
        identity.or_else(|| extensions.get::<crate::transport::ConnectInfo>()?.peer_identity());
    identity
}

impl fmt::Debug for PeerPolicyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerPolicyLayer").field(&self.0.services).finish()
    }
}

/// Enforces a [`PeerPolicyLayer`].
#[derive(Clone)]
pub(crate) struct PolicyGuard {
    policies: Arc<Policies>,
    throttle: Arc<Throttle>,
}

impl PolicyGuard {
    /// Returns whether a request is allowed, and logs it if it is not.
    pub(crate) fn allows<B>(&self, request: &Request<B>) -> bool {
        let allowed = self.policies.allow(request);
        if !allowed {
            self.log(request);
        }
        allowed
    }

    /// Returns the status of a call that is refused, and logs the call. Returns `None` if it is
    /// allowed.
    pub(crate) fn refusal<B>(&self, request: &Request<B>) -> Option<Status> {
        (!self.allows(request))
            .then(|| Status::permission_denied("this peer may not make this call"))
    }

    fn log<B>(&self, request: &Request<B>) {
        let Some(unlogged) = self.throttle.pass(Instant::now()) else { return };
        let path = request.uri().path();
        match identity(request.extensions()) {
            Some(peer) => {
                let (uid, gid, pid) = (peer.uid(), peer.gid(), peer.pid());
                tracing::warn!(uid, gid, pid, path, unlogged, "a call was refused by policy");
            }
            None => tracing::warn!(path, unlogged, "a call of an unknown peer was refused"),
        }
    }
}

impl fmt::Debug for PolicyGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicyGuard").field(&self.policies.services).finish()
    }
}

impl<S> Layer<S> for PeerPolicyLayer {
    type Service = PeerPolicyService<S>;

    fn layer(&self, inner: S) -> PeerPolicyService<S> {
        PeerPolicyService { inner, guard: self.guard() }
    }
}

/// The service of a [`PeerPolicyLayer`].
#[derive(Clone)]
pub struct PeerPolicyService<S> {
    inner: S,
    guard: PolicyGuard,
}

impl<S: fmt::Debug> fmt::Debug for PeerPolicyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPolicyService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for PeerPolicyService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = PeerPolicyFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let decision = match self.guard.refusal(&request) {
            None => Decision::Called { call: self.inner.call(request) },
            Some(status) => Decision::Refused { response: Some(status.into_http()) },
        };
        PeerPolicyFuture { decision }
    }
}

/// So a single service can be wrapped, too.
impl<S: NamedService> NamedService for PeerPolicyService<S> {
    const NAME: &'static str = S::NAME;
}

pin_project! {
    /// The future of [`PeerPolicyService`].
    pub struct PeerPolicyFuture<F, R> {
        #[pin]
        decision: Decision<F, R>,
    }
}

pin_project! {
    #[project = DecisionProjection]
    enum Decision<F, R> {
        Called { #[pin] call: F },
        Refused { response: Option<Response<R>> },
    }
}

impl<F, R, E> Future for PeerPolicyFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().decision.project() {
            DecisionProjection::Called { call } => call.poll(cx),
            DecisionProjection::Refused { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending,
            },
        }
    }
}

impl<F, R> fmt::Debug for PeerPolicyFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPolicyFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_method_goes_before_its_service_and_the_rest_is_denied() {
        let layer = PeerPolicyLayer::new()
            .service_named("a.B", PeerPolicy::uids([1]))
            .method_named("a.B", "Special", PeerPolicy::uids([2]))
            .method_named("a.C", "Only", PeerPolicy::uids([3]));
        let allowed = |path: &str, uid| {
            let mut request = Request::builder().uri(path).body(()).unwrap();
            request.extensions_mut().insert(PeerIdentity::invented(uid, 100, &[]));
            layer.0.allow(&request)
        };
        for (path, uid) in [("/a.B/X", 1), ("/a.B/Special", 2), ("/a.C/Only", 3), ("/a.B/X?q", 1)] {
            assert!(allowed(path, uid), "{path}");
            assert!(!allowed(path, 4), "{path}");
        }
        for path in ["/a.B/Special", "/a.C/Only", "/a.C/X", "/a.B", "/a/B/X", "/a.B2/X", "/", "*"] {
            assert!(!allowed(path, 1), "{path}");
        }
        let nobody = Request::builder().uri("/a.B/X").body(()).unwrap();
        assert!(!layer.0.allow(&nobody));
    }
}
