//! [`ServeError`]: why a server could not serve.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::address::Address;
use crate::grpc::BoxError;

/// Why a server could not serve. `Display` and `Debug` print the same complete text, so that an
/// error returned from `main` is readable.
#[derive(Clone)]
pub struct ServeError {
    kind: ServeErrorKind,
    address: Option<Address>,
    service: Option<&'static str>,
    /// A method that the service does not have, and those that it has.
    method: Option<(String, &'static [&'static str])>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kinds of [`ServeError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServeErrorKind {
    /// No listener was given.
    NoListener,
    /// Two services have the same name.
    DuplicateService,
    /// The policy of methods ([`Server::method_policy`](crate::Server::method_policy)) names a method
    /// that the service does not have.
    UnknownMethod,
    /// There is a peer policy, but TCP does not identify its peers.
    PolicyOverTcp,
    /// An abstract socket has no file whose mode could keep other users out, and the server has no
    /// policy ([`Server::peer_policy`](crate::Server::peer_policy)).
    NoPolicy,
    /// The policy refuses the peer of the one connection to serve, or that peer is unknown.
    PeerRefused,
    /// The one connection to serve failed.
    Connection,
}

impl ServeError {
    pub(super) fn new(kind: ServeErrorKind) -> Self {
        Self { kind, address: None, service: None, method: None, source: None }
    }

    pub(super) fn at(kind: ServeErrorKind, address: &Address) -> Self {
        Self { address: Some(address.clone()), ..Self::new(kind) }
    }

    pub(super) fn duplicate(service: &'static str) -> Self {
        Self { service: Some(service), ..Self::new(ServeErrorKind::DuplicateService) }
    }

    pub(super) fn unknown_method(
        service: &'static str,
        method: &str,
        methods: &'static [&'static str],
    ) -> Self {
        let method = Some((method.to_owned(), methods));
        Self { service: Some(service), method, ..Self::new(ServeErrorKind::UnknownMethod) }
    }

    pub(super) fn connection(source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into().into()), ..Self::new(ServeErrorKind::Connection) }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ServeErrorKind {
        self.kind
    }

    /// Returns the address that the error is about, if there is one.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = &self.address {
            write!(f, "{address}: ")?;
        }
        match self.kind {
            ServeErrorKind::NoListener => {
                f.write_str("nothing to serve on: give at least one listener")
            }
            ServeErrorKind::DuplicateService => {
                let service = self.service.unwrap_or_default();
                write!(f, "two services are named {service}: add only one of them to the server")
            }
            ServeErrorKind::UnknownMethod => {
                let service = self.service.unwrap_or_default();
                let (method, methods) =
                    self.method.as_ref().map_or(("", &[][..]), |it| (&it.0, it.1));
                let methods = methods.join(", ");
                write!(
                    f,
                    "Server::method_policy names the method {method:?}, which {service} does not \
                     have: write one of {methods}"
                )
            }
            ServeErrorKind::PolicyOverTcp => f.write_str(
                "a peer policy cannot hold over TCP, which does not tell who connects: use a Unix \
                 socket, or leave out Server::peer_policy and method_policy",
            ),
            ServeErrorKind::NoPolicy => f.write_str(
                "every process of this network namespace could connect to an abstract socket: set \
                 Server::peer_policy or use a path, such as unix:/run/app.sock",
            ),
            ServeErrorKind::PeerRefused => {
                f.write_str("Server::peer_policy does not let this connection's peer in")
            }
            ServeErrorKind::Connection => match &self.source {
                Some(source) => source.fmt(f),
                None => f.write_str("the connection failed"),
            },
        }
    }
}

impl fmt::Debug for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for ServeError {
    /// Returns the source of the cause, since the text has the cause already.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().and_then(Error::source)
    }
}
