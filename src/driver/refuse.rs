//! [`refuse`]: the end of a connection that is not served at all.

use std::future::poll_fn;
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::closing::LAST_WORDS;
use super::reader::READ;
use super::socket::Socket;
use super::timer::now;
use crate::http2::{Config, Connection, ErrorCode};

/// Tells a peer that it is not served, and closes the connection. The peer may already have sent
/// its first request. What is there is read, because unread data would turn the end into a reset.
pub(crate) async fn refuse<T>(mut io: T, why: &'static str)
where
    T: Socket,
{
    let mut h2 = Connection::server(Config::default(), now());
    h2.close(ErrorCode::ENHANCE_YOUR_CALM, why);
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(h2.contiguous().unwrap_or_default());
    let said = async {
        io.write_all(&bytes).await?;
        io.shutdown().await
    };
    // So few bytes always fit into a new socket.
    if let Ok(Ok(())) = tokio::time::timeout(LAST_WORDS, said).await {
        bytes.clear();
        bytes.reserve(READ.0);
        let _ = poll_fn(|cx| Poll::Ready(io.poll_receive(cx, &mut bytes, READ.0))).await;
    }
}
