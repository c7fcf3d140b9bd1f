//! [`UnixConn`]: a connected Unix socket that is woken when there is something to read, and when it
//! can be written to only while a write waits for that.
//!
//! tokio's own stream always asks epoll for both. On a Unix socket each message that the peer reads
//! makes room, and so would wake whoever sent it for nothing: two wakes for each call rather than
//! one (`unix_write_space` in Linux' net/unix/af_unix.c; epoll(7)).

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

/// After so many writes that went through at once, a socket that was full is no longer watched.
const CALM: u8 = 64;

#[derive(Debug)]
pub(super) struct UnixConn {
    /// `None` only after watching it anew failed.
    socket: Option<AsyncFd<UnixStream>>,
    /// Whoever waits to read, to be known to the next registration.
    reader: Option<Waker>,
    /// Writes to go until the socket is no longer watched for room. 0: it is not.
    watched: u8,
}

impl UnixConn {
    /// Takes a stream that does not block.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        let socket = register(stream, Interest::READABLE)?;
        Ok(Self { socket: Some(socket), reader: None, watched: 0 })
    }

    fn socket(&self) -> io::Result<&AsyncFd<UnixStream>> {
        self.socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Registers the socket anew, with the waker of whoever waits to read.
    fn watch(&mut self, interest: Interest) -> io::Result<()> {
        let Some(socket) = self.socket.take() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let socket = self.socket.insert(register(socket.into_inner(), interest)?);
        if let Some(reader) = &self.reader
            && socket.poll_read_ready(&mut Context::from_waker(reader)).is_ready()
        {
            reader.wake_by_ref();
        }
        Ok(())
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(socket) = &self.socket else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        loop {
            let Poll::Ready(ready) = socket.poll_read_ready(cx) else {
                if self.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
                    self.reader = Some(cx.waker().clone());
                }
                return Poll::Pending;
            };
            let mut ready = ready?;
            let room = buf.remaining();
            match read(ready.get_inner(), buf) {
                Ok(octets) => {
                    if octets > 0 && octets < room {
                        // All there was: what comes next is told anew (epoll(7), edge-triggered).
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |mut stream| stream.write(buf))
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |mut stream| stream.write_vectored(bufs))
    }

    /// Tries at once; only a socket that is full is waited for.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(self.socket()?.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                written => {
                    if self.watched > 0 {
                        self.watched -= 1;
                        if self.watched == 0 {
                            self.watch(Interest::READABLE)?;
                        }
                    }
                    return Poll::Ready(written);
                }
            }
            if self.watched == 0 {
                self.watch(Interest::READABLE | Interest::WRITABLE)?;
            }
            self.watched = CALM;
            // What was known before this write is outdated; what is known now calls for another.
            ready!(self.socket()?.poll_write_ready(cx))?.clear_ready();
        }
    }

    #[cfg(feature = "tonic-transport")]
    pub(super) fn try_clone(&self) -> io::Result<UnixStream> {
        self.socket()?.get_ref().try_clone()
    }

    pub(super) fn shutdown(&mut self) -> io::Result<()> {
        self.socket()?.get_ref().shutdown(Shutdown::Write)
    }
}

thread_local! {
    /// Read into where little is expected: to copy that is cheaper than to clear a buffer for more.
    static SMALL: RefCell<[u8; 16 * 1024]> = const { RefCell::new([0; 16 * 1024]) };
}

fn read(mut stream: &UnixStream, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    SMALL.with_borrow_mut(|small| {
        if let Some(small) = small.get_mut(..buf.remaining()) {
            let octets = stream.read(small)?;
            buf.put_slice(&small[..octets]);
            return Ok(octets);
        }
        let octets = stream.read(buf.initialize_unfilled())?;
        buf.advance(octets);
        Ok(octets)
    })
}

#[allow(
    deprecated,
    reason = "deprecated in tokio 1.54 for types whose `as_raw_fd` may lie, in favour of an unsafe \
              function; a `UnixStream` owns its one descriptor"
)]
fn register(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(stream, interest)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    fn pair() -> (UnixConn, UnixConn) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (UnixConn::new(ours).unwrap(), UnixConn::new(theirs).unwrap())
    }

    async fn read_from(conn: &mut UnixConn, len: usize) -> Vec<u8> {
        let mut octets = vec![0; len];
        let mut buf = ReadBuf::new(&mut octets);
        poll_fn(|cx| conn.poll_read(cx, &mut buf)).await.unwrap();
        let len = buf.filled().len();
        octets.truncate(len);
        octets
    }

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn the_peer_reading_wakes_nobody() {
        let (mut ours, mut theirs) = pair();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let mut octets = [0; 16];
        for round in 0..10 {
            assert!(ours.poll_read(&mut cx, &mut ReadBuf::new(&mut octets)).is_pending());
            assert!(matches!(ours.poll_write(&mut cx, b"ping"), Poll::Ready(Ok(4))));
            assert_eq!(read_from(&mut theirs, 16).await, b"ping");
            // The runtime has looked at every event by the time that this one has come.
            poll_fn(|cx| theirs.poll_write(cx, b"pong")).await.unwrap();
            while wakes.0.load(Ordering::Relaxed) == round {
                tokio::task::yield_now().await;
            }
            assert_eq!(read_from(&mut ours, 16).await, b"pong");
            assert_eq!(wakes.0.load(Ordering::Relaxed), round + 1);
        }
    }

    #[tokio::test]
    async fn a_full_socket_is_written_to_when_there_is_room_and_read_from_meanwhile() {
        let (mut ours, mut theirs) = pair();
        let chunk = vec![7; 64 * 1024];
        for _ in 0..3 {
            let mut written = 0;
            let noop = &mut Context::from_waker(Waker::noop());
            while let Poll::Ready(octets) = ours.poll_write(noop, &chunk) {
                written += octets.unwrap();
            }
            // Who waited to read before the socket was watched anew is woken after it, too.
            let (got, sent) = tokio::join!(
                read_from(&mut ours, 16),
                poll_fn(|cx| theirs.poll_write(cx, b"hello")),
            );
            assert_eq!((got.as_slice(), sent.unwrap()), (&b"hello"[..], 5));
            let more = poll_fn(|cx| ours.poll_write(cx, &chunk));
            let drain = async {
                let mut left = written;
                while left > 0 {
                    left -= read_from(&mut theirs, left).await.len();
                }
            };
            let (more, ()) = tokio::join!(more, drain);
            let mut left = more.unwrap();
            while left > 0 {
                left -= read_from(&mut theirs, left).await.len();
            }
            for _ in 0..2 * u32::from(CALM) {
                poll_fn(|cx| ours.poll_write(cx, b"x")).await.unwrap();
                assert_eq!(read_from(&mut theirs, 1).await, b"x");
            }
            assert_eq!(ours.watched, 0);
        }
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_after_the_socket_was_watched_anew() {
        let (mut ours, mut theirs) = pair();
        let chunk = vec![7; 64 * 1024];
        let mut octets = [0; 16];
        let mut buf = ReadBuf::new(&mut octets);
        let mut sent = false;
        poll_fn(|cx| {
            if !sent {
                assert!(ours.poll_read(cx, &mut buf).is_pending());
                while ours.poll_write(cx, &chunk).is_ready() {}
                assert!(matches!(theirs.poll_write(cx, b"hello"), Poll::Ready(Ok(5))));
                sent = true;
                return Poll::Pending;
            }
            ours.poll_read(cx, &mut buf)
        })
        .await
        .unwrap();
        assert_eq!(buf.filled(), b"hello");
    }

    #[tokio::test]
    async fn the_end_is_read_after_what_came_before_it() {
        let (mut ours, mut theirs) = pair();
        poll_fn(|cx| theirs.poll_write(cx, b"last")).await.unwrap();
        theirs.shutdown().unwrap();
        assert_eq!(read_from(&mut ours, 16).await, b"last");
        assert_eq!(read_from(&mut ours, 16).await, b"");
    }
}
