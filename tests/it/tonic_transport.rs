//! tonic's own transport on our sockets: its server on our listener, its client through our
//! connector, and each with ours at the other end.

use std::future::Future;
use std::pin::Pin;

use samehost::ping::{
    ConverseRequest, Ping, PingRequest, PingResponse, PingServiceClient, PingServiceServer,
};
use samehost::{Address, Channel, ConnectInfo, Connector, Listener, PeerPolicy, PeerPolicyLayer};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::transport::server::UdsConnectInfo;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Status};

use crate::support::{Running, Transport, directory, on_both_transports, socket_in};

on_both_transports!(
    tonic_on_both_ends,
    tonic_as_the_client,
    tonic_as_the_server,
    a_policy_stands_before_tonics_server,
    our_server_speaks_of_peers_in_tonics_words,
);

const PING: &str = "ping.v1.PingService";

async fn tonic_channel(address: &Address) -> tonic::transport::Channel {
    let connector = Connector::new(address.clone());
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

/// Makes a unary call and a stream of two messages.
async fn call<T>(channel: T)
where
    T: tonic::client::GrpcService<tonic::body::Body> + 'static,
    T::Error: Into<tonic::codegen::StdError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    let mut client = PingServiceClient::new(channel);
    let reply = client.ping(PingRequest { sequence: 7, ..PingRequest::ping() }).await.unwrap();
    let PingResponse { message, sequence, .. } = reply.into_inner();
    assert_eq!((message.as_str(), sequence), ("pong", 7));
    let turns = ["ping", "end"].map(|message| ConverseRequest {
        message: message.to_owned(),
        ..ConverseRequest::default()
    });
    let replies = client.converse(tokio_stream::iter(turns)).await.unwrap().into_inner();
    let replies: Vec<_> = replies.map(|reply| reply.unwrap().message).collect().await;
    assert_eq!(replies, ["pong"]);
}

/// tonic's own server.
struct TonicServer {
    address: Address,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    _directory: TempDir,
}

impl TonicServer {
    /// Starts a server that only answers callers whose peer is known.
    async fn start(transport: Transport) -> Self {
        let known = move |request: Request<()>| {
            let info = request.extensions().get::<ConnectInfo>().unwrap();
            let is_known = match transport {
                Transport::Unix => {
                    info.tcp_peer().is_none()
                        && info.peer_identity().unwrap().pid() == Some(std::process::id())
                }
                Transport::Tcp => {
                    info.peer_identity().is_none()
                        && info.tcp_peer().unwrap().remote_addr().ip().is_loopback()
                }
            };
            is_known.then_some(request).ok_or_else(|| Status::permission_denied("unknown"))
        };
        let service = PingServiceServer::with_interceptor(Ping::default(), known);
        Self::serve(transport, |listener, stopped| {
            Server::builder().add_service(service).serve_with_incoming_shutdown(listener, stopped)
        })
        .await
    }

    async fn serve<F>(
        transport: Transport,
        serve: impl FnOnce(Listener, Pin<Box<dyn Future<Output = ()> + Send>>) -> F,
    ) -> Self
    where
        F: Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
    {
        let directory = directory();
        let address = match transport {
            Transport::Unix => socket_in(directory.path()),
            Transport::Tcp => "127.0.0.1:0".parse().unwrap(),
        };
        let listener = Listener::bind(&address).await.unwrap();
        let address = listener.local_addr().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = serve(listener, Box::pin(async { drop(stopped.await) }));
        let task = tokio::spawn(async move { server.await.unwrap() });
        Self { address, stop, task, _directory: directory }
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap();
        if let Some(path) = self.address.as_path() {
            assert!(!path.exists(), "the socket's file goes with the listener");
        }
    }
}

async fn tonic_on_both_ends(transport: Transport) {
    let server = TonicServer::start(transport).await;
    call(tonic_channel(&server.address).await).await;
    server.stop().await;
}

async fn tonic_as_the_server(transport: Transport) {
    let server = TonicServer::start(transport).await;
    call(Channel::connect(&server.address).await.unwrap()).await;
    server.stop().await;
}

async fn tonic_as_the_client(transport: Transport) {
    let server = Running::ping(transport).await;
    call(tonic_channel(&server.address).await).await;
}

/// Over TCP no peer is known, so every call is refused.
async fn a_policy_stands_before_tonics_server(transport: Transport) {
    let policies = PeerPolicyLayer::new()
        .service_named(PING, PeerPolicy::same_user())
        .method_named(PING, "Collect", PeerPolicy::predicate(|_| false));
    let server = TonicServer::serve(transport, |listener, stopped| {
        Server::builder()
            .layer(policies)
            .add_service(PingServiceServer::new(Ping::default()))
            .serve_with_incoming_shutdown(listener, stopped)
    })
    .await;
    let mut client = PingServiceClient::new(tonic_channel(&server.address).await);
    let ping = client.ping(PingRequest::ping()).await.map_err(|status| status.code());
    match transport {
        Transport::Unix => assert_eq!(ping.unwrap().into_inner().message, "pong"),
        Transport::Tcp => assert_eq!(ping.unwrap_err(), Code::PermissionDenied),
    }
    let collect = client.collect(tokio_stream::empty()).await;
    assert_eq!(collect.unwrap_err().code(), Code::PermissionDenied);
    drop(client);
    server.stop().await;
}

async fn our_server_speaks_of_peers_in_tonics_words(transport: Transport) {
    let known = move |request: Request<()>| {
        let uds = request.extensions().get::<UdsConnectInfo>();
        let is_known = match transport {
            Transport::Unix => {
                let peer = uds.unwrap().peer_cred.unwrap();
                peer.pid() == Some(std::process::id().cast_signed())
                    && peer.uid() == rustix::process::geteuid().as_raw()
            }
            Transport::Tcp => {
                let local = request.local_addr().unwrap();
                uds.is_none()
                    && local.port() != 0
                    && request.remote_addr().unwrap().ip() == local.ip()
            }
        };
        is_known.then_some(request).ok_or_else(|| Status::permission_denied("unknown"))
    };
    let service = PingServiceServer::with_interceptor(Ping::default(), known);
    let server = Running::start(transport, samehost::Server::new().add_service(service)).await;
    call(Channel::connect(&server.address).await.unwrap()).await;
}

#[tokio::test]
async fn who_connects_to_no_server_is_told_so() {
    let directory = directory();
    for (connector, expected) in [
        (Connector::new(socket_in(directory.path())), "no server is listening at unix:"),
        (Connector::new("/run/app.sock"), "/run/app.sock: a Unix socket needs its scheme"),
    ] {
        let error = Endpoint::from_static("http://localhost")
            .connect_with_connector(connector)
            .await
            .unwrap_err();
        let mut causes = vec![error.to_string()];
        let mut cause = std::error::Error::source(&error);
        while let Some(deeper) = cause {
            causes.push(deeper.to_string());
            cause = deeper.source();
        }
        assert!(causes.iter().any(|text| text.starts_with(expected)), "{causes:?}");
    }
}
