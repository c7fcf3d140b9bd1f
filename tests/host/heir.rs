//! A child process that inherits all parts of its parent's listener serves on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

use samehost::ping::{Ping, PingRequest, PingServiceClient, PingServiceServer};
use samehost::{Channel, Listener, ListenerParts, Server};

use crate::Scale;
use crate::support::{block_on, directory, eventually, names_in, socket_in};

pub(crate) fn serves_on(_: Scale) -> String {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let parts = block_on(async { Listener::bind(&address).await.unwrap().into_parts().unwrap() });
    let inode = path.metadata().unwrap().ino();
    // It waits in the queue for whoever serves.
    let _queued = UnixStream::connect(path).unwrap();
    let ListenerParts { socket, lock, inode: published, .. } = parts;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["as", "heir", &address.to_string()])
        // Three descriptors that every child has.
        .stdin(Stdio::from(socket))
        .stdout(Stdio::from(lock.unwrap()))
        .stderr(Stdio::from(published.unwrap()))
        .spawn()
        .unwrap();
    block_on(async {
        let channel = Channel::connect(&address).await.unwrap();
        let mut client = PingServiceClient::new(channel);
        client.ping(PingRequest::ping()).await.unwrap();
    });
    let stream = UnixStream::connect(path).unwrap();
    let server = rustix::net::sockopt::socket_peercred(&stream).unwrap().pid;
    assert_eq!(server.as_raw_nonzero().get(), child.id().cast_signed());
    assert_eq!(path.metadata().unwrap().ino(), inode);
    block_on(async { Listener::bind(&address).await.unwrap_err() });
    crate::support::nix_signal::kill(child.id(), crate::support::nix_signal::Signal::TERM);
    assert!(child.wait().unwrap().success());
    eventually("its files are gone", || names_in(directory.path()).is_empty());
    "a child inherited the socket, the lock and the inode, and served on".to_owned()
}

/// The child.
pub(crate) fn run(address: &str) -> ExitCode {
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    // Nothing is to be printed here: it would go into the lock file.
    let parts = ListenerParts {
        socket: copy(io::stdin().as_fd()),
        address: address.parse().unwrap(),
        lock: Some(copy(io::stdout().as_fd())),
        inode: Some(copy(io::stderr().as_fd())),
    };
    block_on(async {
        let Ok(listener) = Listener::from_parts(parts) else { return ExitCode::from(3) };
        let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
        let mut terminated =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let stop = async {
            let _ = terminated.recv().await;
        };
        match server.serve_with_shutdown(listener, stop).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(4),
        }
    })
}
