//! [`Refusing`]: answers the calls of a connection that may not come in.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::oneshot;
use tonic::Status;

use super::body::ReplyBody;
use super::handler::{Reply, refuse};
use super::status::is_grpc;
use crate::descriptors::Arrived;
use crate::driver::{Handler, Incoming};
use crate::http2::RequestHead;

/// Gives so many calls the same status, and answers no more.
#[derive(Debug)]
pub(crate) struct Refusing {
    status: Status,
    left: u32,
    spent: Option<oneshot::Sender<()>>,
}

impl Refusing {
    /// The second value completes after `calls` answers.
    pub(crate) fn new(status: Status, calls: u32) -> (Self, oneshot::Receiver<()>) {
        let (sender, spent) = oneshot::channel();
        (Self { status, left: calls, spent: Some(sender) }, spent)
    }
}

impl Handler for Refusing {
    type Body = ReplyBody;
    type Reply = Reply;

    fn call(&mut self, head: Arc<RequestHead>, _: Incoming, _: Option<Box<Arrived>>) -> Reply {
        let Some(left) = self.left.checked_sub(1) else { return Reply::never() };
        self.left = left;
        if left == 0
            && let Some(spent) = self.spent.take()
        {
            // An error means that the connection is over.
            let _ = spent.send(());
        }
        if is_grpc(&head.headers) {
            Reply::ready(self.status.clone().into_http())
        } else {
            refuse(StatusCode::FORBIDDEN)
        }
    }
}
