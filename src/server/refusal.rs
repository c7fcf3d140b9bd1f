//! [`refuse`]: tells a refused client the reason.
//!
//! A GOAWAY does not reach the caller: some clients connect again at once, hundreds of times a
//! second, and show none of its text. A status reaches every caller. So the calls of a refused
//! connection are answered with a status, for a short time and without any service.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::connection::owner;
use super::incoming::Accepted;
use super::notices::Notices;
use crate::driver::{self, LiveHandlers, Memory, Socket};
use crate::grpc::Refusing;
use crate::http2::{Config, Notice};
use crate::observer::RefusalReason;
use crate::socket::Peer;

/// How many refused connections are answered at a time: in total, and of one user other than the
/// server's own. A further one only gets a GOAWAY.
pub(super) const MAX_REFUSALS: (usize, usize) = (64, 16);

/// How many calls are answered on a refused connection.
const CALLS: u32 = 16;

/// How long a refused connection is served.
const SERVED_FOR: Duration = Duration::from_secs(1);

/// How long the client may take after that to read the answers and the GOAWAY.
const LINGER: Duration = Duration::from_millis(100);

/// The window of each stream and of the connection, in bytes.
const WINDOW: u32 = 64 * 1024;

/// The largest header list, in bytes as RFC 9113 §6.5.2 counts them.
const HEADER_LIST: u32 = 16 * 1024;

/// What a peer is told that no policy can accept.
const UNKNOWN_PEER: &str = "refused by the server's policy: the peer is unknown, since a Listener has not \
                            accepted this connection";

/// Answers the calls of a refused connection with the reason, and closes it after 16 calls, after
/// one second or when `stopped` completes.
pub(super) async fn refuse<T: Socket>(
    accepted: Accepted<T>,
    reason: RefusalReason,
    driver: driver::Options,
    memory: Arc<Memory>,
    stopped: impl Future,
) {
    let code = match reason {
        RefusalReason::Policy => Code::PermissionDenied,
        _ => Code::ResourceExhausted,
    };
    let status = match (reason, &accepted.peer) {
        (RefusalReason::Policy, Peer::Unknown) => Status::new(code, UNKNOWN_PEER),
        _ => Status::new(code, reason.text()),
    };
    let (handler, spent) = Refusing::new(status, CALLS);
    let over = Notify::new();
    let until_over = pin!(async {
        tokio::select! {
            _ = stopped => {}
            _ = spent => {}
            () = sleep(SERVED_FOR) => {}
        }
        over.notify_one();
        Notice::Short
    });
    let options =
        driver::Options { http2: config(&driver.http2, accepted.any_authority), ..driver };
    let user = memory.user(owner(&accepted.peer));
    let live = LiveHandlers::new().add();
    let notices = Notices::without_age(until_over, None);
    let served = driver::serve(accepted.io, handler, options, user, live, notices);
    let cut_off = async {
        over.notified().await;
        sleep(LINGER).await;
    };
    tokio::select! {
        _ = served => {}
        () = cut_off => {}
    }
}

fn config(of_others: &Config, any_authority: bool) -> Config {
    Config {
        max_streams: CALLS,
        stream_window: WINDOW,
        connection_window: WINDOW,
        max_header_list_size: HEADER_LIST.min(of_others.max_header_list_size),
        handshake_timeout: SERVED_FOR,
        keep_alive: None,
        idle_timeout: None,
        // The socket takes none, so the client must not be told otherwise.
        descriptors: 0,
        any_authority,
        ..*of_others
    }
}
