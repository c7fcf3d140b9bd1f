//! tower's layers around services and channels.

use std::time::Duration;

use samehost::Server;
use samehost_tonic_examples::greeter::greeter_client::GreeterClient;
use samehost_tonic_examples::greeter::greeter_server::{Greeter, GreeterServer};
use samehost_tonic_examples::greeter::{HelloReply, HelloRequest};
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status};
use tower::ServiceBuilder;
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::timeout::TimeoutLayer;

use crate::connected;

/// Answers who set the header, and nobody else.
struct Picky {
    called: mpsc::UnboundedSender<()>,
}

#[tonic::async_trait]
impl Greeter for Picky {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let _ = self.called.send(());
        match request.metadata().get("x-layer") {
            Some(value) => Ok(Response::new(HelloReply { message: format!("{value:?}") })),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn layers_around_a_channel() {
    let (called, _calls) = mpsc::unbounded_channel();
    let service = GreeterServer::new(Picky { called });
    let channel = connected(Server::new().add_service(service)).await;
    let channel = ServiceBuilder::new()
        .layer(TimeoutLayer::new(Duration::from_secs(60)))
        .map_request(|mut request: http::Request<tonic::body::Body>| {
            request.headers_mut().insert("x-layer", "was here".parse().unwrap());
            request
        })
        .service(channel);
    let mut client = GreeterClient::new(channel);
    let response = client.say_hello(HelloRequest::default()).await.unwrap();
    assert_eq!(response.into_inner().message, "\"was here\"");
}

#[tokio::test]
async fn layers_around_a_server() {
    let (called, mut calls) = mpsc::unbounded_channel();
    let layer = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .into_inner();
    let service = GreeterServer::new(Picky { called });
    let channel = connected(Server::new().add_service(service).layer(layer)).await;
    let mut client = GreeterClient::new(channel);
    let mut first = client.clone();
    let held = tokio::spawn(async move { first.say_hello(HelloRequest::default()).await });
    calls.recv().await.unwrap();
    let status = client.say_hello(HelloRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    held.abort();
}

#[tokio::test]
async fn a_timeout_around_a_server() {
    let (called, _calls) = mpsc::unbounded_channel();
    let service = GreeterServer::new(Picky { called });
    let server = Server::new().add_service(service);
    let server = server.layer(TimeoutLayer::new(Duration::from_millis(1)));
    let mut client = GreeterClient::new(connected(server).await);
    let status = client.say_hello(HelloRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}
