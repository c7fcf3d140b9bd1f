//! The end of a connection: this end's last frames, the peer's last frames, and how the connection
//! ended.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::connection_task::ConnectionTask;
use super::duties::Duties;
use super::error::CloseReason;
use super::reader::ReadOutcome;
use super::shared::{Shared, State};
use super::socket::Socket;
use super::turn::DriverPhase;
use crate::http2::{Cause, ConnectionError, ErrorCode, Notice, ReceiveOutcome};

/// How long the reason for a connection's end may take to reach a peer that was refused or broke a rule.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(100);

/// How much is read at once when nothing is processed any more.
const LINGER_READ: usize = 16 * 1024;

/// How long a socket stays open until its peer has closed its own end, and how many bytes are read and
/// dropped meanwhile. A socket that is closed over unread data, or gets more after that, resets the
/// peer's end: the bytes that were sent last could be lost (over TCP), or the peer's next write fails
/// before it has read them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    bytes: usize,
    time: Duration,
}

impl Linger {
    /// The peer need only read the reason.
    pub(super) const AFTER_ERROR: Self = Self { bytes: 256 * 1024, time: LAST_WORDS };

    /// All calls were answered, perhaps before their requests had ended. A client sends as much of such a
    /// request as its windows allow.
    pub(super) const AFTER_CALLS: Self =
        Self { bytes: 16 * 1024 * 1024, time: Duration::from_secs(1) };
}

/// How long a stream may take to shut down. One that keeps bytes until they are flushed waits for a peer
/// that reads them.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// How many times the socket is read after a write has failed.
const LAST_READS: u32 = 64;

/// How a server's connection has ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client closed it, or the server shuts down.
    Closed,
    /// It had no call for longer than its idle timeout.
    Idle,
    /// The server had no memory left for it.
    NoRoom,
}

impl<T, R> ConnectionTask<T, R>
where
    T: Socket,
    R: Duties,
{
    /// Lets only outgoing bytes be written from now on, and nothing be read.
    #[cold]
    pub(super) fn close_after(&mut self, error: ConnectionError, state: &mut State) {
        if matches!(self.phase, DriverPhase::Closing | DriverPhase::Over) {
            return;
        }
        self.phase = DriverPhase::Closing;
        self.linger = Some(Linger::AFTER_ERROR);
        // Everything that was due is done. The next timeout is that of the last bytes.
        self.timer.set(None, false);
        self.reader.close();
        self.unparsed = false;
        state.disconnect(match error.cause {
            Cause::Local => CloseReason::Closed,
            Cause::Protocol if state.h2.is_client() && !state.ready => CloseReason::NotHttp2(error),
            _ => CloseReason::Http2(error),
        });
    }

    /// Reads what the peer sent before it closed, because writing has failed. That tells more than
    /// the error: a GOAWAY with its reason, or complete responses.
    pub(super) fn hear_out(&mut self, cx: &mut Context<'_>, state: &mut State, now: Instant) {
        if self.phase != DriverPhase::Open {
            return;
        }
        for _ in 0..LAST_READS {
            let ReadOutcome::Bytes = self.reader.read_rest(&mut self.io, cx) else {
                break;
            };
            self.receive_sets(state);
            while state.h2.receive(self.reader.buffer(), now) == Ok(ReceiveOutcome::Some) {}
            if state.h2.failure().is_some() {
                break;
            }
        }
        while let Some(event) = state.h2.poll_event() {
            self.duties.event(state, event);
        }
    }

    /// Closes the socket in such a way that the last bytes still arrive.
    pub(super) async fn close(&mut self) {
        self.wakes.drain(..).for_each(Waker::wake);
        let shutdown = tokio::time::timeout(SHUTDOWN, self.io.shutdown()).await;
        let Some(Linger { bytes, time }) = self.linger else { return };
        if !matches!(shutdown, Ok(Ok(()))) {
            return;
        }
        let drain = async {
            let mut left = bytes;
            while left > 0 {
                match poll_fn(|cx| self.receive_and_drop(cx)).await {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => left = left.saturating_sub(bytes),
                }
            }
        };
        let _ = tokio::time::timeout(time, drain).await;
    }

    /// While nothing comes there is no buffer: many connections may end at once.
    fn receive_and_drop(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut rest = BytesMut::with_capacity(LINGER_READ);
        self.io.poll_receive(cx, &mut rest, usize::MAX)
    }
}

impl Shared {
    /// Lets calls in flight finish, and takes no more.
    pub(super) fn shut_down(&self, notice: Notice) {
        let mut state = self.lock();
        if state.ready {
            state.h2.go_away(notice);
        } else {
            // The server does not wait for a peer that has not even sent its SETTINGS.
            state.h2.close(ErrorCode::NO_ERROR, "the server is shutting down");
        }
    }

    /// Returns how a connection ended without an error.
    pub(super) fn ended(&self, is_shutting_down: bool) -> Ended {
        let state = self.lock();
        match state.h2.failure() {
            Some(error) if error.code == ErrorCode::ENHANCE_YOUR_CALM => Ended::NoRoom,
            _ if !is_shutting_down && state.h2.has_announced_end() => Ended::Idle,
            _ => Ended::Closed,
        }
    }
}

/// Marks a connection as ended when its driver is dropped for any reason.
pub(super) struct ClosedOnDrop(pub(super) Arc<Shared>);

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.0.disconnect(CloseReason::Closed);
    }
}
