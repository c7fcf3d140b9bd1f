//! The peers that a policy allows: users and groups, namespaces, and processes that change their
//! user after connecting.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use samehost::ping::{Ping, PingRequest, PingServiceClient, PingServiceServer};
use samehost::{Address, BindOptions, Channel, PeerPolicy, Server};
use tokio::net::{UnixSocket, UnixStream};
use tokio::time::timeout;
use tonic::Code;

use crate::support::{Serving, as_user, block_on, nix_signal, open_directory, socket_in};

/// Returns whether the server serves a call on this connection. A refused connection gets a status;
/// any other error fails the test.
async fn is_let_in(stream: UnixStream) -> bool {
    // The channel has only this connection and does not connect again.
    let mut client = PingServiceClient::new(Channel::from_stream(stream));
    let call = client.ping(PingRequest::ping());
    match timeout(Duration::from_secs(60), call).await.expect("no answer") {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
            // The text is the server's, so the client has not made up the status.
            assert_eq!(status.message(), "refused by the server's policy");
            false
        }
    }
}

fn connects(path: &Path) -> bool {
    block_on(async { is_let_in(UnixStream::connect(path).await.unwrap()).await })
}

/// Runs `act` while a server runs in a thread of its own, whose socket every user can connect to.
fn with_server(policy: PeerPolicy, act: impl FnOnce(&Path)) {
    let directory = open_directory();
    let address = socket_in(directory.path());
    let (bound, is_bound) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            block_on(async {
                let listener = BindOptions::new().mode(0o666).bind(&address).await.unwrap();
                bound.send(()).unwrap();
                let stopped = async { drop(stopped.await) };
                let ping = PingServiceServer::new(Ping::default());
                let server = Server::new().add_service(ping).peer_policy(policy);
                server.serve_with_shutdown(listener, stopped).await.unwrap();
            });
        });
        is_bound.recv().unwrap();
        act(address.as_path().unwrap());
        drop(stop);
    });
}

#[test]
fn users_and_groups_are_those_of_the_process_that_connected() {
    const PEERS: [(u32, u32, &[u32]); 4] =
        [(0, 0, &[]), (1234, 1234, &[]), (1234, 1500, &[]), (1234, 1234, &[7, 1500])];
    let group_and_not_root = PeerPolicy::gids([1500]).and(PeerPolicy::not_root());
    for (policy, expected) in [
        (PeerPolicy::same_user(), [true, false, false, false]),
        (PeerPolicy::root(), [true, false, false, false]),
        (PeerPolicy::not_root(), [false, true, true, true]),
        (PeerPolicy::anyone(), [true, true, true, true]),
        (PeerPolicy::uids([1234]), [false, true, true, true]),
        (PeerPolicy::uids([1500]), [false, false, false, false]),
        (PeerPolicy::gids([1500]), [false, false, true, true]),
        (PeerPolicy::gids([0]), [true, false, false, false]),
        (group_and_not_root, [false, false, true, true]),
        (PeerPolicy::uids([0]).or(PeerPolicy::gids([1500])), [true, false, true, true]),
        (PeerPolicy::predicate(|peer| peer.gid() == 1500), [false, false, true, false]),
    ] {
        with_server(policy.clone(), |path| {
            for ((uid, gid, groups), expected) in PEERS.into_iter().zip(expected) {
                let Some(let_in) = as_user(uid, gid, groups, || connects(path)) else { return };
                assert_eq!(let_in, expected, "{policy:?}: {uid} {gid} {groups:?}");
            }
        });
    }
}

#[test]
fn who_becomes_another_user_after_connecting_stays_who_it_was() {
    for (policy, expected) in [(PeerPolicy::root(), true), (PeerPolicy::uids([1234]), false)] {
        with_server(policy, |path| {
            let let_in = as_user(0, 0, &[], || {
                block_on(async {
                    let stream = UnixStream::connect(path).await.unwrap();
                    let other = Uid::from_raw(1234);
                    set_thread_res_uid(other, other, other).unwrap();
                    is_let_in(stream).await
                })
            });
            if let Some(let_in) = let_in {
                assert_eq!(let_in, expected);
            }
        });
    }
}

#[test]
fn the_options_of_serve_let_in_whom_they_name() {
    let own = rustix::process::geteuid().as_raw();
    let (other, own) = ((own + 1).to_string(), own.to_string());
    let group = rustix::process::getegid().as_raw().to_string();
    for (options, expected) in [
        (&["--allow-same-user"][..], true),
        (&["--allow-uid", &own], true),
        (&["--allow-uid", &other, "--allow-uid", &own], true),
        (&["--allow-uid", &other, "--allow-gid", &group], true),
        (&["--allow-uid", &other], false),
        (&["--allow-uid", &other, "--allow-same-user"], true),
    ] {
        let directory = open_directory();
        let address = socket_in(directory.path());
        let _serving = Serving::start(&[&address.to_string()], options);
        assert_eq!(connects(address.as_path().unwrap()), expected, "{options:?}");
    }
    let address = format!("unix-abstract:samehost-peers-{}", std::process::id());
    let _serving = Serving::start(&[&address], &["--allow-same-user"]);
}

/// A peer can bind its own end to any address.
#[test]
fn a_peers_own_address_changes_nothing() {
    for (policy, expected) in [(PeerPolicy::root(), false), (PeerPolicy::uids([1234]), true)] {
        with_server(policy, |path| {
            let directory = open_directory();
            // Only root may do this; for others, `as_user` does nothing either.
            let _ = std::os::unix::fs::chown(directory.path(), Some(1234), None);
            let let_in = as_user(1234, 1234, &[], || {
                block_on(async {
                    let socket = UnixSocket::new_stream().unwrap();
                    socket.bind(directory.path().join("x;uid=0;")).unwrap();
                    is_let_in(socket.connect(path).await.unwrap()).await
                })
            });
            if let Some(let_in) = let_in {
                assert_eq!(let_in, expected);
            }
        });
    }
}

/// Starts `samehost serve` in namespaces where only root is known, and no process outside of them.
/// Returns `None` where that is not permitted.
fn serve_in_namespaces(address: &Address, options: &[&str]) -> Option<Serving> {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"])
        .args([env!("CARGO_BIN_EXE_samehost"), "serve", "--mode", "0666", &address.to_string()])
        .args(options);
    let mut serving = Serving::spawn(&mut command);
    if serving.line().starts_with("listening on ") {
        return Some(serving);
    }
    let errors = serving.wait().1;
    assert!(errors.starts_with("unshare:"), "{errors}");
    eprintln!("left out: making a user namespace is not permitted here: {errors}");
    None
}

#[test]
fn a_user_that_the_servers_namespace_does_not_know_is_let_in_by_no_number() {
    let directory = open_directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let options = ["--allow-uid", "65534", "--allow-uid", "1234", "--allow-gid", "65534"];
    let Some(mut serving) = serve_in_namespaces(&address, &options) else { return };
    let Some(let_in) = as_user(1234, 1234, &[1500], || connects(path)) else { return };
    assert!(!let_in);
    assert!(!connects(path), "root is known, but not in the list");
    serving.signal(nix_signal::Signal::KILL);
    let errors = serving.wait().1;
    let (warnings, refusals): (Vec<_>, Vec<_>) =
        errors.lines().partition(|line| line.contains(" lets nobody in: "));
    assert_eq!((warnings.len(), refusals.len()), (2, 2), "{errors}");
    assert!(warnings[0].contains("--allow-uid") && warnings[1].contains("--allow-gid"), "{errors}");
    assert!(refusals[0].contains("uid=65534 gid=65534 "), "{errors}");
    assert!(refusals[1].contains("uid=0 gid=0 "), "{errors}");
    // Its namespace does not have these processes either.
    assert!(!errors.contains("pid="), "{errors}");

    let Some(_serving) = serve_in_namespaces(&address, &["--allow-uid", "0"]) else { return };
    assert!(connects(path));
    assert_eq!(as_user(1234, 1234, &[], || connects(path)), Some(false));
}
