//! One HTTP/2 connection on one socket, for server and channel alike. hyper's for now; no type of
//! it leaves this file.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::server::{BoxError, GrpcService};

/// Serves one connection until the client closes it or, after `shutdown`, until its calls ended.
pub(crate) async fn serve_connection<S, B, T>(
    stream: T,
    service: S,
    shutdown: impl Future<Output = ()>,
) -> Result<(), BoxError>
where
    S: GrpcService<B>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = TowerToHyperService::new(
        service.map_request(|request: Request<Incoming>| request.map(Body::new)),
    );
    let mut connection = pin!(
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = shutdown => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// The client's end of a connection. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Sender(hyper::client::conn::http2::SendRequest<Body>);

/// Why a call got no response.
pub(crate) enum SendError {
    /// The request was not sent, and can be on another connection.
    NotSent(Request<Body>),
    /// It may have been processed.
    Failed(Status),
}

impl Sender {
    /// Starts HTTP/2 on a connected stream. A task of its own drives it until all clones are gone
    /// or the connection is lost.
    pub(crate) async fn start<T>(stream: T) -> Result<Self, BoxError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection failed");
            }
        });
        Ok(Self(sender))
    }

    /// Whether the connection can take another call, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        !self.0.is_closed()
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, SendError> {
        match self.0.try_send_request(request).await {
            Ok(response) => Ok(response.map(ResponseBody)),
            Err(mut error) => match error.take_message() {
                Some(request) => Err(SendError::NotSent(request)),
                None => Err(SendError::Failed(status(&error.into_error()))),
            },
        }
    }
}

/// The body of a [`Channel`](crate::Channel)'s response. Its errors are [`Status`]es.
#[derive(Debug)]
pub struct ResponseBody(Incoming);

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(|error| status(&error))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

fn status(error: &hyper::Error) -> Status {
    let mut message = format!("the connection failed: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    let code = if error.is_user() { Code::Internal } else { Code::Unavailable };
    Status::new(code, message)
}
