//! What may happen while the socket takes bytes: on a runtime of several threads the lock is free then.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, DuplexStream, ReadBuf,
};
use tonic::body::Body;

use super::frames::{frame, settings};
use super::{put, send};
use crate::driver::{Options, Phase, Sender, Sleeping};

/// Runs what it is given while the next bytes are written.
struct Interrupted {
    stream: DuplexStream,
    next: mpsc::Receiver<Box<dyn FnOnce() + Send>>,
}

impl AsyncRead for Interrupted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Interrupted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Ok(next) = self.next.try_recv() {
            // Not in this thread, which would wait for itself if it held the lock.
            let (done, is_done) = mpsc::channel();
            std::thread::spawn(move || {
                next();
                done.send(())
            });
            is_done.recv_timeout(Duration::from_secs(20)).expect("the lock is held");
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Returns a client, what is to happen during its next write, and the other end of its stream.
async fn client() -> (Sender, mpsc::Sender<Box<dyn FnOnce() + Send>>, DuplexStream) {
    let (stream, mut server) = tokio::io::duplex(1 << 20);
    let (interrupt, next) = mpsc::channel();
    let sender = Sender::start(Sleeping::new(Interrupted { stream, next }), Options::default());
    // With the acknowledgement of the client's, no timer wakes the connection.
    let answer = [settings(), frame(4, 1, 0, &[])].concat();
    server.write_all(&answer).await.unwrap();
    sender.ready().await.unwrap();
    (sender, interrupt, server)
}

/// Reads until so many frames of a kind have come.
async fn read_frames(stream: &mut DuplexStream, kind: u8, mut count: usize) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    while count > 0 {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        count -= usize::from(head[3] == kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_are_added_and_written_too() {
    let (sender, interrupt, mut server) = client().await;
    let (sent_call, sent) = mpsc::channel();
    let other = sender.clone();
    interrupt.send(Box::new(move || sent_call.send(send(&other, Body::empty())).unwrap())).unwrap();
    let first = send(&sender, Body::empty());
    // HEADERS
    read_frames(&mut server, 1, 2).await;
    drop((first, sent.recv().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_last_sender_may_be_dropped() {
    let (sender, interrupt, mut server) = client().await;
    let (last, sender_to_drop) = mpsc::channel::<Sender>();
    interrupt.send(Box::new(move || drop(sender_to_drop.recv().unwrap()))).unwrap();
    put(&sender, Body::empty());
    last.send(sender).unwrap();
    // GOAWAY, although nothing comes from the server that would wake the connection.
    let go_away = read_frames(&mut server, 7, 1);
    tokio::time::timeout(Duration::from_secs(20), go_away).await.expect("the connection sleeps");
}

/// Keeps what is written until it is flushed, which takes a while.
struct Buffering {
    stream: BufWriter<DuplexStream>,
    flushes: u32,
}

impl AsyncRead for Buffering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Buffering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        if !self.flushes.is_multiple_of(3) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_flushed() {
    let (stream, mut server) = tokio::io::duplex(1 << 20);
    let stream = Buffering { stream: BufWriter::new(stream), flushes: 0 };
    let sender = Sender::start(Sleeping::new(stream), Options::default());
    server.write_all(&[settings(), frame(4, 1, 0, &[])].concat()).await.unwrap();
    sender.ready().await.unwrap();
    let call = send(&sender, Body::empty());
    let headers = read_frames(&mut server, 1, 1);
    tokio::time::timeout(Duration::from_secs(20), headers).await.expect("nothing was flushed");
    drop(call);
}

/// A stream that keeps its last bytes, because its peer reads nothing.
struct NeverShut(DuplexStream);

impl AsyncRead for NeverShut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for NeverShut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_write_its_last_bytes_ends() {
    let (stream, mut server) = tokio::io::duplex(1 << 20);
    let sender = Sender::start(Sleeping::new(NeverShut(stream)), Options::default());
    server.write_all(&[settings(), frame(4, 1, 0, &[])].concat()).await.unwrap();
    sender.ready().await.unwrap();
    drop(sender);
    let mut sent = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), server.read_to_end(&mut sent)).await;
    ended.expect("the connection is dropped").unwrap();
}

#[tokio::test]
async fn a_task_that_no_longer_waits_for_a_phase_leaves_nothing() {
    let (sender, _interrupt, _server) = client().await;
    for _ in 0..3 {
        let mut waits = std::pin::pin!(sender.phase_after(Phase::Ready));
        assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(sender.watchers(), 1);
    }
    assert_eq!(sender.watchers(), 0);
}
