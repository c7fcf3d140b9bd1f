//! The identity of a request's sender, as its handler sees it.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use samehost::ping::{PingRequest, PingResponse, PingServiceClient};
use samehost::{Address, Channel, Listener, PeerIdentity, TcpPeer};
use tokio::net::UnixStream;
use tonic::{Extensions, Request, Response};

use crate::support::{Running, Scripted, Transport, directory, eventually_async, socket_in};

/// A service that stores the extensions of its last request.
fn noting() -> (Scripted, Arc<Mutex<Extensions>>) {
    let noted = Arc::new(Mutex::new(Extensions::new()));
    let service = {
        let noted = Arc::clone(&noted);
        Scripted::default().on_ping(move |request: Request<PingRequest>| {
            *noted.lock().unwrap() = request.extensions().clone();
            async { Ok(Response::new(PingResponse::default())) }
        })
    };
    (service, noted)
}

async fn call(channel: &Channel) {
    PingServiceClient::new(channel.clone()).ping(PingRequest::ping()).await.unwrap();
}

#[tokio::test]
async fn a_request_over_a_unix_socket_knows_its_caller() {
    let (service, noted) = noting();
    let server = Running::start(Transport::Unix, service.server()).await;
    let channel = server.channel().await;
    call(&channel).await;
    let peer = noted.lock().unwrap().get::<PeerIdentity>().unwrap().clone();
    assert!(noted.lock().unwrap().get::<TcpPeer>().is_none());
    assert_eq!(peer.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(peer.gid(), rustix::process::getegid().as_raw());
    assert_eq!(peer.pid(), Some(std::process::id()));
    assert_eq!(peer.local_addr(), &server.address);
    let groups = rustix::process::getgroups().unwrap();
    assert_eq!(peer.groups().unwrap(), groups.iter().map(|gid| gid.as_raw()).collect::<Vec<_>>());
    match peer.pidfd() {
        Ok(pidfd) => {
            let info = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
            let info = std::fs::read_to_string(info).unwrap();
            assert!(info.contains(&format!("Pid:\t{}\n", std::process::id())), "{info}");
        }
        Err(error) => assert_eq!(error.raw_os_error(), Some(nix_enoprotoopt()), "{error}"),
    }

    // The second call is on the same connection and has the same identity. After the end of the
    // connection, the identity still has what it had read before.
    call(&channel).await;
    let again = noted.lock().unwrap().get::<PeerIdentity>().unwrap().clone();
    assert_eq!(again.groups().unwrap().as_ptr(), peer.groups().unwrap().as_ptr());
    drop(channel);
    eventually_async("the connection is over", || peer.pidfd().is_err()).await;
    assert!(peer.groups().is_ok());
}

fn nix_enoprotoopt() -> i32 {
    rustix::io::Errno::NOPROTOOPT.raw_os_error()
}

#[tokio::test]
async fn a_request_over_tcp_knows_an_address_and_no_caller() {
    let (service, noted) = noting();
    let server = Running::start(Transport::Tcp, service.server()).await;
    call(&server.channel().await).await;
    let noted = noted.lock().unwrap();
    assert!(noted.get::<PeerIdentity>().is_none());
    let peer = noted.get::<TcpPeer>().unwrap();
    assert!(peer.remote_addr().ip().is_loopback());
    assert_eq!(peer.local_addr(), &server.address);
}

#[tokio::test]
async fn a_stream_has_no_identity_unless_a_listener_accepted_it() {
    let (service, noted) = noting();
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(service.clone().server().serve_connection(theirs));
    call(&Channel::from_stream(ours)).await;
    assert!(noted.lock().unwrap().get::<PeerIdentity>().is_none());

    let directory = directory();
    let address: Address = socket_in(directory.path());
    let listener = Listener::bind(&address).await.unwrap();
    let channel = Channel::builder(&address).connect_lazy();
    let serving = async {
        let conn = listener.accept().await.unwrap();
        assert_eq!(conn.peer_identity().unwrap().pid(), Some(std::process::id()));
        tokio::spawn(service.server().serve_connection(conn));
    };
    tokio::join!(call(&channel), serving);
    assert!(noted.lock().unwrap().get::<PeerIdentity>().is_some());
}
