//! One module for each of tonic's examples that applies to a transport of its own.

mod cancellation;
mod compression;
mod dynamic;
mod health;
mod helloworld;
mod interceptor;
mod multiplex;
mod reflection;
mod routeguide;
mod streaming;
mod tower;
mod uds;

use std::pin::Pin;

use samehost::{Address, Channel, Listener, Server};
use samehost_tonic_examples::echo::echo_server::Echo;
use samehost_tonic_examples::echo::{EchoRequest, EchoResponse};
use samehost_tonic_examples::greeter::greeter_server::Greeter;
use samehost_tonic_examples::greeter::{HelloReply, HelloRequest};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// A server in this process, and a channel to it.
async fn connected(server: Server) -> Channel {
    let directory = tempfile::tempdir().unwrap().keep();
    let address: Address = format!("unix:{}/example.sock", directory.display()).parse().unwrap();
    connected_to(&address, server).await
}

async fn connected_to(address: &Address, server: Server) -> Channel {
    let listener = Listener::bind(address).await.unwrap();
    let address = listener.local_addr().clone();
    tokio::spawn(server.serve(listener));
    Channel::connect(&address).await.unwrap()
}

#[derive(Default)]
struct Greetings;

#[tonic::async_trait]
impl Greeter for Greetings {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let name = request.into_inner().name;
        Ok(Response::new(HelloReply { message: format!("Hello {name}!") }))
    }
}

#[derive(Default)]
struct Echoes;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn echoed(EchoRequest { message }: EchoRequest) -> EchoResponse {
    EchoResponse { message }
}

fn say(message: &str) -> EchoRequest {
    EchoRequest { message: message.to_owned() }
}

#[tonic::async_trait]
impl Echo for Echoes {
    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        Ok(Response::new(echoed(request.into_inner())))
    }

    type ServerStreamingStream = Responses<EchoResponse>;

    async fn server_streaming(
        &self,
        request: Request<EchoRequest>,
    ) -> Result<Response<Self::ServerStreamingStream>, Status> {
        let response = echoed(request.into_inner());
        Ok(Response::new(Box::pin(tokio_stream::iter(std::iter::repeat(Ok(response))))))
    }

    async fn client_streaming(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoResponse>, Status> {
        let mut requests = request.into_inner();
        let mut message = String::new();
        while let Some(request) = requests.message().await? {
            message.push_str(&request.message);
        }
        Ok(Response::new(EchoResponse { message }))
    }

    type BidirectionalStream = Responses<EchoResponse>;

    async fn bidirectional(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Self::BidirectionalStream>, Status> {
        Ok(Response::new(Box::pin(request.into_inner().map(|request| request.map(echoed)))))
    }
}
