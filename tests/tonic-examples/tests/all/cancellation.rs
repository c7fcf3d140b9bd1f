//! A call that its caller drops ends at the server, too.

use std::time::Duration;

use samehost::Server;
use samehost_tonic_examples::greeter::greeter_client::GreeterClient;
use samehost_tonic_examples::greeter::greeter_server::{Greeter, GreeterServer};
use samehost_tonic_examples::greeter::{HelloReply, HelloRequest};
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status};

use crate::connected;

struct Slow {
    events: mpsc::UnboundedSender<&'static str>,
}

/// Says so when it is dropped.
struct Running(mpsc::UnboundedSender<&'static str>);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

#[tonic::async_trait]
impl Greeter for Slow {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let _running = Running(self.events.clone());
        let _ = self.events.send("running");
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_dropped_call_is_cancelled() {
    let (events, mut seen) = mpsc::unbounded_channel();
    let service = GreeterServer::new(Slow { events });
    let mut client = GreeterClient::new(connected(Server::new().add_service(service)).await);
    let mut dropped = client.clone();
    let call = tokio::spawn(async move { dropped.say_hello(HelloRequest::default()).await });
    assert_eq!(seen.recv().await, Some("running"));
    call.abort();
    assert_eq!(seen.recv().await, Some("dropped"));

    let mut request = Request::new(HelloRequest::default());
    // The handler runs before it, on a busy machine too.
    request.set_timeout(Duration::from_secs(1));
    let status = client.say_hello(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(seen.recv().await, Some("running"));
    assert_eq!(seen.recv().await, Some("dropped"));
}
