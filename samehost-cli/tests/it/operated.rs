//! The command where its surroundings are not as usual: nobody reads its output, the limits are low.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    Serving, binary, copied_binary, directory, eventually, names_in, open_directory, run, samehost,
    socket_in, text,
};

/// Starts the command by a shell script, in which `$0` is the command and `$1` the argument.
fn by_shell(script: &str, argument: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(binary()).arg(argument);
    command
}

#[test]
fn a_server_serves_on_where_its_notice_cannot_be_written() {
    for (to, logged) in [("2>&1 >/dev/full", 1), (">/dev/full 2>/dev/full", 0)] {
        let directory = directory();
        let address = socket_in(directory.path());
        // Standard error becomes the pipe of standard output, which the test reads.
        let script = format!("exec \"$0\" serve --take-over \"$1\" {to}");
        let mut serving = Serving::spawn(&mut by_shell(&script, &address.to_string()));
        for _ in 0..logged {
            let line = serving.line();
            assert!(line.contains("WARN"), "{line}");
            assert!(line.contains(&format!("output: listening on {address}")), "{line}");
            assert!(line.contains("No space left on device"), "{line}");
        }
        eventually("it serves", || {
            run(&["ping", "-c", "1", &address.to_string()]).status.success()
        });
        serving.signal(Signal::TERM);
        assert_eq!(serving.wait().0, Some(0), "{to}");
    }
}

/// Runs the command with a standard output that nobody reads.
fn unread(arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    samehost().args(arguments).stdout(writer).output().unwrap()
}

#[test]
fn output_that_nobody_reads_ends_the_command_without_a_word() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let _serving = Serving::start(&[&address], &[]);
    for arguments in [&["ping", "-i", "1ms", &address][..], &["check", &address], &["man"]] {
        let output = unread(arguments);
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
    }
    assert_eq!(unread(&["ping", "-i", "1ms", &address]).status.code(), Some(1));
}

#[test]
fn too_few_descriptors_are_named_with_the_limit() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    for subcommand in ["serve", "ping", "check"] {
        let script = format!("ulimit -n 6; exec \"$0\" {subcommand} \"$1\"");
        let output = by_shell(&script, &address).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{subcommand}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{subcommand}: {errors}");
        assert!(errors.contains("Too many open files"), "{subcommand}: {errors}");
        assert!(errors.contains("(ulimit -n)"), "{subcommand}: {errors}");
    }
}

/// No limit on threads holds for root, so the server runs as another user.
#[test]
fn threads_that_cannot_be_started_are_named_with_the_limit() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root can start a process as a user that has no other one");
        return;
    }
    let directory = open_directory();
    let copy = copied_binary(directory.path());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "23456", "--regid", "23456", "--clear-groups"]);
    command.args(["timeout", "60", "prlimit", "--nproc=6"]).arg(copy);
    command.args(["serve", "--threads", "8"]).arg(socket_in(directory.path()).to_string());
    let output = command.output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    for part in ["--threads 8: so many threads cannot be started", "give fewer", "ulimit -u"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

/// The test is the manager's end of sd_notify(3).
#[test]
fn a_manager_with_an_abstract_socket_is_told_and_also_of_the_end_of_an_idle_server() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let name = format!("samehost-test-{}", std::process::id());
    let manager = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&manager).unwrap();
    let mut command = samehost();
    command.args(["serve", "--idle-exit", "100ms", &address]).current_dir(directory.path());
    // A period of zero is none (sd_watchdog_enabled(3)).
    command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "0");
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    manager.set_nonblocking(true).unwrap();
    let mut told = Vec::new();
    let mut message = [0; 256];
    while let Ok(length) = manager.recv(&mut message) {
        told.push(text(&message[..length]).to_owned());
    }
    assert_eq!(told, ["READY=1\n", "STOPPING=1\n"]);
}

#[test]
fn a_manager_that_cannot_be_told_is_logged_once() {
    for (manager, problem) in [
        ("relative", "neither a path from / on nor @"),
        (&format!("@{}", "x".repeat(200)), "shorter than SUN_LEN"),
        ("/no/such/directory/notify", "No such file"),
        ("@samehost-no-such-manager", "Connection refused"),
    ] {
        let directory = directory();
        let address = socket_in(directory.path()).to_string();
        let mut command = samehost();
        command.args(["serve", &address]).env("NOTIFY_SOCKET", manager);
        let mut serving = Serving::spawn(&mut command);
        assert_eq!(serving.line(), format!("listening on {address}"));
        serving.signal(Signal::TERM);
        let (code, log) = serving.wait();
        assert_eq!((code, log.lines().count()), (Some(0), 1), "{manager}: {log}");
        assert!(log.contains("WARN") && log.contains("NOTIFY_SOCKET"), "{manager}: {log}");
        assert!(log.contains(problem), "{manager}: {log}");
    }
}

/// Returns a manager and its address for `NOTIFY_SOCKET`.
fn manager(name: &str) -> (UnixDatagram, String) {
    let name = format!("samehost-test-{name}-{}", std::process::id());
    let manager = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&manager).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (manager, format!("@{name}"))
}

/// Fills a manager's queue.
fn fill(manager: &UnixDatagram) {
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    let manager = manager.local_addr().unwrap();
    while filler.send_to_addr(b"filler", &manager).is_ok() {}
}

/// Returns the next message that `fill` has not sent.
fn next_message(manager: &UnixDatagram) -> String {
    let mut message = [0; 256];
    loop {
        let length = manager.recv(&mut message).unwrap();
        if message[..length] != *b"filler" {
            return text(&message[..length]).to_owned();
        }
    }
}

#[test]
fn a_manager_that_does_not_read_holds_up_neither_calls_nor_the_end() {
    for (reads_first, watchdog) in [(false, "0"), (true, "2000")] {
        let (manager, notify) = manager("unread");
        if !reads_first {
            fill(&manager);
        }
        let directory = directory();
        let address = socket_in(directory.path()).to_string();
        let mut command = samehost();
        command.args(["serve", &address]);
        command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", watchdog);
        let mut serving = Serving::spawn(&mut command);
        assert_eq!(serving.line(), format!("listening on {address}"));
        if reads_first {
            assert_eq!(next_message(&manager), "READY=1\n");
            assert_eq!(next_message(&manager), "WATCHDOG=1\n");
            fill(&manager);
        }
        let pinged = run(&["ping", "-c", "3", "-i", "10ms", "-W", "20s", &address]);
        assert!(pinged.status.success(), "{}", text(&pinged.stdout));
        serving.signal(Signal::TERM);
        let (code, log) = serving.wait();
        assert_eq!((code, log.lines().count()), (Some(0), 1), "{log}");
        assert!(log.contains("WARN") && log.contains("NOTIFY_SOCKET"), "{log}");
        assert!(log.contains("it does not read"), "{log}");
    }
}

#[test]
fn a_manager_that_reads_late_is_told_all_that_is_told_once() {
    let (manager, notify) = manager("late");
    fill(&manager);
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let mut command = samehost();
    let mut serving =
        Serving::spawn(command.args(["serve", &address]).env("NOTIFY_SOCKET", &notify));
    assert_eq!(serving.line(), format!("listening on {address}"));
    let pinged = run(&["ping", "-c", "1", "-W", "20s", &address]);
    assert!(pinged.status.success(), "{}", text(&pinged.stdout));
    assert_eq!(next_message(&manager), "READY=1\n");
    serving.signal(Signal::TERM);
    assert_eq!(next_message(&manager), "STOPPING=1\n");
    assert_eq!(serving.wait(), (Some(0), String::new()));
}

/// The lock file has to be open to its owner, or nobody can take over or start again after a crash.
#[test]
fn the_umask_changes_no_mode() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let script = "umask 777; exec \"$0\" serve --take-over \"$1\"";
    let mut serving = Serving::spawn(&mut by_shell(script, &address));
    assert_eq!(serving.line(), format!("listening on {address}"));
    for name in names_in(directory.path()) {
        let file = std::fs::symlink_metadata(directory.path().join(&name)).unwrap();
        assert_eq!(file.permissions().mode() & 0o7777, 0o600, "{name}");
    }
}

#[test]
fn a_lock_file_that_its_owner_cannot_open_is_named_with_its_mode() {
    let directory = open_directory();
    let lock = directory.path().join(".ping.sock.lock");
    std::fs::write(&lock, "").unwrap();
    std::fs::set_permissions(&lock, Permissions::from_mode(0o000)).unwrap();
    let address = socket_in(directory.path()).to_string();
    let mut command = samehost();
    if rustix::process::geteuid().is_root() {
        // Root may open every file, so the command runs as another user.
        for path in [lock.as_path(), directory.path()] {
            std::os::unix::fs::chown(path, Some(23_457), None).unwrap();
        }
        command = Command::new(copied_binary(directory.path()));
        command.uid(23_457);
    }
    let output = command.args(["serve", &address]).output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!((output.status.code(), errors.lines().count()), (Some(1), 1), "{errors}");
    assert!(errors.contains("has mode 0000"), "{errors}");
    assert!(errors.contains(&format!("run `chmod 0600 {}`", lock.display())), "{errors}");
    assert!(!errors.contains("run this process as that user"), "{errors}");
}

/// Returns the command as systemd starts it, with a socket that it passes.
fn with_passed(socket: impl Into<OwnedFd>, options: &str) -> Command {
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" serve $1 3<&0 </dev/null";
    let mut command = by_shell(script, options);
    command.stdin(socket.into());
    command
}

#[test]
fn a_passed_socket_that_may_not_be_served_is_refused_before_anything_is_announced() {
    let directory = directory();
    let notify = directory.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_nonblocking(true).unwrap();
    let tcp = |ip| OwnedFd::from(TcpListener::bind((ip, 0)).unwrap());
    let name = format!("samehost-test-passed-{}", std::process::id());
    let name = SocketAddr::from_abstract_name(name).unwrap();
    let by_name = OwnedFd::from(UnixListener::bind_addr(&name).unwrap());
    for (socket, options, part) in [
        (tcp("0.0.0.0"), "--systemd", "or give --allow-remote"),
        (tcp("127.0.0.1"), "--systemd --allow-uid 0", "TCP does not tell who connects"),
        (by_name, "--systemd", "by --allow-same-user"),
    ] {
        let mut command = with_passed(socket, options);
        let mut refused = Serving::spawn(command.env("NOTIFY_SOCKET", &notify));
        assert_eq!(refused.line(), "", "it listens");
        let (code, errors) = refused.wait();
        assert_eq!((code, errors.lines().count()), (Some(2), 1), "{errors}");
        assert!(errors.contains(part), "{errors}");
        assert_eq!(manager.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    let mut serving = Serving::spawn(&mut with_passed(tcp("0.0.0.0"), "--systemd --allow-remote"));
    assert!(serving.line().starts_with("listening on 0.0.0.0:"));
}

/// The runtime has the number of the first passed socket then.
#[test]
fn descriptors_that_nobody_passed_are_refused() {
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" serve \"$1\" 3<&-";
    let output = by_shell(script, "--systemd").output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!((output.status.code(), errors.lines().count()), (Some(1), 1), "{errors}");
    assert!(errors.contains("descriptor 3 is close-on-exec, so it was not passed"), "{errors}");
    assert!(errors.contains("unset LISTEN_PID and LISTEN_FDS"), "{errors}");
}

#[test]
fn sockets_that_were_passed_and_are_not_served_are_logged() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    for (options, logged) in [(address.clone(), 1), (format!("--systemd {address}"), 0)] {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut serving = Serving::spawn(&mut with_passed(socket, &options));
        assert!(serving.line().starts_with("listening on "));
        serving.signal(Signal::TERM);
        let (code, log) = serving.wait();
        assert_eq!((code, log.lines().count()), (Some(0), logged), "{log}");
        assert_eq!(log.contains("give --systemd"), logged == 1, "{log}");
    }
}
