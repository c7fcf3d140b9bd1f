//! The bytes that the peer sent before it closed are read, even if a write is the first to notice
//! the end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{frame, settings};
use crate::descriptors::OfCall;
use crate::driver::{BodyRequest, CloseReason, Options, Sender, Sleeping, StreamError};
use crate::http2::ErrorCode;

/// A stream whose peer has closed it when the first write comes. The write fails, and what the peer
/// sent before can be read from then on.
struct Closed {
    said: io::Cursor<Vec<u8>>,
    written_to: Arc<AtomicBool>,
    reader: Option<Waker>,
}

impl AsyncRead for Closed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.written_to.load(Ordering::SeqCst) {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.said).poll_read(cx, buf)
    }
}

impl AsyncWrite for Closed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written_to.store(true, Ordering::SeqCst);
        self.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// Returns what becomes of a call to a server that has sent `said` and closed.
async fn call(said: Vec<u8>) -> Result<http::StatusCode, StreamError> {
    let written_to = Arc::new(AtomicBool::new(false));
    let io = Closed { said: io::Cursor::new(said), written_to, reader: None };
    let sender = Sender::start(Sleeping(io), Options::default());
    let path = "/a.B/C".parse().unwrap();
    let body = tonic::body::Body::new(http_body_util::Full::new(Bytes::from_static(b"hi")));
    let mut request =
        BodyRequest::new(Method::POST, path, HeaderMap::new(), OfCall::default(), body);
    let cx = Context::from_waker(Waker::noop());
    let Ok(call) = sender.send(&mut request, b"localhost", [None; 2], &cx) else {
        panic!("not sent")
    };
    call.await.map(|received| received.head.status)
}

#[tokio::test]
async fn a_go_away_is_heard_and_its_calls_were_not_processed() {
    let mut payload = vec![0, 0, 0, 0, 0, 0, 0, 0xb];
    payload.extend_from_slice(b"too many connections");
    let error = call([settings(), frame(7, 0, 0, &payload)].concat()).await.unwrap_err();
    assert!(error.may_be_sent_again(), "{error}");
    match error {
        StreamError::ConnectionEnded {
            close_reason: CloseReason::GoneAway { code, debug },
            ..
        } => {
            assert_eq!((code, &debug[..]), (ErrorCode::ENHANCE_YOUR_CALM, "too many connections"));
        }
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_whole_response_is_heard() {
    // END_HEADERS and END_STREAM; `:status: 200` of HPACK's static table.
    let response = frame(1, 5, 1, &[0x88]);
    assert_eq!(call([settings(), response].concat()).await.unwrap(), http::StatusCode::OK);
}

#[tokio::test]
async fn a_peer_that_said_nothing_has_broken_the_pipe() {
    let error = call(settings()).await.unwrap_err();
    match error {
        StreamError::ConnectionEnded {
            close_reason: CloseReason::Io(error),
            unprocessed: true,
        } => {
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
        error => panic!("{error:?}"),
    }
}
