//! [`Refusing`]: answers the calls of a refused connection.

use std::sync::Arc;

use http::{Method, StatusCode};
use tokio::sync::oneshot;
use tonic::Status;

use super::body::ServiceBody;
use super::handler::RunningCall;
use super::plain_http::failure_of;
use super::status::is_grpc;
use crate::descriptors::ReceivedSet;
use crate::driver::{Called, Handler, Incoming};
use crate::http2::RequestHead;

/// Gives the same status to a number of calls, and does not answer further calls.
#[derive(Debug)]
pub(crate) struct Refusing {
    status: Status,
    left: u32,
    spent: Option<oneshot::Sender<()>>,
}

impl Refusing {
    /// Returns a handler that answers `calls` calls, and a receiver that completes when it takes the last
    /// one.
    pub(crate) fn new(status: Status, calls: u32) -> (Self, oneshot::Receiver<()>) {
        let (sender, spent) = oneshot::channel();
        (Self { status, left: calls, spent: Some(sender) }, spent)
    }
}

impl Handler for Refusing {
    type Body = ServiceBody;
    type Running = RunningCall;

    fn call(
        &mut self,
        head: Arc<RequestHead>,
        _: Incoming,
        _: Option<Box<ReceivedSet>>,
        _: Option<&mut Vec<u8>>,
    ) -> Called<RunningCall> {
        let Some(left) = self.left.checked_sub(1) else {
            return Called::Unpolled(RunningCall::never());
        };
        self.left = left;
        if left == 0
            && let Some(spent) = self.spent.take()
        {
            // An error means that the connection has ended.
            let _ = spent.send(());
        }
        Called::Unpolled(if head.method == Method::POST && is_grpc(&head.headers) {
            RunningCall::ready(self.status.clone().into_http())
        } else {
            RunningCall::ready(failure_of(self.status.code(), StatusCode::FORBIDDEN))
        })
    }
}
