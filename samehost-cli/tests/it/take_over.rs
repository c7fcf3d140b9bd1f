//! One server takes over from another. The processes are stopped at each step, and some are killed
//! there.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, WaitOptions, waitpid};
use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Address, Channel};

use crate::support::nix_signal::Signal;
use crate::support::{Serving, block_on, directory, eventually, names_in, samehost, socket_in};

const FILES: [&str; 3] = [".ping.sock.control", ".ping.sock.lock", "ping.sock"];

/// Returns the command `samehost serve --take-over`, which stops at steps of the hand-over.
fn command(address: &Address, stop_at: Option<&str>, options: &[&str]) -> Command {
    let mut command = samehost();
    command.args(["serve", "--take-over", &address.to_string()]).args(options);
    if let Some(step) = stop_at {
        command.env("SAMEHOST_STOP_AT", step);
    }
    command
}

/// Starts a server and waits until it serves.
fn serving(address: &Address, stop_at: Option<&str>) -> Serving {
    let mut server = Serving::spawn(&mut command(address, stop_at, &[]));
    listens(&mut server, address);
    server
}

fn listens(server: &mut Serving, address: &Address) {
    let line = server.line();
    // At the end of its output, a server has said on standard error why it ends.
    let why = if line.is_empty() { server.wait().1 } else { String::new() };
    assert_eq!(line, format!("listening on {address}"), "{why}");
}

/// Waits until the process has stopped itself (SIGSTOP).
fn wait_for_stop(server: &Serving) {
    let pid = Pid::from_raw(server.id().cast_signed()).unwrap();
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped(), "{status:?}");
}

fn inode(path: &Path) -> u64 {
    path.symlink_metadata().unwrap().ino()
}

/// Returns the process that serves, which is the last one that called listen(2).
fn serving_process(path: &Path) -> i32 {
    let stream = UnixStream::connect(path).unwrap();
    rustix::net::sockopt::socket_peercred(&stream).unwrap().pid.as_raw_nonzero().get()
}

fn ping(address: &Address) {
    block_on(async {
        let channel = Channel::connect(address).await.unwrap();
        PingServiceClient::new(channel).ping(PingRequest::ping()).await.unwrap();
    });
}

/// Asserts that this process serves and holds the lock.
fn assert_serves(server: &Serving, address: &Address) {
    ping(address);
    let path = address.as_path().unwrap();
    assert_eq!(serving_process(path), server.id().cast_signed());
    let other = samehost().args(["serve", &address.to_string()]).output().unwrap();
    let errors = String::from_utf8(other.stderr).unwrap();
    assert!(errors.contains("is already being served"), "{errors}");
}

#[test]
fn the_successor_serves_with_the_same_inode_and_the_predecessor_drains_and_exits() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let mut former = serving(&address, None);
    assert_eq!(names_in(directory.path()), FILES);
    let before = inode(path);
    for _ in 0..3 {
        let server = serving(&address, None);
        assert_eq!(former.wait(), (Some(0), String::new()));
        assert_eq!(inode(path), before);
        assert_eq!(names_in(directory.path()), FILES);
        assert_serves(&server, &address);
        former = server;
    }
    former.signal(Signal::TERM);
    assert_eq!(former.wait(), (Some(0), String::new()));
    assert!(names_in(directory.path()).is_empty());
}

#[test]
fn a_server_that_does_not_permit_it_is_not_taken_over() {
    let directory = directory();
    let address = socket_in(directory.path());
    let server = Serving::start(&[&address.to_string()], &[]);
    let mut successor = Serving::spawn(&mut command(&address, None, &[]));
    let (code, errors) = successor.wait();
    assert_eq!(code, Some(1));
    assert!(errors.contains("that server permits no take-over (--take-over)"), "{errors}");
    assert_serves(&server, &address);
}

#[test]
fn no_address_is_taken_over_if_another_cannot_be_bound() {
    let directory = directory();
    let address = socket_in(directory.path());
    let server = serving(&address, None);
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let other = format!("unix:{}", file.display());
    let mut successor = Serving::spawn(&mut command(&address, None, &[&other]));
    let (code, errors) = successor.wait();
    assert_eq!(code, Some(1));
    assert!(errors.contains(&format!("{other}: there is a regular file")), "{errors}");
    assert_serves(&server, &address);
}

#[test]
fn the_file_gets_the_mode_of_the_successor() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let mut former = Serving::spawn(&mut command(&address, None, &["--mode", "0666"]));
    listens(&mut former, &address);
    let before = inode(path);
    let mut server = Serving::spawn(&mut command(&address, None, &["--mode", "0660"]));
    listens(&mut server, &address);
    assert_eq!(former.wait().0, Some(0));
    assert_eq!((inode(path), path.symlink_metadata().unwrap().mode() & 0o7777), (before, 0o660));
}

#[test]
fn a_client_in_the_queue_is_answered_by_the_successor() {
    let directory = directory();
    let address = socket_in(directory.path());
    // The former server stops after the commit, while it still accepts.
    let former = serving(&address, Some("predecessor-decides"));
    let mut server = Serving::spawn(&mut command(&address, None, &[]));
    listens(&mut server, &address);
    wait_for_stop(&former);
    ping(&address);
    former.signal(Signal::CONT);
    assert_serves(&server, &address);
}

/// The steps of the successor, in order. It commits before the last two.
const SUCCESSOR: [&str; 5] = [
    "successor-connected",
    "successor-asked",
    "successor-offered",
    "successor-acknowledges",
    "successor-acknowledged",
];

/// The steps of the predecessor, in order. The successor commits before the last one.
const PREDECESSOR: [&str; 5] = [
    "predecessor-accepted",
    "predecessor-asked",
    "predecessor-offers",
    "predecessor-offered",
    "predecessor-decides",
];

/// Asserts what a hand-over leaves in which a process was killed: the next server starts, and no
/// file is left at its end.
fn assert_nothing_is_left(directory: &Path, address: &Address, server: Option<Serving>) {
    if let Some(mut server) = server {
        assert_eq!(names_in(directory), FILES);
        server.signal(Signal::TERM);
        assert_eq!(server.wait().0, Some(0));
    } else {
        // A killed server leaves these files.
        assert_eq!(names_in(directory), FILES);
        let mut next = serving(address, None);
        assert_serves(&next, address);
        next.signal(Signal::TERM);
        assert_eq!(next.wait().0, Some(0));
    }
    assert!(names_in(directory).is_empty(), "{:?}", names_in(directory));
}

#[test]
fn a_successor_that_is_killed_before_the_commit_leaves_the_server_as_it_was() {
    for step in &SUCCESSOR[..4] {
        let directory = directory();
        let address = socket_in(directory.path());
        let before = serving(&address, None);
        let number = inode(address.as_path().unwrap());
        let mut successor = Serving::spawn(&mut command(&address, Some(step), &[]));
        wait_for_stop(&successor);
        successor.signal(Signal::KILL);
        assert_eq!(successor.wait().0, None, "{step}");
        assert_serves(&before, &address);
        assert_eq!(inode(address.as_path().unwrap()), number, "{step}");
        // The server can still be taken over.
        let mut next = serving(&address, None);
        let mut before = before;
        assert_eq!(before.wait().0, Some(0), "{step}");
        assert_serves(&next, &address);
        next.signal(Signal::TERM);
        assert_eq!(next.wait().0, Some(0));
        assert!(names_in(directory.path()).is_empty(), "{step}");
    }
}

#[test]
fn a_successor_that_is_killed_after_the_commit_is_a_server_that_crashed() {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut before = serving(&address, None);
    let mut successor = Serving::spawn(&mut command(&address, Some(SUCCESSOR[4]), &[]));
    wait_for_stop(&successor);
    // The successor has committed, so the predecessor ends.
    assert_eq!(before.wait().0, Some(0));
    successor.signal(Signal::KILL);
    successor.wait();
    assert_nothing_is_left(directory.path(), &address, None);
}

#[test]
fn a_predecessor_that_is_killed_at_any_step_leaves_the_successor_serving() {
    for step in PREDECESSOR {
        let directory = directory();
        let address = socket_in(directory.path());
        let mut before = serving(&address, Some(step));
        let number = inode(address.as_path().unwrap());
        let mut successor = Serving::spawn(&mut command(&address, None, &[]));
        wait_for_stop(&before);
        if matches!(step, "predecessor-offered" | "predecessor-decides") {
            // The successor needs nothing more from the predecessor.
            listens(&mut successor, &address);
            before.signal(Signal::KILL);
            before.wait();
            assert_eq!(inode(address.as_path().unwrap()), number, "{step}");
        } else {
            before.signal(Signal::KILL);
            before.wait();
            listens(&mut successor, &address);
        }
        assert_serves(&successor, &address);
        assert_nothing_is_left(directory.path(), &address, Some(successor));
    }
}

/// The successor has the descriptors already, and no other process has them any more.
#[test]
fn a_predecessor_that_is_killed_before_the_commit_leaves_its_queue_to_the_successor() {
    for step in ["successor-offered", "successor-acknowledges"] {
        let directory = directory();
        let address = socket_in(directory.path());
        let path = address.as_path().unwrap();
        let mut before = serving(&address, None);
        let number = inode(path);
        let mut successor = Serving::spawn(&mut command(&address, Some(step), &[]));
        wait_for_stop(&successor);
        before.signal(Signal::KILL);
        before.wait();
        let _queued = UnixStream::connect(path).expect("the socket listens still");
        successor.signal(Signal::CONT);
        listens(&mut successor, &address);
        assert_eq!(inode(path), number, "{step}");
        assert_serves(&successor, &address);
        assert_nothing_is_left(directory.path(), &address, Some(successor));
    }
}

/// The predecessor withdraws its offer, and an acknowledgement that comes too late fails.
#[test]
fn a_successor_that_does_not_acknowledge_in_time_is_no_server() {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut before = serving(&address, None);
    let mut successor = Serving::spawn(&mut command(&address, Some("successor-acknowledges"), &[]));
    wait_for_stop(&successor);
    // The predecessor waits for 5 s.
    eventually("the offer is withdrawn", || has_no_exchange(directory.path()));
    assert_serves(&before, &address);
    successor.signal(Signal::CONT);
    // The successor asks once more, and gets the socket.
    listens(&mut successor, &address);
    assert_eq!(before.wait().0, Some(0));
    assert_serves(&successor, &address);
}

/// Returns whether no connection to a control socket in the directory is open.
fn has_no_exchange(directory: &Path) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    let connected = sockets.lines().filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // This is type SOCK_SEQPACKET in state connected (unix(7)).
        fields.get(4) == Some(&"0005")
            && fields.get(5) == Some(&"03")
            && fields.get(7).is_some_and(|path| Path::new(path).starts_with(directory))
    });
    connected.count() == 0
}

#[test]
fn of_two_successors_one_wins_and_the_other_one_says_so() {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut before = serving(&address, None);
    let mut first = Serving::spawn(&mut command(&address, Some("successor-offered"), &[]));
    wait_for_stop(&first);
    let mut second = Serving::spawn(&mut command(&address, None, &[]));
    let (code, errors) = second.wait();
    assert_eq!(code, Some(1));
    assert!(errors.contains("another process is taking that server over"), "{errors}");
    first.signal(Signal::CONT);
    listens(&mut first, &address);
    assert_eq!(before.wait().0, Some(0));
    assert_serves(&first, &address);
}

/// Each asks for one socket, and then for the other.
#[test]
fn of_two_successors_that_name_two_addresses_in_different_orders_one_wins() {
    let directory = directory();
    let [a, b] = ["a", "b"].map(|name| Address::unix(directory.path().join(name)).unwrap());
    let spawn = |addresses: [&Address; 2], stop_at| {
        Serving::spawn(&mut command(addresses[0], stop_at, &[&addresses[1].to_string()]))
    };
    let mut before = spawn([&a, &b], None);
    listens(&mut before, &a);
    listens(&mut before, &b);
    let mut first = spawn([&a, &b], Some("successor-asked,successor-asked"));
    wait_for_stop(&first);
    let mut second = spawn([&b, &a], Some("successor-asked"));
    wait_for_stop(&second);
    first.signal(Signal::CONT);
    wait_for_stop(&first);
    second.signal(Signal::CONT);
    let (code, errors) = second.wait();
    assert_eq!(code, Some(1));
    assert!(errors.contains("another process is taking that server over"), "{errors}");
    first.signal(Signal::CONT);
    listens(&mut first, &a);
    listens(&mut first, &b);
    assert_eq!(before.wait().0, Some(0));
    assert_serves(&first, &a);
    assert_serves(&first, &b);
}

#[test]
fn a_successor_that_waits_for_a_stopped_server_ends_by_a_signal() {
    let directory = directory();
    let address = socket_in(directory.path());
    let before = serving(&address, None);
    before.signal(Signal::STOP);
    wait_for_stop(&before);
    let mut successor = Serving::spawn(&mut command(&address, Some("successor-asked"), &[]));
    wait_for_stop(&successor);
    successor.signal(Signal::TERM);
    successor.signal(Signal::CONT);
    let (code, errors) = successor.wait();
    assert_eq!(code, Some(0), "{errors}");
    before.signal(Signal::CONT);
    assert_serves(&before, &address);
    assert_eq!(names_in(directory.path()), FILES);
}

/// Successors that connected before the winner had taken over wait in the queue that passes to it.
#[test]
fn a_successor_in_the_queue_is_told_by_the_one_that_won() {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut before = serving(&address, Some("predecessor-accepted"));
    let stops = Some("successor-asked,successor-acknowledged");
    let mut first = Serving::spawn(&mut command(&address, stops, &[]));
    wait_for_stop(&before);
    wait_for_stop(&first);
    first.signal(Signal::CONT);
    let second = Serving::spawn(&mut command(&address, Some("successor-asked"), &[]));
    wait_for_stop(&second);
    before.signal(Signal::CONT);
    wait_for_stop(&first);
    // Either the predecessor or the winner answers the second successor.
    let mut second = second;
    second.signal(Signal::CONT);
    first.signal(Signal::CONT);
    listens(&mut first, &address);
    let (code, errors) = second.wait();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("another process is taking that server over"), "{errors}");
    assert_eq!(before.wait().0, Some(0));
    assert_serves(&first, &address);
}

/// The predecessor accepted the second successor and ended without an answer. The second does not
/// take over from the winner.
#[test]
fn a_successor_that_was_not_answered_is_told_by_the_one_that_won() {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut before = serving(&address, Some("predecessor-decides"));
    let mut second = Serving::spawn(&mut command(&address, Some("successor-connected"), &[]));
    wait_for_stop(&second);
    let mut first = Serving::spawn(&mut command(&address, None, &[]));
    wait_for_stop(&before);
    listens(&mut first, &address);
    before.signal(Signal::CONT);
    assert_eq!(before.wait().0, Some(0));
    second.signal(Signal::CONT);
    let (code, errors) = second.wait();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("another process is taking that server over"), "{errors}");
    assert_serves(&first, &address);
}

#[test]
fn with_nobody_there_it_binds_and_what_a_killed_server_left_is_replaced() {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut killed = serving(&address, None);
    killed.signal(Signal::KILL);
    killed.wait();
    assert_eq!(names_in(directory.path()), FILES);
    let server = serving(&address, None);
    assert_serves(&server, &address);
    drop(server);
    // A server that permits no take-over removes the control socket.
    let _plain = Serving::start(&[&address.to_string()], &[]);
    assert_eq!(names_in(directory.path()), [".ping.sock.lock", "ping.sock"]);
}

/// The test is systemd's end of sd_notify(3).
#[test]
fn a_service_manager_is_told_who_is_the_main_process_and_when_it_stops() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = directory.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    // The messages are read at once, since watchdog messages are left out while the queue is full.
    let (sender, messages) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut message = [0; 256];
        while let Ok(length) = manager.recv(&mut message) {
            let _ = sender.send(String::from_utf8(message[..length].to_vec()).unwrap());
        }
    });
    let start = |watchdog: bool| {
        let mut command = command(&address, None, &[]);
        command.env("NOTIFY_SOCKET", &path);
        if watchdog {
            command.env("WATCHDOG_USEC", "100000");
        }
        let mut server = Serving::spawn(&mut command);
        listens(&mut server, &address);
        server
    };
    let next = || messages.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    let mut former = start(true);
    let main = format!("READY=1\nMAINPID={}\n", former.id());
    assert_eq!(next(), main);
    // Until the successor takes over, the watchdog messages come.
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1\n");
    }
    let mut server = start(false);
    assert_eq!(former.wait().0, Some(0));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
    let main = format!("READY=1\nMAINPID={}\n", server.id());
    let mut told = Vec::new();
    while told.last().map(String::as_str) != Some("STOPPING=1\n") {
        told.push(next());
    }
    told.retain(|message| message != "WATCHDOG=1\n");
    // The server that was taken over does not report that the service stops.
    assert_eq!(told, [main, "STOPPING=1\n".to_owned()]);
}

/// This also holds for a server that permits take-overs: its control socket comes back, too.
#[test]
fn a_server_publishes_its_deleted_socket_again_where_it_was_told_to() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let mut server = serving_with(&address, &["--republish"]);
    for successors in 0..2 {
        let before = inode(path);
        // The server keeps the old inode open, so the new file has another number.
        std::fs::remove_file(path).unwrap();
        eventually("the socket is back", || path.exists());
        assert_ne!(inode(path), before);
        ping(&address);
        assert_serves(&server, &address);
        if successors == 0 {
            let successor = serving_with(&address, &["--republish"]);
            let mut former = std::mem::replace(&mut server, successor);
            assert_eq!(former.wait().0, Some(0));
        }
    }
    server.signal(Signal::TERM);
    let (code, log) = server.wait();
    assert_eq!(code, Some(0));
    assert!(log.contains("publishing the socket again"), "{log}");
    assert_eq!(names_in(directory.path()), Vec::<String>::new());
}

fn serving_with(address: &Address, options: &[&str]) -> Serving {
    let mut server = Serving::spawn(&mut command(address, None, options));
    listens(&mut server, address);
    server
}

/// The socket is deleted after the successor has looked at it and before it acknowledges.
#[test]
fn a_successor_of_a_socket_that_was_deleted_meanwhile_takes_the_one_that_was_published_again() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let mut server = serving_with(&address, &["--republish"]);
    let stopped = Some("successor-acknowledges");
    let mut successor = Serving::spawn(&mut command(&address, stopped, &["--republish"]));
    wait_for_stop(&successor);
    let before = inode(path);
    std::fs::remove_file(path).unwrap();
    eventually("the socket is back", || path.exists());
    assert_ne!(inode(path), before);
    successor.signal(Signal::CONT);
    listens(&mut successor, &address);
    assert_eq!(server.wait().0, Some(0));
    assert_serves(&successor, &address);
    successor.signal(Signal::TERM);
    assert_eq!(successor.wait().0, Some(0));
    assert_eq!(names_in(directory.path()), Vec::<String>::new());
}
