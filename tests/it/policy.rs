//! Peer policies of whole servers, of services and methods, and of clients that require a certain
//! server.

use std::error::Error;

use samehost::ping::{Ping, PingRequest, PingServiceClient, PingServiceServer, WatchRequest};
use samehost::{
    Address, Channel, ConnectError, ConnectErrorKind, Listener, PeerPolicy, PeerPolicyLayer,
    ServeErrorKind, Server,
};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tonic::{Code, Status};

use crate::support::{Log, Running, Transport, directory, ping_server, socket_in};

type PingServer = PingServiceServer<Ping>;

/// A policy that allows no peer: no user has this number (setresuid(2)).
fn nobody() -> PeerPolicy {
    PeerPolicy::uids([u32::MAX])
}

async fn ping(server: &Running) -> Result<(), Status> {
    let channel = Channel::builder(&server.address).connect_lazy();
    PingServiceClient::new(channel).ping(PingRequest::ping()).await.map(drop)
}

#[tokio::test]
async fn a_policy_over_tcp_fails_at_start() {
    let layer = PeerPolicyLayer::new().service::<PingServer>(PeerPolicy::anyone());
    let tcp: Address = "127.0.0.1:0".parse().unwrap();
    let directory = directory();
    // The policy also fails if there is a Unix listener as well, where it could hold.
    for unix_too in [false, true] {
        let mut listeners = vec![Listener::bind(&tcp).await.unwrap()];
        if unix_too {
            let unix = Listener::bind(&socket_in(directory.path())).await.unwrap();
            listeners.insert(0, unix);
        }
        let error = ping_server().peer_policy(PeerPolicy::anyone()).serve(listeners).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ServeErrorKind::PolicyOverTcp, "{error}");
        assert!(error.address().is_some());
        assert!(error.to_string().contains("127.0.0.1:"), "{error}");
    }
    let listener = Listener::bind(&tcp).await.unwrap();
    let error = ping_server().method_policy(layer).serve(listener).await.unwrap_err();
    assert_eq!(error.kind(), ServeErrorKind::PolicyOverTcp, "{error}");
}

#[tokio::test]
async fn an_abstract_socket_without_a_policy_fails_at_start() {
    let name = format!("samehost-policy-{}", std::process::id());
    let address = Address::unix_abstract(name).unwrap();
    let listener = Listener::bind(&address).await.unwrap();
    // A method policy alone would let every process hold connections.
    let layer = PeerPolicyLayer::new().service::<PingServer>(PeerPolicy::anyone());
    let error = ping_server().method_policy(layer).serve(listener).await.unwrap_err();
    assert_eq!(error.kind(), ServeErrorKind::NoPolicy, "{error}");
    assert_eq!(error.address(), Some(&address));

    let server = Running::start_at(&address, ping_server().peer_policy(PeerPolicy::same_user()));
    ping(&server.await).await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_is_logged() {
    let (log, _guard) = Log::start();
    let server = Running::start(Transport::Unix, ping_server().peer_policy(nobody())).await;
    let status = ping(&server).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let refusals = log.lines("a connection was refused");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let pid = std::process::id();
    assert!(refusals[0].contains(&format!("uid={uid} gid={gid} pid={pid}")), "{refusals:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_refused_connections_is_no_flood_of_log_events() {
    let (log, _guard) = Log::start();
    let server = Running::start(Transport::Unix, ping_server().peer_policy(nobody())).await;
    let path = server.address.as_path().unwrap();
    let started = std::time::Instant::now();
    for _ in 0..1_000 {
        let mut stream = UnixStream::connect(path).await.unwrap();
        // It reads the server's SETTINGS or a GOAWAY.
        assert_ne!(stream.read(&mut [0; 9]).await.unwrap(), 0);
    }
    let seconds = started.elapsed().as_secs() as usize + 1;
    let logged = log.lines("a connection was refused").len();
    assert!((100..=100 * seconds).contains(&logged), "{logged} in {seconds} s");
}

#[tokio::test]
async fn each_method_has_its_own_policy_and_the_rest_is_denied() {
    let (log, _guard) = Log::start();
    let layer = PeerPolicyLayer::new()
        .service::<PingServer>(PeerPolicy::same_user())
        .method::<PingServer>("Watch", nobody())
        .method::<PingServer>("Collect", PeerPolicy::anyone())
        .service_named("other.Service", PeerPolicy::anyone());
    let server = Running::start(Transport::Unix, ping_server().method_policy(layer)).await;
    ping(&server).await.unwrap();

    let mut client = PingServiceClient::new(server.channel().await);
    client.collect(tokio_stream::empty()).await.unwrap();
    let request = WatchRequest { count: 1, ..WatchRequest::default() };
    let status = client.watch(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.message(), "this peer may not make this call");

    let uid = rustix::process::geteuid().as_raw();
    let refusals = log.lines("a call was refused");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    for part in [format!("uid={uid} "), format!("pid={}", std::process::id())] {
        assert!(refusals[0].contains(&part), "{refusals:?}");
    }
    assert!(refusals[0].contains("/ping.v1.PingService/Watch"), "{refusals:?}");
    server.stop().await;

    // The layer wraps one service.
    let one = PeerPolicyLayer::new().service::<PingServer>(nobody());
    let one = tower::Layer::layer(&one, PingServiceServer::new(Ping::default()).into_service());
    let server = Running::start(Transport::Unix, Server::new().add_service(one)).await;
    assert_eq!(ping(&server).await.unwrap_err().code(), Code::PermissionDenied);

    // No rule names this service.
    let layer = PeerPolicyLayer::new().service_named("other.Service", PeerPolicy::anyone());
    let server = Running::start(Transport::Unix, ping_server().method_policy(layer)).await;
    assert_eq!(ping(&server).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_policy_of_a_method_that_is_not_there_is_refused() {
    let anyone = PeerPolicy::anyone;
    let layer = || PeerPolicyLayer::new().service::<PingServiceServer<Ping>>(anyone());
    for (method, known) in [("Ping", true), ("Watch", true), ("ping", false), ("Wacth", false)] {
        let directory = directory();
        let listener = Listener::bind(&socket_in(directory.path())).await.unwrap();
        let layer = layer().method::<PingServiceServer<Ping>>(method, anyone());
        let server = ping_server().method_policy(layer);
        let served = server.serve_with_shutdown(listener, std::future::ready(())).await;
        assert_eq!(served.is_ok(), known, "{method}: {served:?}");
        if let Err(error) = served {
            assert_eq!(error.kind(), ServeErrorKind::UnknownMethod);
            let text = error.to_string();
            assert!(text.contains(&format!("{method:?}, which ping.v1.PingService")), "{text}");
            assert!(text.ends_with("write one of Ping, Converse, Watch, Collect"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_single_connection_is_held_to_the_policy_too() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = ping_server().peer_policy(PeerPolicy::anyone());
    let error = server.serve_connection(theirs).await.unwrap_err();
    assert_eq!(error.kind(), ServeErrorKind::PeerRefused, "{error}");
    drop(ours);

    let directory = directory();
    let listener = Listener::bind(&socket_in(directory.path())).await.unwrap();
    for (policy, let_in) in [(PeerPolicy::same_user(), true), (nobody(), false)] {
        let channel = Channel::builder(listener.local_addr()).connect_lazy();
        let mut client = PingServiceClient::new(channel);
        let call = tokio::spawn(async move { client.ping(PingRequest::ping()).await });
        let conn = listener.accept().await.unwrap();
        let serving = tokio::spawn(ping_server().peer_policy(policy).serve_connection(conn));
        if let_in {
            call.await.unwrap().unwrap();
        } else {
            let status = call.await.unwrap().unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{status}");
            assert_eq!(status.message(), "refused by the server's policy");
            let error = serving.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ServeErrorKind::PeerRefused, "{error}");
        }
    }
}

#[tokio::test]
async fn a_client_talks_only_to_the_server_that_it_wants() {
    let server = Running::ping(Transport::Unix).await;
    let ours = PeerPolicy::same_user();
    let channel = Channel::builder(&server.address).require_server(ours).connect().await.unwrap();
    PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();

    let builder = Channel::builder(&server.address).require_server(nobody());
    let error = builder.clone().connect().await.unwrap_err();
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(error.kind(), ConnectErrorKind::WrongServer, "{error}");
    assert_eq!(error.address(), Some(&server.address));
    let refused = error.server().unwrap();
    assert_eq!((refused.uid(), refused.pid()), (uid, Some(std::process::id())));
    let text = error.to_string();
    assert!(text.contains(&format!("uid {uid}")), "{text}");

    // A channel that connects later has the error in its calls.
    let mut client = PingServiceClient::new(builder.connect_lazy());
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let source = status.source().unwrap().downcast_ref::<ConnectError>().unwrap();
    assert_eq!(source.kind(), ConnectErrorKind::WrongServer, "{status:?}");
}

#[tokio::test]
async fn a_server_that_is_not_wanted_gets_to_read_nothing() {
    let directory = directory();
    let listener = Listener::bind(&socket_in(directory.path())).await.unwrap();
    let builder = Channel::builder(listener.local_addr()).require_server(nobody());
    builder.connect().await.unwrap_err();
    let mut read = Vec::new();
    listener.accept().await.unwrap().read_to_end(&mut read).await.unwrap();
    assert!(read.is_empty());
}

#[tokio::test]
async fn over_tcp_no_server_is_the_wanted_one() {
    let server = Running::ping(Transport::Tcp).await;
    let builder = Channel::builder(&server.address).require_server(PeerPolicy::anyone());
    let error = builder.connect().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::UnknownServer, "{error}");
}
