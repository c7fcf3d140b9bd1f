//! Tests that need a connection on a stream and another handler than gRPC's.

mod batches;
mod frames;
mod h2spec;
mod last_words;
mod writes;

use std::task::{Context, Waker};

use http::{HeaderMap, Method};
use tonic::body::Body;

use super::{BodyRequest, PendingCall, Sender};
use crate::descriptors::OfCall;

/// Sends a request. Its progress wakes nothing until the call is polled.
fn send(sender: &Sender, body: Body) -> PendingCall {
    let path = "/a.B/C".parse().unwrap();
    let (head, descriptors) = (HeaderMap::new(), OfCall::default());
    let mut request = BodyRequest::new(Method::POST, path, head, descriptors, body);
    let cx = Context::from_waker(Waker::noop());
    let Ok(call) = sender.send(&mut request, b"localhost", [None; 2], &cx) else {
        panic!("not sent")
    };
    call
}
