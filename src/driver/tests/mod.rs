//! Tests that need a connection on a stream and another handler than gRPC's.

mod batches;
mod frames;
mod h2spec;
mod last_words;
mod pressure;
mod writes;

use std::task::{Context, Waker};

use http::{HeaderMap, Method};
use tonic::body::Body;

use super::{BodyRequest, PendingCall, Sender};
use crate::descriptors::OfCall;
use crate::http2::StreamKey;

/// Sends a request. Its progress wakes nothing until the call is polled.
fn send(sender: &Sender, body: Body) -> PendingCall<Box<Sender>> {
    PendingCall::new(Box::new(sender.clone()), put(sender, body))
}

/// Sends a request that nobody waits for.
fn put(sender: &Sender, body: Body) -> StreamKey {
    let path = "/a.B/C".parse().unwrap();
    let (head, descriptors) = (HeaderMap::new(), OfCall::default());
    let mut request = BodyRequest::new(Method::POST, path, head, descriptors, body);
    let cx = Context::from_waker(Waker::noop());
    let Ok(key) = sender.send(&mut request, b"localhost", [None; 2], None, &cx) else {
        panic!("not sent")
    };
    key
}
