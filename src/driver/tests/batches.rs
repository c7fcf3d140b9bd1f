//! How calls in flight are divided into writes: so that each end has some to work on.

use std::future::{Ready, pending, ready};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, Method, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tonic::body::Body;

use super::frames::{frame, settings};
use crate::descriptors::{OfCall, ReceivedSet};
use crate::driver::{
    BodyRequest, Called, Handler, Incoming, Memory, Options, Owner, Sender, Sleeping, serve,
};
use crate::http2::RequestHead;

const CALLS: u32 = 64;

/// Notes how many heads each write has. All frames of these tests are written whole.
struct Counted {
    stream: DuplexStream,
    heads: Arc<Mutex<Vec<u32>>>,
}

impl Counted {
    /// The stream, its other end, and the heads of each write that has some.
    fn new() -> (Self, DuplexStream, Arc<Mutex<Vec<u32>>>) {
        let (stream, other) = tokio::io::duplex(1 << 20);
        let heads = Arc::<Mutex<Vec<u32>>>::default();
        (Self { stream, heads: Arc::clone(&heads) }, other, heads)
    }
}

/// How many whole HEADERS frames there are.
fn heads(mut bytes: &[u8]) -> u32 {
    bytes = bytes.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or(bytes);
    let mut count = 0;
    while let Some((&[a, b, c, kind], _)) = bytes.split_first_chunk::<4>() {
        let Some(rest) = bytes.get(9 + u32::from_be_bytes([0, a, b, c]) as usize..) else { break };
        count += u32::from(kind == 1);
        bytes = rest;
    }
    count
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = heads(bytes);
        if count > 0 {
            self.heads.lock().unwrap().push(count);
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.poll_write(cx, &bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Answers each request at once, by a head alone.
struct Heads;

impl Handler for Heads {
    type Body = Body;
    type Running = Ready<Response<Body>>;

    fn call(
        &mut self,
        _: Arc<RequestHead>,
        _: Incoming,
        _: Option<Box<ReceivedSet>>,
        _: Option<&mut Vec<u8>>,
    ) -> Called<Body, Self::Running> {
        Called::Unpolled(ready(Response::new(Body::empty())))
    }
}

/// Reads until so many heads have come.
async fn read_heads(stream: &mut DuplexStream, count: u32) {
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.unwrap();
        if heads(&bytes) >= count {
            return;
        }
    }
}

#[tokio::test]
async fn a_server_answers_half_of_what_it_reads_at_a_time() {
    let (stream, mut client, heads) = Counted::new();
    let user = Memory::new(1 << 30, 1 << 30).user(Owner::Server);
    let serving = serve(Sleeping(stream), Heads, Options::default(), user, pending());
    let serving = tokio::spawn(serving);
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(settings());
    for call in 0..CALLS {
        // END_HEADERS and END_STREAM; of HPACK's static table: GET, http, /, and no authority.
        sent.extend(frame(1, 5, 2 * call + 1, &[0x82, 0x86, 0x84]));
    }
    client.write_all(&sent).await.unwrap();
    read_heads(&mut client, CALLS).await;
    assert_eq!(*heads.lock().unwrap(), [CALLS / 2, CALLS / 2]);
    serving.abort();
}

#[tokio::test]
async fn a_client_sends_half_of_what_it_reads_at_a_time() {
    let (stream, mut server, heads) = Counted::new();
    let sender = Sender::start(Sleeping(stream), Options::default());
    server.write_all(&settings()).await.unwrap();
    sender.ready().await.unwrap();
    for _ in 0..CALLS {
        let sender = sender.clone();
        tokio::spawn(async move {
            for _ in 0..2 {
                let path = "/a.B/C".parse().unwrap();
                let (head, descriptors) = (HeaderMap::new(), OfCall::default());
                let body = Body::empty();
                let mut request = BodyRequest::new(Method::POST, path, head, descriptors, body);
                let sent = {
                    let cx = Context::from_waker(Waker::noop());
                    sender.send(&mut request, b"localhost", [None; 2], &cx)
                };
                let Ok(call) = sent else { panic!("not sent") };
                call.await.unwrap();
            }
        });
    }
    read_heads(&mut server, CALLS).await;
    heads.lock().unwrap().clear();
    let answers = (0..CALLS).map(|call| frame(1, 5, 2 * call + 1, &[0x88]));
    server.write_all(&answers.collect::<Vec<_>>().concat()).await.unwrap();
    read_heads(&mut server, CALLS).await;
    assert_eq!(*heads.lock().unwrap(), [CALLS / 2, CALLS / 2]);
}
