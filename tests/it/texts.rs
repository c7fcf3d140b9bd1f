//! The texts of failed calls: they name the server, the method, the end and the figures.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use samehost::ping::{
    CollectRequest, PingRequest, PingResponse, PingServiceClient, PingServiceServer, WatchRequest,
};
use samehost::{Channel, ChannelState, ConnectErrorKind, Listener, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tonic::{Code, Request, Status};

use crate::support::{Running, Scripted, Transport, directory, socket_in};
use crate::wire::{Peer, headers};

/// Calls a server that answers each connection with `bytes`, and then closes it if `closes` is set.
/// Returns the status and the address.
async fn answered(bytes: &'static [u8], closes: bool) -> (Status, String) {
    let directory = directory();
    let listener = Listener::bind(&socket_in(directory.path())).await.unwrap();
    let address = listener.local_addr().clone();
    let server = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let mut conn = listener.accept().await.unwrap();
            conn.write_all(bytes).await.unwrap();
            if closes {
                conn.shutdown().await.unwrap();
                // The client's bytes are read, so that the connection does not end by a reset.
                let _ = conn.read_to_end(&mut Vec::new()).await;
            } else {
                open.push(conn);
            }
        }
    });
    let builder = Channel::builder(&address).connect_timeout(Duration::from_secs(3));
    let mut client = PingServiceClient::new(builder.connect_lazy());
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    server.abort();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    (status, address.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_none_of_grpcs() {
    let http1 = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    for (bytes, says) in [
        (&http1[..], "it answers in HTTP/1"),
        // The alert "protocol version" (RFC 8446 §6).
        (b"\x15\x03\x01\0\x02\x02\x46", "it answers in TLS"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "the first frame is not SETTINGS"),
    ] {
        for closes in [false, true] {
            let (status, address) = answered(bytes, closes).await;
            let text = status.message();
            let whole = format!(
                "the server at {address} does not speak HTTP/2 ({says}): check that it is a gRPC server"
            );
            assert_eq!(text, whole);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing() {
    let (status, address) = answered(b"", false).await;
    let says =
        format!("the server at {address} took the connection and has sent no SETTINGS within 3s");
    assert!(status.message().starts_with(&says), "{status}");
    assert!(status.message().contains("raise the channel's connect_timeout"), "{status}");
}

/// The call's deadline comes before the connect timeout, and before that there was no server.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_until_the_deadline() {
    let directory = directory();
    let address = socket_in(directory.path());
    let channel = Channel::builder(&address).wait_for_ready(true).connect_lazy();
    let mut client = PingServiceClient::new(channel.clone());
    let mut request = Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_secs(3));
    let call = tokio::spawn(async move { client.ping(request).await });
    while channel.state_changed().await != ChannelState::TransientFailure {}
    let silent = Listener::bind(&address).await.unwrap();
    let status = call.await.unwrap().unwrap_err();
    drop(silent);
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let begins = format!(
        "the server at {address} took the connection and has sent no SETTINGS yet: it may still"
    );
    let text = status.message();
    assert!(text.starts_with(&begins) && text.ends_with(", waited 3 s"), "{text}");
    assert!(text.contains("the request's set_timeout"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_server_says_nothing_until_the_deadline() {
    let (ours, _theirs) = tokio::io::duplex(1 << 16);
    let mut client = PingServiceClient::new(Channel::from_stream(ours));
    let mut request = Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_secs(3));
    let status = client.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let begins = "the server took the connection and has sent no SETTINGS yet: ";
    assert!(status.message().starts_with(begins), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_does_not_return_until_the_deadline() {
    let channel = Channel::from_connector(std::future::pending::<std::io::Result<DuplexStream>>);
    let mut client = PingServiceClient::new(channel);
    let mut request = Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_secs(3));
    let status = client.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().starts_with("no connection by the connector yet: "), "{status}");
}

#[tokio::test]
async fn a_connector_that_panics() {
    type Connected = std::io::Result<DuplexStream>;
    let at_once =
        Channel::from_connector(|| -> std::future::Ready<Connected> { panic!("at once") });
    let later = Channel::from_connector(|| async {
        tokio::task::yield_now().await;
        let text = "later".to_owned();
        if true {
            panic!("{text}");
        }
        Connected::Err(std::io::ErrorKind::Other.into())
    });
    for (channel, message) in [(at_once, "at once"), (later, "later")] {
        for _ in 0..2 {
            let mut client = PingServiceClient::new(channel.clone());
            let status = client.ping(PingRequest::ping()).await.unwrap_err();
            let text = format!("the connector failed: it panicked: {message}");
            assert_eq!((status.code(), status.message()), (Code::Unavailable, &*text));
        }
    }
}

#[tokio::test]
async fn a_status_tells_a_failure_to_connect_once() {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut client = PingServiceClient::new(Channel::builder(&address).connect_lazy());
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    for printed in [status.to_string(), format!("{status:?}")] {
        assert_eq!(printed.matches("no server is listening").count(), 1, "{printed}");
        assert!(printed.contains("NoServer"), "{printed}");
    }
    // A program that returns the error from `main` prints it in this form.
    let error = Channel::connect(&address).await.unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
}

#[tokio::test]
async fn a_socket_of_another_type() {
    let directory = directory();
    let address = socket_in(directory.path());
    let _datagram = UnixDatagram::bind(address.as_path().unwrap()).unwrap();
    let error = Channel::connect(&address).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::NotASocket);
    let text = error.to_string();
    assert!(text.contains("the socket there is of another type"), "{text}");
    assert!(text.starts_with(&address.to_string()) && !text.contains("not a socket"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_at_once() {
    let (status, address) = answered(b"", true).await;
    let says = format!("the server at {address} closed the connection before it took a call: ");
    assert!(status.message().starts_with(&says), "{status}");
    assert!(status.message().ends_with("try again, or look into its log"), "{status}");
}

#[tokio::test]
async fn a_deadline_that_passes_at_the_client() {
    let service = Scripted::default()
        .on_ping(|_| std::future::pending())
        .on_watch(|_| tokio_stream::pending());
    let server = Running::start(Transport::Unix, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let timeout = Duration::from_millis(50);

    let mut request = Request::new(PingRequest::ping());
    request.set_timeout(timeout);
    let status = client.ping(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // Either end's deadline may pass first.
    let text = status.message();
    assert!(text.starts_with("/ping.v1.PingService/Ping: "), "{text}");
    assert!(text.contains("deadline of 50 ms") || text.contains("deadline of 50ms"), "{text}");

    let mut request = Request::new(WatchRequest::default());
    request.set_timeout(timeout);
    let status = async { client.watch(request).await?.into_inner().message().await };
    let status = status.await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let text = status.message();
    assert!(text.starts_with("/ping.v1.PingService/Watch: "), "{text}");
    assert!(text.contains("deadline of 50 ms") || text.contains("deadline of 50ms"), "{text}");
}

/// In each case one of the ends has no deadline of its own.
#[tokio::test(start_paused = true)]
async fn a_deadline_is_told_with_the_end_at_which_it_passed() {
    let head = [(":status", "200"), ("content-type", "application/grpc")];
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut client = PingServiceClient::new(Channel::from_stream(ours));
    let call = tokio::spawn(async move {
        let mut request = Request::new(WatchRequest::default());
        request.set_timeout(Duration::from_secs(3));
        client.watch(request).await?.into_inner().message().await
    });
    let mut server = Peer::server(theirs, &[]).await;
    server.until(|frame| frame.ends_stream()).await;
    server.send(&headers(1, &crate::wire::block(&head), false)).await;
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(
        status.message(),
        "/ping.v1.PingService/Watch: the response was not complete within the deadline of 3s"
    );

    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let service = Scripted::default().on_ping(|_| std::future::pending());
    let server = service.server().timeout(Duration::from_secs(3));
    tokio::spawn(server.serve_connection(theirs));
    let mut client = PingServiceClient::new(Channel::from_stream(ours));
    let status = client.ping(PingRequest::ping()).await.unwrap_err();
    assert_eq!(
        status.message(),
        "/ping.v1.PingService/Ping: its deadline of 3s (Server::timeout) has passed at the server"
    );
}

fn request_of(bytes: usize) -> PingRequest {
    PingRequest { payload: vec![7; bytes].into(), ..PingRequest::ping() }
}

#[tokio::test]
async fn a_message_that_is_too_large() {
    let service = || PingServiceServer::new(Scripted::default());
    let limited = Server::new().add_service(service().max_decoding_message_size(1_000));
    let server = Running::start(Transport::Unix, limited).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let status = client.ping(request_of(2_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let named = |text: &str| text.contains("2009") && text.contains("1000");
    assert!(named(status.message()), "{status}");
    let remedies = |status: &Status, message: &str, end: &str, setter: &str| {
        let (begins, ends) = (format!("the message of a {message} "), format!(" {end}"));
        let text = status.message();
        assert!(text.starts_with(&begins) && text.ends_with(&ends), "{text}");
        assert!(text.contains(&format!("the {end}'s limit")) && text.contains(setter), "{text}");
    };
    remedies(&status, "request", "server", "max_decoding_message_size");

    let server = Running::start(Transport::Unix, Server::new().add_service(service())).await;
    let channel = server.channel().await;
    let mut client = PingServiceClient::new(channel.clone()).max_decoding_message_size(1_000);
    let status = client.ping(request_of(2_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(named(status.message()), "{status}");
    remedies(&status, "response", "client", "max_decoding_message_size");

    // What is to be sent.
    let mut client = PingServiceClient::new(channel.clone()).max_encoding_message_size(1_000);
    let status = client.ping(request_of(2_000)).await.unwrap_err();
    remedies(&status, "request", "client", "max_encoding_message_size");
    let one = CollectRequest { payload: vec![7; 2_000].into(), ..Default::default() };
    let status = client.collect(tokio_stream::once(one)).await.unwrap_err();
    remedies(&status, "request", "client", "max_encoding_message_size");
    let limited = Server::new().add_service(service().max_encoding_message_size(1_000));
    let server = Running::start(Transport::Unix, limited).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let status = client.ping(request_of(2_000)).await.unwrap_err();
    remedies(&status, "response", "server", "max_encoding_message_size");

    // tonic's stubs have another code and another text, with the same figures.
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(1_000);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/ping.v1.PingService/Ping");
    let codec = tonic_prost::ProstCodec::<PingRequest, PingResponse>::default();
    let status = client.unary(Request::new(request_of(2_000)), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert!(named(status.message()), "{status}");
}
