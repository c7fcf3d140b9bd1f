//! Tests that need a connection on a stream and another handler than gRPC's.

mod batches;
mod bodies;
mod frames;
mod h2spec;
mod last_words;
mod late;
mod pressure;
mod writes;

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use http::{HeaderMap, Method, Response};
use http_body_util::Full;
use tonic::body::Body;

use super::{BodyRequest, Called, Handler, Incoming, PendingCall, Sender};
use crate::descriptors::{OfCall, ReceivedSet};
use crate::http2::{RequestHead, StreamKey};

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

/// Counts its calls, and answers each at once: by a head alone, if the body's size in bytes is 0.
#[derive(Default)]
struct Answers {
    size: usize,
    calls: Arc<AtomicUsize>,
}

impl Handler for Answers {
    type Body = Body;
    type Running = Ready<Response<Body>>;

    fn call(
        &mut self,
        _: Arc<RequestHead>,
        _: Incoming,
        _: Option<Box<ReceivedSet>>,
        _: Option<&mut Vec<u8>>,
    ) -> Called<Self::Running> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Called::Unpolled(ready(Response::new(Body::new(Full::from(vec![7; self.size])))))
    }
}
