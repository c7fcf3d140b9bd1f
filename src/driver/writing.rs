//! Writes what a connection has encoded: under the lock or, if other threads may want it, without.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::MutexGuard;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};

use super::shared::{Shared, State};
use super::socket::Socket;
use crate::descriptors::AnnouncedSet;
use crate::http2::Connection;

/// The maximum number of slices in a vectored write.
const SLICES: usize = 40;

/// How much of the outgoing bytes a write has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All of them.
    All,
    /// The socket takes no more now.
    Blocked,
    /// As many as one turn may write.
    Limit,
}

/// Writes outgoing bytes: up to `most`, plus at most the rest of the last write. With `shared` it
/// releases the lock while the socket takes them, which can be longer than everything else that is
/// done under the lock: callers on other threads add frames meanwhile, and those are written, too.
/// Bytes with large payloads or descriptors among them are written under the lock.
#[inline(always)] // It has one caller, and a call would cost as much as a small write's own steps.
pub(super) fn write<'a, T: Socket>(
    io: &mut T,
    cx: &mut Context<'_>,
    mut state: MutexGuard<'a, State>,
    shared: Option<&'a Shared>,
    most: usize,
) -> (MutexGuard<'a, State>, io::Result<Written>) {
    let mut left = most;
    while let Some(shared) = shared
        && let Some(mut bytes) = state.h2.take_outgoing()
    {
        drop(state);
        let before = bytes.len();
        let written = write_bytes(io, cx, &mut bytes);
        left = left.saturating_sub(before - bytes.len());
        state = shared.lock();
        state.h2.put_back(bytes);
        match written {
            Poll::Ready(Ok(())) if left > 0 => {}
            Poll::Ready(Ok(())) => return (state, Ok(Written::Limit)),
            Poll::Ready(Err(error)) => return (state, Err(error)),
            Poll::Pending => return (state, Ok(Written::Blocked)),
        }
    }
    let written = write_locked(&mut state.h2, left, |bytes, set| match set {
        None => Pin::new(&mut *io).poll_write_vectored(cx, bytes),
        Some(set) => io.poll_send_descriptors(cx, bytes, set),
    });
    (state, written)
}

/// Writes bytes until the socket takes no more, and removes those that it took.
fn write_bytes<T: Socket>(
    io: &mut T,
    cx: &mut Context<'_>,
    bytes: &mut BytesMut,
) -> Poll<io::Result<()>> {
    let mut written = 0;
    let stopped = loop {
        match Pin::new(&mut *io).poll_write(cx, &bytes[written..]) {
            Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(more)) => written += more,
            Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
            Poll::Pending => break Poll::Pending,
        }
        if written == bytes.len() {
            // Unlike `advance`, this keeps all of the memory for the next bytes.
            bytes.clear();
            return Poll::Ready(Ok(()));
        }
    };
    bytes.advance(written);
    stopped
}

/// Writes outgoing bytes under the lock: up to `most`, plus at most the rest of the last write. `write`
/// sends bytes, with descriptors beside the first of them if there are some.
pub(super) fn write_locked(
    h2: &mut Connection,
    most: usize,
    mut write: impl FnMut(&[IoSlice<'_>], Option<&AnnouncedSet>) -> Poll<io::Result<usize>>,
) -> io::Result<Written> {
    let mut left = most;
    while h2.has_outgoing() {
        let written = match h2.contiguous() {
            Some(bytes) => write(&[IoSlice::new(bytes)], None),
            None if h2.is_set_next() => write_set(h2, &mut write),
            None => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = h2.outgoing(&mut slices);
                write(&slices[..count], None)
            }
        };
        match written {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(bytes)) => {
                h2.advance(bytes);
                left = left.saturating_sub(bytes);
                if left == 0 {
                    return Ok(Written::Limit);
                }
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(Written::Blocked),
        }
    }
    Ok(Written::All)
}

/// Writes only the next frame, with the descriptors that travel with it. If they cannot be sent,
/// the frame says so (docs/descriptors.md).
fn write_set(
    h2: &mut Connection,
    write: &mut impl FnMut(&[IoSlice<'_>], Option<&AnnouncedSet>) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    let Some(set) = h2.next_set() else { return Poll::Ready(Ok(0)) };
    let written = write_frame(h2, Some(&set), write);
    let why = match &written {
        Poll::Ready(Ok(_)) => {
            h2.set_sent();
            return written;
        }
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            "the descriptors were taken out of the list before they were sent"
        }
        Poll::Ready(Err(error)) if is_refused(error) => {
            "too many file descriptors are on their way to other processes"
        }
        _ => return written,
    };
    h2.void_set(why);
    // From now on it is an ordinary frame.
    write_frame(h2, None, write)
}

fn write_frame(
    h2: &Connection,
    set: Option<&AnnouncedSet>,
    write: &mut impl FnMut(&[IoSlice<'_>], Option<&AnnouncedSet>) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); 1];
    h2.outgoing(&mut slices);
    write(&slices, set)
}

/// Returns whether sendmsg(2) failed because of the descriptors, and not because of the connection.
fn is_refused(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let refusals = [Errno::TOOMANYREFS, Errno::PERM, Errno::BADF, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}
