//! How calls in flight are divided into writes: so that each end has some to work on.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tonic::body::Body;

use super::frames::{frame, settings};
use super::{Answers, send};
use crate::driver::{
    BusyPoll, LiveHandlers, Memory, Options, Owner, Sender, Sleeping, Socket, serve,
};
use crate::socket::SocketSender;

const CALLS: u32 = 64;

/// Notes how many heads each write has. All frames of these tests are written whole.
struct Counted {
    stream: Sleeping<DuplexStream>,
    heads: Arc<Mutex<Vec<u32>>>,
    shares_one_cpu: bool,
}

impl Counted {
    /// The stream, its other end, and the heads of each write that has some.
    fn new(shares_one_cpu: bool) -> (Self, DuplexStream, Arc<Mutex<Vec<u32>>>) {
        let (stream, other) = tokio::io::duplex(1 << 20);
        let heads = Arc::<Mutex<Vec<u32>>>::default();
        let counted =
            Self { stream: Sleeping::new(stream), heads: Arc::clone(&heads), shares_one_cpu };
        (counted, other, heads)
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

impl Socket for Counted {
    /// It polls only if the options say so.
    const HAS_DESCRIPTOR: bool = true;

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_receive(cx, input, most)
    }

    fn receive(&mut self, input: &mut BytesMut, most: usize) -> io::Result<usize> {
        match self.poll_receive(&mut Context::from_waker(Waker::noop()), input, most) {
            Poll::Ready(received) => received,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn sender(&self) -> Option<SocketSender> {
        None
    }

    fn shares_one_cpu(&self) -> bool {
        self.shares_one_cpu
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

/// Returns options with busy polling for a moment.
fn polling() -> Options {
    let busy_poll = Some(BusyPoll::new(Duration::from_micros(10)));
    Options { busy_poll, ..Options::default() }
}

/// Asserts how many responses each write of a server has. A turn that takes long ends early, so on a
/// busy machine a few attempts may end otherwise.
async fn assert_writes_of_a_server(options: Options, shares_one_cpu: bool, expected: &[u32]) {
    let mut last = Vec::new();
    for _ in 0..20 {
        last = writes_of_a_server(options, shares_one_cpu).await;
        if last == expected {
            return;
        }
    }
    assert_eq!(last, expected);
}

async fn writes_of_a_server(options: Options, shares_one_cpu: bool) -> Vec<u32> {
    let (stream, mut client, heads) = Counted::new(shares_one_cpu);
    let user = Memory::new(1 << 30, 1 << 30).user(Owner::Server);
    let serving = serve(
        stream,
        Answers::default(),
        options,
        user,
        LiveHandlers::new().add(),
        tokio_stream::pending(),
    );
    let serving = tokio::spawn(serving);
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(settings());
    for call in 0..CALLS {
        // END_HEADERS and END_STREAM; of HPACK's static table: GET, http, /, and no authority.
        sent.extend(frame(1, 5, 2 * call + 1, &[0x82, 0x86, 0x84]));
    }
    client.write_all(&sent).await.unwrap();
    read_heads(&mut client, CALLS).await;
    serving.abort();
    std::mem::take(&mut heads.lock().unwrap())
}

/// Returns how many requests each write of a client has, of callers that wait for a response before
/// they make the next call.
async fn writes_of_a_client(options: Options, shares_one_cpu: bool) -> Vec<u32> {
    let (stream, mut server, heads) = Counted::new(shares_one_cpu);
    let sender = Sender::start(stream, options);
    server.write_all(&settings()).await.unwrap();
    sender.ready().await.unwrap();
    for _ in 0..CALLS {
        let sender = sender.clone();
        tokio::spawn(async move {
            for _ in 0..2 {
                send(&sender, Body::empty()).await.1.unwrap();
            }
        });
    }
    read_heads(&mut server, CALLS).await;
    heads.lock().unwrap().clear();
    let answers = (0..CALLS).map(|call| frame(1, 5, 2 * call + 1, &[0x88]));
    server.write_all(&answers.collect::<Vec<_>>().concat()).await.unwrap();
    read_heads(&mut server, CALLS).await;
    std::mem::take(&mut heads.lock().unwrap())
}

#[tokio::test]
async fn a_server_answers_half_of_the_calls_that_have_come() {
    assert_writes_of_a_server(Options::default(), false, &[CALLS / 2; 2]).await;
}

#[tokio::test]
async fn a_client_takes_a_quarter_of_its_calls() {
    assert_eq!(writes_of_a_client(Options::default(), false).await, [CALLS / 4; 4]);
}

#[tokio::test]
async fn on_one_cpu_all_calls_leave_by_one_write() {
    assert_writes_of_a_server(Options::default(), true, &[CALLS]).await;
    assert_eq!(writes_of_a_client(Options::default(), true).await, [CALLS]);
}

#[tokio::test]
async fn with_busy_polling_a_turn_takes_twice_as_many_calls() {
    assert_writes_of_a_server(polling(), false, &[CALLS]).await;
    assert_eq!(writes_of_a_client(polling(), false).await, [CALLS / 2; 2]);
}
