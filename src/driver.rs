//! One HTTP/2 connection on one socket, for server and channel alike. hyper's for now; no type of
//! it leaves this file.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

/// What a [`Server`](crate::Server)'s layers must make of its services: a cloneable tower service
/// that answers HTTP requests. Implemented for every service that fits; there is nothing to
/// implement.
pub trait GrpcService<B>:
    Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S, B> GrpcService<B> for S where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// The error type of tower and http-body.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

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
pub(crate) struct Sender {
    inner: hyper::client::conn::http2::SendRequest<Body>,
    /// Set when what was received turned out to be no HTTP/2.
    no_http2: Arc<OnceLock<String>>,
}

/// Why a call got no response.
pub(crate) enum SendError {
    /// The request was not sent, and can be on another connection.
    NotSent(Box<Request<Body>>),
    /// It may have been processed.
    Failed(Status),
    /// What answers is no HTTP/2.
    NotHttp2(BoxError),
}

impl Sender {
    /// Starts HTTP/2 on a connected stream. A task of its own drives it until all clones are gone
    /// or the connection is lost.
    pub(crate) async fn start<T>(stream: T) -> Result<Self, BoxError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let no_http2 = Arc::new(OnceLock::new());
        let stream = Checked { stream, head: Vec::new(), found: Arc::clone(&no_http2) };
        let (inner, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection failed");
            }
        });
        Ok(Self { inner, no_http2 })
    }

    /// Whether the connection can take another call, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        !self.inner.is_closed()
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, SendError> {
        match self.inner.try_send_request(request).await {
            Ok(response) => Ok(response.map(ResponseBody)),
            Err(mut error) => Err(match (self.no_http2.get(), error.take_message()) {
                (Some(error), _) => SendError::NotHttp2(error.clone().into()),
                (None, Some(request)) => SendError::NotSent(Box::new(request)),
                (None, None) => SendError::Failed(status(&error.into_error())),
            }),
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

/// A client's stream that looks at the first frame: a server starts with SETTINGS on stream 0
/// (RFC 9113 §3.4), and what starts otherwise is no HTTP/2.
struct Checked<T> {
    stream: T,
    /// The first frame's header, as far as it has come.
    head: Vec<u8>,
    found: Arc<OnceLock<String>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Checked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        const HEAD: usize = 9;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.head.len() < HEAD {
            let missing = HEAD - self.head.len();
            let read = &buf.filled()[before..];
            self.head.extend(read.iter().take(missing));
            if self.head.len() == HEAD && (self.head[3] != 4 || self.head[5..] != [0; 4]) {
                let start = self.head.escape_ascii();
                let _ = self.found.set(format!("its first bytes are \"{start}\""));
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Checked<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

fn status(error: &hyper::Error) -> Status {
    let code = if error.is_user() { Code::Internal } else { Code::Unavailable };
    Status::new(code, format!("the connection failed: {}", with_causes(error)))
}

fn with_causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
