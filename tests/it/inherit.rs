//! Sockets that another process has bound. Those of systemd itself are tested in tests/systemd/run.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use samehost::ping::{Ping, PingRequest, PingServiceClient, PingServiceServer};
use samehost::{
    Address, Channel, ConnectErrorKind, InheritErrorKind, Listener, PeerPolicy, Server,
};

use crate::support::{as_user, directory, socket_in};

async fn serves(listener: Listener) {
    let address = listener.local_addr().clone();
    let mut server = Server::new().add_service(PingServiceServer::new(Ping::default()));
    if address.is_unix_abstract() {
        server = server.peer_policy(PeerPolicy::same_user());
    }
    let serving = tokio::spawn(server.serve(listener));
    let channel = Channel::connect(&address).await.unwrap();
    PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();
    serving.abort();
    let _ = serving.await;
}

#[tokio::test]
async fn each_kind_of_socket_is_served_at_its_own_address_and_a_path_stays() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let listener = Listener::from_std(UnixListener::bind(path).unwrap()).unwrap();
    assert_eq!(listener.local_addr(), &address);
    serves(listener).await;
    assert!(path.exists());

    let name = format!("samehost-inherit-{}", std::process::id());
    let place = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = Listener::from_std(UnixListener::bind_addr(&place).unwrap()).unwrap();
    assert_eq!(listener.local_addr(), &Address::unix_abstract(name).unwrap());
    serves(listener).await;

    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = socket.local_addr().unwrap();
    let listener = Listener::from_std(socket).unwrap();
    assert_eq!(listener.local_addr(), &Address::from(bound));
    serves(listener).await;
}

/// Binds a socket as C programs can, with a path that leaves no room for a NUL behind it (unix(7)).
fn bound_to(path: &Path) -> OwnedFd {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 1).unwrap();
    socket
}

#[tokio::test]
async fn paths_and_names_that_fill_an_address_are_read_whole() {
    const SUN_PATH: usize = 108;
    let directory = directory();
    for length in [SUN_PATH - 2, SUN_PATH - 1, SUN_PATH] {
        let name = "n".repeat(length - directory.path().as_os_str().len() - 1);
        let path = directory.path().join(name);
        assert_eq!(path.as_os_str().len(), length);
        let listener = Listener::from_std(bound_to(&path)).unwrap();
        assert_eq!(listener.local_addr(), &Address::unix(path).unwrap());
        serves(listener).await;
    }
    let start = format!("samehost-long-{}-", std::process::id());
    let longest = format!("{start:x<width$}", width = SUN_PATH - 1);
    for name in [start, longest] {
        let place = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = Listener::from_std(UnixListener::bind_addr(&place).unwrap()).unwrap();
        assert_eq!(listener.local_addr(), &Address::unix_abstract(name).unwrap());
        serves(listener).await;
    }
}

#[tokio::test]
async fn what_does_not_listen_is_refused() {
    let (stream, _other) = UnixStream::pair().unwrap();
    let datagram = UnixDatagram::unbound().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for descriptor in [stream.into(), datagram.into(), file.into()] {
        let descriptor: OwnedFd = descriptor;
        let error = Listener::from_std(descriptor).unwrap_err();
        assert_eq!(error.kind(), InheritErrorKind::NotAListener, "{error}");
        assert_eq!(error.address(), None);
    }
    let directory = directory();
    let address = socket_in(directory.path());
    let bound = UnixDatagram::bind(address.as_path().unwrap()).unwrap();
    let error = Listener::from_std(bound).unwrap_err();
    assert_eq!(error.address(), Some(&address));
    assert!(error.to_string().contains(&format!("the socket given ({address}) is not")), "{error}");
}

#[tokio::test]
async fn clients_see_who_serves_and_not_who_bound() {
    let directory = directory();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let Some(socket) = as_user(1234, 1234, &[], || UnixListener::bind(path).unwrap()) else {
        return;
    };
    let wanted = Channel::builder(&address).require_server(PeerPolicy::same_user());
    let error = wanted.clone().connect().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::WrongServer, "{error}");
    let server = error.server().unwrap();
    assert_eq!((server.uid(), server.gid()), (1234, 1234));
    tokio::spawn(Server::new().serve(Listener::from_std(socket).unwrap()));
    wanted.connect().await.unwrap();
}

#[tokio::test]
async fn without_systemd_there_is_nothing_to_inherit() {
    assert!(Listener::from_systemd().unwrap().is_empty());
    assert_eq!(Listener::from_systemd().unwrap_err().kind(), InheritErrorKind::Taken);
}

/// Runs a test of this program by itself, as a process to which systemd passes `socket`.
fn run_with_passed(test: &str, socket: impl Into<OwnedFd>) {
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" --exact \"$1\" 3<&0 </dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(std::env::current_exe().unwrap()).arg(test);
    let output = command.stdin(socket.into()).output().unwrap();
    let (printed, errors) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let printed = printed.unwrap() + &errors.unwrap();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

/// What has the number of a passed socket after that was closed is somebody else's.
#[tokio::test]
async fn passed_sockets_are_taken_once_also_where_they_are_closed_again() {
    if std::env::var("LISTEN_PID") != Ok(std::process::id().to_string()) {
        let test = "inherit::passed_sockets_are_taken_once_also_where_they_are_closed_again";
        return run_with_passed(test, TcpListener::bind("127.0.0.1:0").unwrap());
    }
    let passed = Listener::from_systemd().unwrap();
    assert_eq!(passed.len(), 1);
    drop(passed);
    assert_eq!(Listener::from_systemd().unwrap_err().kind(), InheritErrorKind::Taken);
    // The first copy has the lowest number that is free.
    let others = [(); 16].map(|()| rustix::io::dup(std::io::stdin()).unwrap());
    let other = others.iter().find(|other| other.as_raw_fd() == 3).unwrap();
    assert_eq!(Listener::from_systemd().unwrap_err().kind(), InheritErrorKind::Taken);
    assert_eq!(rustix::io::fcntl_getfd(other).unwrap(), FdFlags::empty());
}
