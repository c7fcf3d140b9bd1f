//! Request bodies whose calls end while they are polled.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::io::AsyncWriteExt;
use tonic::Status;
use tonic::body::Body;

use super::frames::settings;
use super::send;
use crate::driver::{Options, PendingCall, Sender, Sleeping};

/// Fails once it has a call, which it drops before.
struct DropsItsCall(Arc<Mutex<Option<PendingCall<Box<Sender>>>>>);

impl http_body::Body for DropsItsCall {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.0.lock().unwrap().take() {
            None => Poll::Pending,
            Some(call) => {
                drop(call);
                Poll::Ready(Some(Err(Status::internal("nobody reads this"))))
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_kept_of_a_body_that_fails_when_its_call_has_just_been_dropped() {
    let (stream, mut server) = tokio::io::duplex(1 << 20);
    let sender = Sender::start(Sleeping::new(stream), Options::default());
    server.write_all(&settings()).await.unwrap();
    sender.ready().await.unwrap();
    let call = Arc::default();
    let sent = send(&sender, Body::new(DropsItsCall(Arc::clone(&call))));
    *call.lock().unwrap() = Some(sent);
    let dropped = async {
        while call.lock().unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), dropped).await.expect("the body is polled");
    assert_eq!(sender.failed_bodies(), 0);
}
