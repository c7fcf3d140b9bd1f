//! [`Requests`]: what a worker sends on a bidirectional stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use samehost::ping::ConverseRequest;
use tokio::sync::mpsc;
use tokio_stream::Stream;

/// The messages of a stream, as many as the worker has permitted.
pub(super) struct Requests {
    /// Each is the sequence number of the last message that may be sent.
    permits: mpsc::UnboundedReceiver<u64>,
    permitted: u64,
    /// The sequence number of the last message sent.
    sent: u64,
    payload: Bytes,
}

impl Requests {
    /// The first message needs no permit.
    pub(super) fn new(permits: mpsc::UnboundedReceiver<u64>, payload: Bytes) -> Self {
        Self { permits, permitted: 1, sent: 0, payload }
    }
}

impl Stream for Requests {
    type Item = ConverseRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while this.sent == this.permitted {
            match ready!(this.permits.poll_recv(cx)) {
                Some(permitted) => this.permitted = permitted,
                None => return Poll::Ready(None),
            }
        }
        this.sent += 1;
        Poll::Ready(Some(ConverseRequest {
            message: "ping".to_owned(),
            payload: this.payload.clone(),
            sequence: this.sent,
        }))
    }
}
