//! `samehost check` with working servers and with many kinds of faults.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Serving, copied_binary, directory, nix_signal, open_directory, samehost, socket_in, text,
};

/// Returns the exit code and the output of a check.
fn check(address: &str) -> (Option<i32>, String) {
    told(&samehost().args(["check", "-W", "1s", address]).output().unwrap())
}

fn told(output: &Output) -> (Option<i32>, String) {
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    (output.status.code(), text(&output.stdout).to_owned())
}

/// Asserts that the last line is the only ✗, and contains the step, what was found and the remedy.
fn is_broken((code, out): (Option<i32>, String), step: &str, found: &str, remedy: &str) {
    assert_eq!(code, Some(1), "{out}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with(&format!("✗ {step}: ")), "{out}");
    assert!(last.contains(found), "{found:?} is not in: {out}");
    assert!(last.contains(remedy), "{remedy:?} is not in: {out}");
    assert_eq!(out.matches('✗').count(), 1, "{out}");
}

#[test]
fn a_server_that_works_has_no_cross() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let serving = Serving::start(&[&address, "127.0.0.1:0"], &[]);
    let (code, out) = check(&address);
    assert_eq!(code, Some(0), "{out}");
    assert!(!out.contains('✗'), "{out}");
    for line in [
        "✓ directory: / (mode ",
        "✓ mount: ",
        "✓ socket file: ",
        "✓ lock: held by pid ",
        "✓ connection: accepted",
        &format!("✓ listener: pid {} (", serving.id()),
        "✓ HTTP/2: SETTINGS ",
        "✓ services: ",
        "✓ health: SERVING",
        "✓ round trip: ",
    ] {
        assert!(out.lines().any(|found| found.starts_with(line)), "{line:?} is not in: {out}");
    }
    assert!(out.contains("ping.v1.PingService"), "{out}");
    let (code, out) = check(&serving.addresses[1].to_string());
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("✓ host name: 127.0.0.1:"), "{out}");
}

#[test]
fn a_successor_is_named_as_the_holder_of_the_lock() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let mut before = Serving::start(&[&address], &["--take-over"]);
    let successor = Serving::start(&[&address], &["--take-over"]);
    assert_eq!(before.wait().0, Some(0));
    let (code, out) = check(&address);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains(&format!("✓ lock: held by pid {} (", successor.id())), "{out}");
}

#[test]
fn a_path_longer_than_an_address_is_checked_too() {
    let directory = directory();
    let long = directory.path().join("d".repeat(120));
    fs::create_dir(&long).unwrap();
    let address = socket_in(&long).to_string();
    let _serving = Serving::start(&[&address], &[]);
    let (code, out) = check(&address);
    assert_eq!(code, Some(0), "{out}");
}

#[test]
fn json_has_the_steps() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let json = || -> (Option<i32>, Value) {
        let (code, out) = told(&samehost().args(["check", "--json", &address]).output().unwrap());
        (code, serde_json::from_str(&out).unwrap())
    };
    let (code, report) = json();
    assert_eq!((code, &report["ok"]), (Some(1), &Value::Bool(false)));
    let steps = report["steps"].as_array().unwrap();
    let last = steps.last().unwrap();
    assert_eq!((&last["step"], &last["ok"]), (&"socket file".into(), &false.into()));
    assert!(last["remedy"].as_str().unwrap().contains("start the server"), "{last}");
    assert!(steps[..steps.len() - 1].iter().all(|step| step["ok"] == true), "{report}");

    let _serving = Serving::start(&[&address], &[]);
    let (code, report) = json();
    assert_eq!((code, &report["ok"]), (Some(0), &Value::Bool(true)), "{report}");
    assert_eq!(report["address"], address.as_str());
}

#[test]
fn a_path_that_leads_nowhere_is_named_at_its_first_bad_step() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let address = |name: &str| format!("unix:{}", at(name).display());
    is_broken(check(&address("no/x.sock")), "directory", "no does not exist", "create it");

    File::create(at("file")).unwrap();
    is_broken(
        check(&address("file/x.sock")),
        "directory",
        "is a regular file",
        "check the address",
    );

    symlink(at("gone"), at("dangling")).unwrap();
    is_broken(check(&address("dangling/x.sock")), "directory", "is a link to", "mend the link");

    symlink(at("loop"), at("loop")).unwrap();
    is_broken(check(&address("loop/x.sock")), "directory", "back to itself", "mend the link");
}

#[test]
fn what_is_no_socket_is_named() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let address = |name: &str| format!("unix:{}", at(name).display());
    is_broken(check(&address("none")), "socket file", "does not exist", "start the server");

    File::create(at("file")).unwrap();
    is_broken(
        check(&address("file")),
        "socket file",
        "a regular file, not a socket",
        "move it away",
    );

    fs::create_dir(at("folder")).unwrap();
    is_broken(check(&address("folder")), "socket file", "a directory, not a socket", "check the");

    symlink(at("gone"), at("dangling")).unwrap();
    is_broken(check(&address("dangling")), "socket file", "which does not exist", "mend the link");

    symlink(at("loop"), at("loop")).unwrap();
    is_broken(check(&address("loop")), "socket file", "back to itself", "mend the link");

    let _datagrams = UnixDatagram::bind(at("datagrams")).unwrap();
    is_broken(check(&address("datagrams")), "connection", "of another type", "check the address");
}

#[test]
fn a_socket_without_a_server_is_named() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let address = address.to_string();
    let mut serving = Serving::start(&[&address], &[]);
    fs::remove_file(path).unwrap();
    let pid = serving.id();
    let holds = format!("pid {pid} (");
    is_broken(check(&address), "socket file", &holds, "restart that server");
    serving.signal(Signal::KILL);
    serving.wait();

    drop(UnixListener::bind(path).unwrap());
    is_broken(check(&address), "connection", "nobody listens behind it", "start the server");

    is_broken(
        check("unix-abstract:samehost-check-nobody"),
        "connection",
        "no server has this abstract name",
        "network namespace",
    );
    // The port was the test's own and is closed now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    is_broken(check(&port.to_string()), "connection", "nobody listens", "check the port");
    is_broken(
        check("no-such-host.invalid:1"),
        "host name",
        "no-such-host.invalid",
        "an IP address",
    );
}

/// Runs `answer` on each connection, in a thread that ends with the process.
fn server(
    directory: &Path,
    answer: impl Fn(std::os::unix::net::UnixStream) + Send + 'static,
) -> String {
    let address = socket_in(directory);
    let listener = UnixListener::bind(address.as_path().unwrap()).unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    address.to_string()
}

/// Returns a server that writes `words`, and then reads until its client closes.
fn says(words: &'static [u8]) -> impl Fn(std::os::unix::net::UnixStream) + Send + 'static {
    move |mut stream| {
        let _ = stream.write_all(words);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn a_server_of_something_else_is_named() {
    let goes_away = b"\0\0\x0d\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b\x1b]0;x";
    let words: [(&'static [u8], &str, &str); 6] = [
        (b"", "says nothing for 1s", "whether it hangs"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "answers in HTTP/1", "not a gRPC server"),
        (b"\x15\x03\x03\0\x02\x02\x46", "answers in TLS", "plain text"),
        (b"220 mail.example ESMTP ready, do speak\r\n", "something else: \"220 mail", "check the"),
        (b"\0\0", "something else", "check the address"),
        (goes_away, "turns the connection away: \"\\u{1b}]0;x\" (code 11)", "see its log"),
    ];
    for (words, found, remedy) in words {
        let directory = directory();
        let address = server(directory.path(), says(words));
        is_broken(check(&address), "HTTP/2", found, remedy);
    }
    let directory = directory();
    let address = server(directory.path(), drop);
    is_broken(check(&address), "HTTP/2", "without a word", "see its log");
}

#[test]
fn a_server_that_answers_no_call_is_named() {
    let directory = directory();
    let address = server(directory.path(), says(b"\0\0\0\x04\0\0\0\0\0"));
    is_broken(check(&address), "services", "DeadlineExceeded", "look whether it hangs");
}

#[test]
fn a_full_queue_is_named() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let listener = UnixListener::bind(path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    // The queue has room for one connection more than the backlog.
    let waiting = std::os::unix::net::UnixStream::connect(path).unwrap();
    is_broken(check(&address.to_string()), "connection", "stayed full for 1s", "accepts nothing");
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_ready_or_lets_nobody_in_is_named() {
    use tonic_health::ServingStatus;
    let (health, service) = tonic_health::server::health_reporter();
    health.set_service_status("", ServingStatus::NotServing).await;
    let server = samehost::Server::new().add_service(service);
    let server = crate::support::Running::start(crate::support::Transport::Unix, server).await;
    let address = server.address.to_string();
    let checked = tokio::task::spawn_blocking(move || check(&address)).await.unwrap();
    assert!(checked.1.contains("– services: the server has no reflection"), "{}", checked.1);
    is_broken(checked, "health", "says NOT_SERVING", "wait until it is ready");
    server.stop().await;

    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let _serving = Serving::start(&[&address], &["--allow-uid", "54321"]);
    let (code, out) = tokio::task::spawn_blocking(move || check(&address)).await.unwrap();
    assert_eq!(code, Some(1), "{out}");
    // The server answers the calls or closes the connection.
    assert!(out.contains("policy") || out.contains("may refuse"), "{out}");
}

/// Runs a check as another user, by a copy of the program that this user can execute.
fn check_as(uid: u32, program: &Path, address: &str) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(program);
    command.args(["check", "-W", "1s", address]).uid(uid).gid(uid);
    told(&command.output().unwrap())
}

#[test]
fn what_this_user_may_not_is_named() {
    const USER: u32 = 54_321;
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root can become another user");
        return;
    }
    let directory = open_directory();
    let program = copied_binary(directory.path());
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let address = format!("unix:{}/x.sock", closed.display());
    let checked = check_as(USER, &program, &address);
    is_broken(checked, "directory", "closed may not be entered by this user, 54321", "chmod o+x");

    let address = socket_in(directory.path()).to_string();
    let _serving = Serving::start(&[&address], &[]);
    let checked = check_as(USER, &program, &address);
    is_broken(checked, "socket file", "may not be written to by this user", "--mode 0660");
}

#[test]
fn a_server_that_is_stopped_answers_nothing() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let serving = Serving::start(&[&address], &[]);
    nix_signal::kill(serving.id(), Signal::STOP);
    is_broken(check(&address), "HTTP/2", "says nothing for 1s", "whether it hangs");
}
