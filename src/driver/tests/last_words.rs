//! The bytes that the peer sent before it closed are read, even if a write is the first to notice
//! the end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::frames::{frame, settings};
use super::send;
use crate::address::Address;
use crate::driver::{CloseReason, Options, Sender, Sleeping, StreamError};
use crate::http2::ErrorCode;
use crate::socket::connect_within;

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
    let sender = Sender::start(Sleeping::new(io), Options::default());
    let body = tonic::body::Body::new(http_body_util::Full::new(Bytes::from_static(b"hi")));
    send(&sender, body).await.1.map(|received| received.head.status)
}

/// Returns SETTINGS, and a GOAWAY with a reason.
fn go_away() -> Vec<u8> {
    let mut payload = vec![0, 0, 0, 0, 0, 0, 0, 0xb];
    payload.extend_from_slice(b"too many connections");
    [settings(), frame(7, 0, 0, &payload)].concat()
}

fn assert_gone_away(close_reason: Option<CloseReason>) {
    let Some(CloseReason::GoneAway { code, debug }) = close_reason else {
        panic!("{close_reason:?}");
    };
    assert_eq!((code, &debug[..]), (ErrorCode::ENHANCE_YOUR_CALM, "too many connections"));
}

#[tokio::test]
async fn a_go_away_is_heard_and_its_calls_were_not_processed() {
    let error = call(go_away()).await.unwrap_err();
    assert!(error.may_be_sent_again(), "{error}");
    let StreamError::ConnectionEnded { close_reason, .. } = error else { panic!("{error:?}") };
    assert_gone_away(Some(close_reason));
}

/// A real socket that the runtime does not know to be readable when the first write fails.
#[tokio::test]
async fn a_go_away_in_a_new_socket_is_heard() {
    let directory = tempfile::tempdir().unwrap();
    let address = Address::unix(directory.path().join("x")).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(address.as_path().unwrap()).unwrap();
    let conn = connect_within(&address, Duration::from_secs(20)).await.unwrap();
    let (mut server, _) = listener.accept().unwrap();
    io::Write::write_all(&mut server, &go_away()).unwrap();
    drop(server);
    let sender = Sender::start(conn, Options::default());
    assert_gone_away(sender.ready().await.unwrap_err());
}

/// Both frames come in one read, and the connection has no calls.
#[tokio::test]
async fn the_reason_of_a_go_away_right_behind_the_settings_is_told() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    theirs.write_all(&go_away()).await.unwrap();
    let sender = Sender::start(Sleeping::new(ours), Options::default());
    assert_gone_away(sender.ready().await.unwrap_err());
}

#[tokio::test]
async fn a_whole_response_is_heard() {
    // END_HEADERS and END_STREAM; `:status: 200` of HPACK's static table.
    let response = frame(1, 5, 1, &[0x88]);
    assert_eq!(call([settings(), response].concat()).await.unwrap(), http::StatusCode::OK);
}

#[tokio::test]
async fn a_server_that_speaks_no_http2_is_called_that() {
    let error = call(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await.unwrap_err();
    let StreamError::ConnectionEnded { close_reason, .. } = error else { panic!("{error:?}") };
    assert!(matches!(close_reason, CloseReason::NotHttp2(_)), "{close_reason:?}");
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
