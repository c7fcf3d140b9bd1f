//! The server that clients of every language meet: Ping, health and reflection as the command serves
//! them, gzip, and the services that only these tests have.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use prost::Message;
use samehost::ping::{FILE_DESCRIPTOR_SET, Ping, PingServiceServer};
use samehost::{Address, Listener, PeerPolicy, Server};
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Response, Status};
use tower::Service;

use crate::pb::interop::interop_service_server::{InteropService, InteropServiceServer};
use crate::pb::interop::{
    AnswerRequest, AnswerResponse, CrashRequest, CrashResponse, EndedRequest, EndedResponse,
    HoldRequest, HoldResponse,
};
use crate::test_service::TestService;

pub async fn serve(address: &Address) -> anyhow::Result<()> {
    let listener = Listener::bind(address).await?;
    println!("listening on {}", listener.local_addr());

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PingServiceServer<Ping>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let ping = PingServiceServer::new(Ping::default())
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let mut server = Server::new();
    if address.is_unix_abstract() {
        // It has no file whose mode would keep others out.
        server = server.peer_policy(PeerPolicy::same_user());
    }
    server
        .layer(tower::layer::layer_fn(Echo))
        .add_service(ping)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(InteropServiceServer::new(Interop::default()))
        .add_service(TestService::server())
        .serve(listener)
        .await?;
    Ok(())
}

/// What the handlers leave to a layer, since tonic has no call for it: trailing metadata of a call
/// that succeeds, and gzip for those alone who sent gzip. Tells the client by metadata how the
/// messages of both directions were encoded, which few libraries show to their users.
#[derive(Clone)]
struct Echo<S>(S);

/// What request metadata is sent back as, in the response's headers and in its trailers.
const ECHOED: [(&str, Option<&str>, Option<&str>); 4] = [
    ("echo-text", Some("echo-text"), Some("trailing-text")),
    ("echo-bin", Some("echo-bin"), Some("trailing-bin")),
    // gRPC's own cases.
    ("x-grpc-test-echo-initial", Some("x-grpc-test-echo-initial"), None),
    ("x-grpc-test-echo-trailing-bin", None, Some("x-grpc-test-echo-trailing-bin")),
];

impl<S> Service<http::Request<Body>> for Echo<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let asked = request.headers_mut();
        let identity = HeaderValue::from_static("identity");
        let encoding = asked.get("grpc-encoding").unwrap_or(&identity).clone();
        if encoding == identity {
            asked.remove("grpc-accept-encoding");
        }
        let (mut headers, mut trailers) = (HeaderMap::new(), HeaderMap::new());
        for (name, header, trailer) in ECHOED {
            let Some(value) = asked.get(name) else { continue };
            for (name, into) in [(header, &mut headers), (trailer, &mut trailers)] {
                if let Some(name) = name {
                    into.insert(name, value.clone());
                }
            }
        }
        headers.insert("request-encoding", encoding);

        let answered = self.0.call(request);
        Box::pin(async move {
            let (mut head, body) = answered.await?.into_parts();
            let encoding = head.headers.get("grpc-encoding").unwrap_or(&identity).clone();
            head.headers.insert("response-encoding", encoding);
            head.headers.extend(headers);
            let body = if trailers.is_empty() {
                body
            } else if head.headers.contains_key("grpc-status") {
                // There will be no trailers: the headers are both.
                head.headers.extend(trailers);
                body
            } else {
                Body::new(body.with_trailers(async { Some(Ok(trailers)) }))
            };
            Ok(http::Response::from_parts(head, body))
        })
    }
}

#[derive(Default)]
struct Interop {
    /// The identifiers of the Holds that have ended.
    ended: Arc<watch::Sender<HashSet<String>>>,
}

/// Dropped when its Hold has ended, for whatever reason.
struct Held {
    id: String,
    ended: Arc<watch::Sender<HashSet<String>>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ended.send_modify(|ended| {
            ended.insert(std::mem::take(&mut self.id));
        });
    }
}

#[tonic::async_trait]
impl InteropService for Interop {
    async fn answer(
        &self,
        request: Request<AnswerRequest>,
    ) -> Result<Response<AnswerResponse>, Status> {
        let request = request.into_inner();
        match Code::from(request.code) {
            Code::Ok => Ok(Response::new(AnswerResponse {})),
            code => {
                let details = request.encode_to_vec().into();
                Err(Status::with_details(code, request.message, details))
            }
        }
    }

    type HoldStream = Pin<Box<dyn Stream<Item = Result<HoldResponse, Status>> + Send>>;

    async fn hold(
        &self,
        request: Request<HoldRequest>,
    ) -> Result<Response<Self::HoldStream>, Status> {
        let held = Held { id: request.into_inner().id, ended: self.ended.clone() };
        let messages = tokio_stream::once(Ok(HoldResponse {})).chain(tokio_stream::pending());
        // The messages own what tells of their end.
        Ok(Response::new(Box::pin(messages.map(move |message| {
            let _ = &held;
            message
        }))))
    }

    async fn ended(
        &self,
        request: Request<EndedRequest>,
    ) -> Result<Response<EndedResponse>, Status> {
        let id = request.into_inner().id;
        // The sender is ours: it can't be gone.
        let _ = self.ended.subscribe().wait_for(|ended| ended.contains(&id)).await;
        Ok(Response::new(EndedResponse {}))
    }

    async fn crash(&self, _: Request<CrashRequest>) -> Result<Response<CrashResponse>, Status> {
        std::process::exit(0)
    }
}
