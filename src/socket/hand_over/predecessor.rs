//! The server's end of a hand-over. It answers the processes that connect to the control socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::listener_state::ListenerState;
use super::super::unix::{peer_user, same_file};
use super::message::{self, Nonce, Refusal, SuccessorMessage};
use super::offer::{Offer, accept_queued};
use super::{PATIENCE, is_trusted, step};
use crate::descriptors::closer;
use crate::runtime::asynchronous;

/// How many processes may talk to the control socket at a time. Others wait in its queue.
const EXCHANGES_MAX: usize = 8;

/// How long to wait before the next accept(2) after one has failed.
const BACKOFF: Duration = Duration::from_secs(1);

/// Answers successors until one of them has taken over.
pub(in crate::socket) async fn answer(shared: &Arc<ListenerState>, control: &AsyncFd<OwnedFd>) {
    let mut exchanges = JoinSet::new();
    loop {
        tokio::select! {
            Some(handed_over) = exchanges.join_next() => {
                if handed_over.unwrap_or(false) {
                    return;
                }
            }
            accepted = accept(control), if exchanges.len() < EXCHANGES_MAX => match accepted {
                Ok(successor) => {
                    exchanges.spawn(exchange(Arc::clone(shared), successor));
                }
                Err(error) => {
                    tracing::debug!(%error, "no successor was accepted");
                    sleep(BACKOFF).await;
                }
            },
        }
    }
}

async fn accept(control: &AsyncFd<OwnedFd>) -> io::Result<OwnedFd> {
    loop {
        let mut ready = control.readable().await?;
        match accept_queued(control)? {
            Some(successor) => return Ok(successor),
            None => ready.clear_ready(),
        }
    }
}

/// Talks to one process that connected. Returns whether it has taken over.
async fn exchange(shared: Arc<ListenerState>, successor: OwnedFd) -> bool {
    step("predecessor-accepted");
    let pid = match check_user(&successor) {
        Ok(pid) => pid,
        Err(refusal) => {
            let _ = message::refuse(&successor, refusal);
            return false;
        }
    };
    let Ok(successor) = asynchronous(successor) else { return false };
    let successor = Arc::new(successor);
    let lock = match timeout(PATIENCE, request(&successor)).await {
        Ok(Ok(Some(SuccessorMessage::Ask(lock)))) => lock,
        Ok(Err(error)) if Errno::from_io_error(&error) == Some(Errno::MFILE) => {
            tracing::warn!(pid, %error, "a process that wanted to take over was not answered");
            return false;
        }
        other => {
            tracing::debug!(pid, ?other, "what connected to the control socket asked for nothing");
            return false;
        }
    };
    step("predecessor-asked");
    let offered = offer(&shared, &successor, &lock);
    // The descriptor came from another process, so closing it may take time (SO_LINGER of
    // socket(7)). This works, too, if no thread can be made.
    closer::close(peer_user(&successor), vec![lock], ());
    match offered {
        Ok(()) => {}
        Err(refusal) => {
            tracing::warn!(pid, ?refusal, "a process that wanted to take over was refused");
            let _ = message::refuse(&successor, refusal);
            return false;
        }
    }
    step("predecessor-offered");
    let _ = timeout(PATIENCE, says_something(&successor)).await;
    step("predecessor-decides");
    let handed_over = shared.decide();
    if handed_over {
        tracing::info!(pid, "the socket was handed over");
    } else {
        tracing::warn!(pid, "a process that wanted to take over did not: serving on");
    }
    handed_over
}

/// Waits until the successor has sent a message or has ended.
async fn says_something(successor: &AsyncFd<OwnedFd>) {
    while let Ok(mut ready) = successor.readable().await {
        match rustix::net::recv(successor, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => ready.clear_ready(),
            _ => return,
        }
    }
}

async fn request(successor: &AsyncFd<OwnedFd>) -> io::Result<Option<SuccessorMessage>> {
    successor.async_io(Interest::READABLE, |successor| message::request(successor)).await
}

/// Fails unless the peer was of the server's own user, or root, when it connected (unix(7),
/// SO_PEERCRED). A user that this process's namespace does not know shows as "nobody" and is not
/// trusted. Returns the peer's process id.
fn check_user(successor: &OwnedFd) -> Result<i32, Refusal> {
    let peer = getsockopt(successor, sockopt::PeerCredentials).map_err(|_| Refusal::User)?;
    if is_trusted(peer.uid()) {
        Ok(peer.pid())
    } else {
        tracing::warn!(
            uid = peer.uid(),
            pid = peer.pid(),
            "a take-over by another user was refused"
        );
        Err(Refusal::User)
    }
}

/// Makes the offer. From now on the successor may acknowledge it.
fn offer(
    shared: &ListenerState,
    successor: &Arc<AsyncFd<OwnedFd>>,
    lock: &OwnedFd,
) -> Result<(), Refusal> {
    let mut published = shared.published();
    // The listener has ended meanwhile, for example after a hand-over to another successor.
    let Some(published) = published.as_mut() else { return Err(Refusal::Busy) };
    if published.offer.is_some() {
        return Err(Refusal::Busy);
    }
    let ours = published.lock.file().ok_or(Refusal::Busy)?;
    if !is_writable_copy(lock, ours) {
        return Err(Refusal::Lock);
    }
    let control = published.control.as_ref().ok_or(Refusal::Busy)?;
    let socket = shared.current().ok_or(Refusal::Busy)?;
    let nonce = Nonce::new();
    step("predecessor-offers");
    let descriptors = [
        socket.as_fd(),
        ours.as_fd(),
        published.file.inode().as_fd(),
        control.socket.as_fd(),
        control.file.inode().as_fd(),
    ];
    match message::offer(successor, nonce, descriptors) {
        Ok(()) => {
            published.offer = Some(Offer::new(Arc::clone(successor), nonce));
            Ok(())
        }
        Err(_) => Err(Refusal::Busy),
    }
}

/// Returns whether a descriptor is of the lock file and was opened for writing. A process of the
/// server's user in a container that mounts the directory read-only can connect, but cannot open
/// the file for writing.
fn is_writable_copy(lock: &OwnedFd, ours: &OwnedFd) -> bool {
    let same = matches!(
        (rustix::fs::fstat(lock), rustix::fs::fstat(ours)),
        (Ok(theirs), Ok(ours)) if same_file(&theirs, &ours)
    );
    let flags = rustix::fs::fcntl_getfl(lock).unwrap_or(OFlags::PATH);
    same && !flags.contains(OFlags::PATH) && flags.intersects(OFlags::RDWR | OFlags::WRONLY)
}
