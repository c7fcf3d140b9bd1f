//! [`Methods`]: what a generated server has, and [`Call`]: what its methods answer.

use std::future::Future;
use std::sync::Arc;

use prost::Message;
use tonic::codegen::tokio_stream::Stream;
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};

use super::bound::Bound;
use super::options::ServerOptions;

/// A running method with one response.
pub(super) type BoundUnary<'a, T, R> = Bound<'a, T, Result<Response<R>, Status>>;

/// A generated server, which knows its methods.
pub trait Methods: NamedService + Clone + Send + Sync + 'static {
    /// The names of its methods, as in the proto file.
    const NAMES: &'static [&'static str];

    /// Answers a call by the method of this name.
    fn answer<C: Call>(&self, method: &str, call: C) -> C::Answer;
}

/// A call that has arrived, in any form. Each function answers it by a method of its kind.
pub trait Call: Sized {
    /// The type of the answer.
    type Answer;

    /// Answers by a method of `service` with one request and one response.
    fn unary<T, Q, R, H>(
        self,
        options: &ServerOptions,
        service: &Arc<T>,
        handler: H,
    ) -> Self::Answer
    where
        T: Send + Sync + 'static,
        Q: Message + Default + 'static,
        R: Message + 'static,
        H: for<'a> FnOnce(&'a Arc<T>, Request<Q>) -> BoundUnary<'a, T, R> + Send + 'static;

    /// Answers by a method with one request and a stream of responses.
    fn server_streaming<Q, R, S, H, F>(self, options: &ServerOptions, handler: H) -> Self::Answer
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        H: FnOnce(Request<Q>) -> F + Send + 'static,
        F: Future<Output = Result<Response<S>, Status>> + Send + 'static;

    /// Answers by a method with a stream of requests and one response.
    fn client_streaming<Q, R, H, F>(self, options: &ServerOptions, handler: H) -> Self::Answer
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        H: FnOnce(Request<Streaming<Q>>) -> F + Send + 'static,
        F: Future<Output = Result<Response<R>, Status>> + Send + 'static;

    /// Answers by a method with streams in both directions.
    fn streaming<Q, R, S, H, F>(self, options: &ServerOptions, handler: H) -> Self::Answer
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        H: FnOnce(Request<Streaming<Q>>) -> F + Send + 'static,
        F: Future<Output = Result<Response<S>, Status>> + Send + 'static;

    /// Answers that there is no method of this name.
    fn unimplemented(self) -> Self::Answer;
}
