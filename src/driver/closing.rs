//! The end of a connection: what the peer still has to hear, what it still had to say, and how it ended.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::error::Lost;
use super::pass::{Pass, Phase};
use super::reader::Input;
use super::role::Role;
use super::shared::{Shared, State};
use super::socket::Socket;
use crate::http2::{ErrorCode, Received};

/// What is read and thrown away before the socket is closed, so that what was sent last is not lost
/// to a reset (a Unix or TCP socket that is closed over unread data resets the peer's end).
const LINGER: usize = 256 * 1024;

/// How long that may take.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(100);

/// Reads of what the peer had sent when writing failed, at most.
const LAST_READS: u32 = 64;

/// How a server's connection has ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client closed it, or the server shuts down.
    Closed,
    /// It had no call for longer than its idle timeout.
    Idle,
    /// The server had no room for what it held.
    NoRoom,
}

impl<T, R> Pass<T, R>
where
    T: Socket,
    R: Role,
{
    /// Writing has failed. What the peer sent before it closed says more than that does: a GOAWAY
    /// with its reason, or whole responses.
    pub(super) fn hear_out(&mut self, cx: &mut Context<'_>, state: &mut State, now: Instant) {
        if self.phase != Phase::Open {
            return;
        }
        for _ in 0..LAST_READS {
            let Input::Bytes = self.reader.read(&mut self.io, cx, false, false) else { break };
            self.receive_sets(state);
            while state.h2.receive(self.reader.buffer(), now) == Ok(Received::Some) {}
            if state.h2.failure().is_some() {
                break;
            }
        }
        while let Some(event) = state.h2.poll_event() {
            self.role.event(state, event);
        }
    }

    /// Lets calls in flight finish and takes no more.
    pub(super) fn shut_down(&mut self) {
        let mut state = self.shared.lock();
        if state.ready {
            state.h2.go_away();
        } else {
            // A peer that has not even introduced itself does not hold up the end.
            state.h2.close(ErrorCode::NO_ERROR, "the server is shutting down");
        }
    }

    /// How a connection has ended that did not fail. `told`: the server shuts down.
    pub(super) fn ended(&self, told: bool) -> Ended {
        let state = self.shared.lock();
        match state.h2.failure() {
            Some(error) if error.code == ErrorCode::ENHANCE_YOUR_CALM => Ended::NoRoom,
            _ if !told && state.h2.is_draining() => Ended::Idle,
            _ => Ended::Closed,
        }
    }

    /// Closes the socket so that what was written last still arrives.
    pub(super) async fn close(&mut self) {
        self.wakes.drain(..).for_each(Waker::wake);
        if self.io.shutdown().await.is_err() || !self.has_last_words {
            return;
        }
        let mut rest = BytesMut::with_capacity(LINGER / 16);
        let drain = async {
            let mut left = LINGER;
            while left > 0 {
                rest.clear();
                match poll_fn(|cx| self.io.poll_receive(cx, &mut rest)).await {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => left = left.saturating_sub(bytes),
                }
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, drain).await;
    }
}

/// Marks a connection as lost when its driver is dropped, however that comes.
pub(super) struct LostOnDrop(pub(super) Arc<Shared>);

impl Drop for LostOnDrop {
    fn drop(&mut self) {
        self.0.lose(Lost::Closed);
    }
}
