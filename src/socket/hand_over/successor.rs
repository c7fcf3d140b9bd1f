//! The new server's end of a hand-over. It asks, checks what it is offered, and takes it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketType};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use super::super::bind_error::{BindError, BindProblem};
use super::super::file::CONTROL;
use super::super::location::Location;
use super::super::unix::{by_descriptor, new_socket, open_inode};
use super::message::{self, Parts, Refusal, ServerMessage};
use super::{PATIENCE, is_trusted, step};
use crate::runtime::asynchronous;

/// How long a server may take to answer. Other successors that say nothing may be before this one
/// in the queue.
const ANSWER: Duration = Duration::from_secs(3 * PATIENCE.as_secs());

/// How long a server may take to end after it has closed its end of the connection.
const END: Duration = Duration::from_secs(1);

/// How long to wait if the control socket's queue is full.
const FULL: Duration = Duration::from_millis(20);

/// The outcome of asking.
pub(in crate::socket) enum TakeOver<T> {
    /// The offer was taken: this process is the server now.
    Taken(T),
    /// The server of this process id ended. The lock may be free.
    Ended(i32),
    /// No process answers. The server is just ending or starting, or it permits no take-over.
    Unanswered,
}

/// The server that was asked.
struct Predecessor {
    socket: AsyncFd<OwnedFd>,
    credentials: UnixCredentials,
    /// A descriptor of the process, by which its end is told from a refusal.
    process: Option<AsyncFd<OwnedFd>>,
}

/// Asks the server that holds the lock for its socket. `prepare` checks what it offers and makes
/// everything ready. When `others` has completed, this process commits itself. `take` is called after the
/// commit, so it cannot fail. If the server died before the commit, only
/// this process has the socket and the lock. Then `take` is called if `is_there` finds the files in
/// place, because the server may have ended in order just before.
///
/// `ended` is the process that was asked before and ended without an answer. If another process
/// serves now, that one was first, and it is not asked.
pub(in crate::socket) async fn ask<P, T>(
    location: &Location,
    lock: BorrowedFd<'_>,
    ended: Option<i32>,
    prepare: impl Fn(Parts) -> Result<P, BindError>,
    others: impl Future<Output = ()>,
    is_there: impl FnOnce(&P) -> bool,
    take: impl FnOnce(P) -> T,
) -> Result<TakeOver<T>, BindError> {
    let failed = |error: io::Error| location.refuse(BindProblem::TakeOver { error });
    let Some(server) = Predecessor::connect(location).await? else {
        return Ok(TakeOver::Unanswered);
    };
    let pid = server.credentials.pid();
    if ended.is_some_and(|ended| ended != pid) {
        return Err(location.refuse(BindProblem::TakenByAnother));
    }
    step("successor-connected");
    if message::ask(&server.socket, lock).is_err() {
        server.wait_for_end().await;
        return Ok(TakeOver::Ended(pid));
    }
    step("successor-asked");
    let reply = timeout(ANSWER, server.reply()).await.map_err(|_| {
        failed(io::Error::new(io::ErrorKind::TimedOut, "the server there does not answer"))
    })?;
    let (nonce, parts) = match reply {
        Ok(Some(ServerMessage::Offer(nonce, parts))) => (nonce, parts),
        Ok(Some(ServerMessage::Refusal(refusal))) => return Err(server.refused(location, refusal)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(failed(error)),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => {
            return Err(BindError::io(&location.address, "take over the socket", error));
        }
        Ok(None) | Err(_) => {
            server.wait_for_end().await;
            return Ok(TakeOver::Ended(pid));
        }
    };
    step("successor-offered");
    let prepared = prepare(parts)?;
    others.await;
    step("successor-acknowledges");
    if message::acknowledge(&server.socket, nonce).is_err() {
        let died = server.wait_for_end().await;
        if !died || !is_there(&prepared) {
            return Ok(TakeOver::Ended(pid));
        }
    }
    step("successor-acknowledged");
    Ok(TakeOver::Taken(take(prepared)))
}

impl Predecessor {
    /// Connects to the control socket. Returns `None` if there is none, or if nobody listens on it.
    async fn connect(location: &Location) -> Result<Option<Self>, BindError> {
        let name = location.beside(CONTROL);
        let failed = |step| {
            let name = &name;
            move |errno: Errno| location.error(step, name, errno)
        };
        let inode = match open_inode(&location.directory, &name) {
            Ok(inode) => inode,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed("look at")(errno)),
        };
        let address = SocketAddrUnix::new(by_descriptor(inode.as_fd())).map_err(failed("name"))?;
        let connected = async {
            loop {
                let socket = new_socket(SocketType::SEQPACKET)?;
                match rustix::net::connect(&socket, &address) {
                    Ok(()) => return Ok(socket),
                    // The queue of the control socket is full (connect(2)).
                    Err(Errno::AGAIN) => sleep(FULL).await,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
        };
        let socket = match timeout(PATIENCE, connected).await {
            Ok(Ok(socket)) => socket,
            // The file was left by a server that was killed.
            Ok(Err(Errno::CONNREFUSED)) => return Ok(None),
            Ok(Err(errno)) => return Err(failed("connect to")(errno)),
            Err(_) => return Err(failed("connect to")(Errno::AGAIN)),
        };
        let io = |error| location.refuse(BindProblem::TakeOver { error });
        let credentials = getsockopt(&socket, sockopt::PeerCredentials)
            .map_err(|errno| io(io::Error::from_raw_os_error(errno as i32)))?;
        let uid = credentials.uid();
        if !is_trusted(uid) {
            return Err(location.refuse(BindProblem::ForeignServer { uid }));
        }
        let process = process_of(&socket, credentials).and_then(|pidfd| asynchronous(pidfd).ok());
        let socket = asynchronous(socket).map_err(io)?;
        Ok(Some(Self { socket, credentials, process }))
    }

    async fn reply(&self) -> io::Result<Option<ServerMessage>> {
        self.socket.async_io(Interest::READABLE, |socket| message::reply(socket)).await
    }

    /// Returns whether its process has ended, or does so within a moment.
    async fn wait_for_end(&self) -> bool {
        let Some(process) = &self.process else { return false };
        timeout(END, process.readable()).await.is_ok_and(|ended| ended.is_ok())
    }

    fn refused(&self, location: &Location, refusal: Refusal) -> BindError {
        let pid = self.credentials.pid();
        location.refuse(match refusal {
            Refusal::Busy => BindProblem::TakenByAnother,
            Refusal::User => BindProblem::TakeOverForbidden {
                pid,
                why: "this process runs as another user than that server",
            },
            Refusal::Lock => BindProblem::TakeOverForbidden {
                pid,
                why: "this process cannot write to that server's directory",
            },
        })
    }
}

/// Returns a descriptor of the process that listens at the other end (SO_PEERPIDFD, Linux 6.5). On
/// older kernels it is found by its number.
fn process_of(socket: &OwnedFd, credentials: UnixCredentials) -> Option<OwnedFd> {
    let by_number = || {
        let pid = Pid::from_raw(credentials.pid())?;
        pidfd_open(pid, PidfdFlags::NONBLOCK).ok()
    };
    getsockopt(socket, sockopt::PeerPidfd).ok().or_else(by_number)
}
