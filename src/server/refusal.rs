//! [`refuse`]: a connection that may not come in is told why.
//!
//! A GOAWAY does not reach whoever made the call: some clients connect again at once, hundreds of times
//! a second, and show none of its text. A status reaches everybody. So the calls of such a connection are
//! answered, few of them and for a short time, by nothing that belongs to a service.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::incoming::Accepted;
use crate::driver::{self, Memory, Socket};
use crate::grpc::Refusing;
use crate::http2::Config;
use crate::observer::RefusalReason;

/// How many connections are answered at a time: in all and of one user other than the server's own. One
/// that comes beyond gets a GOAWAY alone.
pub(super) const MAX_REFUSALS: (usize, usize) = (64, 16);

/// How many calls of such a connection are answered.
const CALLS: u32 = 16;

/// How long such a connection may stay.
const STAY: Duration = Duration::from_secs(1);

/// How long the client may then take to read the answers and the GOAWAY.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What a client may send of one message, and of all.
const WINDOW: u32 = 64 * 1024;

/// The largest header list, in bytes as RFC 9113 §6.5.2 counts them.
const HEADER_LIST: u32 = 16 * 1024;

/// Answers a connection's calls by the reason until 16 are answered, 1 s is over or `stopped` completes,
/// and closes it.
pub(super) async fn refuse<T: Socket>(
    accepted: Accepted<T>,
    reason: RefusalReason,
    driver: driver::Options,
    memory: Arc<Memory>,
    stopped: impl Future<Output = ()>,
) {
    let code = match reason {
        RefusalReason::Policy => Code::PermissionDenied,
        _ => Code::ResourceExhausted,
    };
    let status = Status::new(code, reason.text());
    let (handler, spent) = Refusing::new(status, CALLS);
    let over = Notify::new();
    let until_over = async {
        tokio::select! {
            () = stopped => {}
            _ = spent => {}
            () = sleep(STAY) => {}
        }
        over.notify_one();
    };
    let options =
        driver::Options { http2: config(&driver.http2, accepted.any_authority), ..driver };
    let served = driver::serve(accepted.io, handler, options, memory, until_over);
    let cut_off = async {
        over.notified().await;
        sleep(LAST_WORDS).await;
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
        handshake_timeout: STAY,
        keep_alive: None,
        idle_timeout: None,
        any_authority,
        ..*of_others
    }
}
