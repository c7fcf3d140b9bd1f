//! tonic's own transport on our sockets: its server on our listener, its client through our
//! connector, and each with ours at the other end.

use samehost::ping::{
    ConverseRequest, Ping, PingRequest, PingResponse, PingServiceClient, PingServiceServer,
};
use samehost::{Channel, ConnectInfo, Connector, Listener};
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Status};

use crate::support::{Running, Transport, directory, on_both_transports, socket_in};

on_both_transports!(tonic_on_both_ends, tonic_as_the_client, tonic_as_the_server);

async fn tonic_channel(address: &samehost::Address) -> tonic::transport::Channel {
    let connector = Connector::new(address.clone());
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

/// Makes a unary call and a stream of two messages.
async fn call<T>(channel: T)
where
    T: tonic::client::GrpcService<tonic::body::Body>,
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

/// A server of tonic's that answers only callers whose connection it is told of.
struct TonicServer {
    address: samehost::Address,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl TonicServer {
    async fn start(transport: Transport) -> Self {
        let directory = directory();
        let address = match transport {
            Transport::Unix => socket_in(directory.path()),
            Transport::Tcp => "127.0.0.1:0".parse().unwrap(),
        };
        let listener = Listener::bind(&address).await.unwrap();
        let address = listener.local_addr().clone();
        let known = move |request: Request<()>| match (transport, request.extensions().get()) {
            (Transport::Unix, Some(ConnectInfo::Unix(info)))
                if info.peer_cred.is_some_and(|peer| {
                    peer.uid() == rustix::process::geteuid().as_raw()
                        && peer.pid() == Some(std::process::id().cast_signed())
                }) =>
            {
                Ok(request)
            }
            (Transport::Tcp, Some(ConnectInfo::Tcp(info)))
                if info.remote_addr.is_some_and(|peer| peer.ip().is_loopback()) =>
            {
                Ok(request)
            }
            (_, info) => Err(Status::permission_denied(format!("{info:?}"))),
        };
        let service = PingServiceServer::with_interceptor(Ping::default(), known);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            let server = Server::builder().add_service(service);
            server.serve_with_incoming_shutdown(listener, stopped).await.unwrap();
        });
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

#[tokio::test]
async fn who_connects_to_no_server_is_told_so() {
    let directory = directory();
    let connector = Connector::new(socket_in(directory.path()));
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
    assert!(
        causes.iter().any(|text| text.starts_with("no server is listening at unix:")),
        "{causes:?}"
    );
}
