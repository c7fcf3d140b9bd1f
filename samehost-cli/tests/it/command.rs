//! The command's `serve` and `ping`, by their output.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use rustix::process::Signal;
use samehost::Address;

use crate::support::{
    Serving, copied_binary, directory, names_in, nix_signal, run, samehost, socket_in, text,
};

const LOCK: &str = ".ping.sock.lock";

fn refused(arguments: &[&str], code: i32, message: &str) {
    let output = run(arguments);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(errors.contains(message), "{arguments:?}: {errors}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", text(&output.stdout));
}

fn one_line(arguments: &[&str], code: i32, message: &str) {
    refused(arguments, code, message);
    let output = run(arguments);
    assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
}

#[test]
fn serve_listens_on_all_addresses_and_ping_reaches_each() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let serving = Serving::start(&[&address, "127.0.0.1:0", "127.0.0.1:0"], &[]);
    assert_eq!(serving.addresses[0].to_string(), address);
    for address in &serving.addresses {
        let output = run(&["ping", "-c", "3", "-i", "0", "-s", "9", &address.to_string()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let printed = text(&output.stdout);
        assert!(printed.starts_with(&format!("PING {address} with 9 bytes")), "{printed}");
        for sequence in 1..=3 {
            let line = format!("9 bytes from {address}: seq={sequence} time=");
            assert!(printed.contains(&line), "{printed}");
        }
        assert!(printed.contains("3 calls, 3 replies, 0.0% loss"), "{printed}");
        assert!(printed.contains("rtt min/avg/max/mdev = "), "{printed}");
    }
}

#[test]
fn ping_can_be_quiet_or_json() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let _serving = Serving::start(&[&address], &[]);
    let output = run(&["ping", "-c", "2", "-i", "1ms", "-q", &address]);
    assert_eq!(text(&output.stdout).trim().lines().count(), 3, "{}", text(&output.stdout));
    let output = run(&["ping", "-c", "2", "-i", "1ms", "--json", &address]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["address"], address.as_str());
    assert_eq!((&json["sent"], &json["received"]), (&2.into(), &2.into()));
    assert!(json["min_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn ping_ends_at_ctrl_c_with_its_summary() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let _serving = Serving::start(&[&address], &[]);
    let mut ping = Serving::spawn(samehost().args(["ping", "-i", "1h", &address]));
    assert!(ping.line().starts_with("PING"));
    assert!(ping.line().contains("seq=1"));
    ping.signal(Signal::INT);
    assert_eq!(ping.line(), "");
    assert!(ping.line().contains("ping statistics"));
    assert!(ping.line().contains("1 call, 1 reply, "));
    assert_eq!(ping.wait().0, Some(0));
}

#[test]
fn ping_gives_up_at_once_on_what_only_a_person_can_mend() {
    let directory = directory();
    let path = directory.path().join("file");
    std::fs::write(&path, "").unwrap();
    for (path, message) in [
        (path.clone(), "there is a regular file"),
        (directory.path().to_owned(), "there is a directory"),
        (path.with_file_name("n".repeat(256)), "no file can have this path"),
    ] {
        let address = Address::unix(path).unwrap().to_string();
        let output = run(&["ping", "--wait", "-c", "3", "-i", "1ms", &address]);
        assert_eq!(output.status.code(), Some(1));
        let printed = text(&output.stdout);
        assert!(printed.contains(message), "{printed}");
        assert!(printed.contains("1 call, 0 replies, "), "{printed}");
    }
}

#[test]
fn ping_can_wait_for_a_server() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let options = ["ping", "--wait", "-c", "1", "-W"];
    let output = run(&[&options[..], &["10ms", &address]].concat());
    let printed = text(&output.stdout);
    assert!(printed.contains("no server is listening at"), "{printed}");
    assert!(printed.contains("waited 10 ms"), "{printed}");

    let mut ping = Serving::spawn(samehost().args(options).args(["1h", &address]));
    assert!(ping.line().starts_with("PING"));
    let _serving = Serving::start(&[&address], &[]);
    assert!(ping.line().contains("seq=1 time="));
    assert_eq!(ping.wait().0, Some(0));
}

/// A listening socket whose connections nobody serves, and a server that takes its time, are told
/// apart.
#[test]
fn ping_says_what_it_waited_for() {
    let directory = directory();
    let address = socket_in(directory.path());
    let _silent = std::os::unix::net::UnixListener::bind(address.as_path().unwrap()).unwrap();
    for wait in [&[][..], &["--wait"]] {
        let options = ["ping", "-c", "1", "-W", "200ms", &address.to_string()];
        let output = run(&[&options[..], wait].concat());
        assert_eq!(output.status.code(), Some(1));
        let printed = text(&output.stdout);
        assert!(printed.contains("took the connection and has sent no SETTINGS"), "{printed}");
        assert!(printed.contains("give it more time by -W, or check"), "{printed}");
    }
}

#[test]
fn ping_without_a_server_exits_with_1() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let output = run(&["ping", "-c", "2", "-i", "0", &address]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    let expected = format!("samehost: no server is listening at {address}");
    assert!(errors.starts_with(&expected), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(text(&output.stdout).contains("2 calls, 0 replies, 100.0% loss"));
}

#[test]
fn a_server_that_goes_away_in_the_middle_is_a_lost_reply() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let mut serving = Serving::start(&[&address], &[]);
    let mut ping = Serving::spawn(samehost().args(["ping", "-i", "300ms", &address]));
    assert!(ping.line().starts_with("PING"));
    assert!(ping.line().contains("seq=1 time="));
    serving.signal(Signal::KILL);
    serving.wait();
    // The next calls may have been answered before, or have been lost in the middle.
    let mut line = ping.line();
    for sequence in 2.. {
        assert!(line.contains(&format!("seq={sequence} ")), "{line}");
        if line.contains(" no server is listening") {
            break;
        }
        line = ping.line();
    }
    ping.signal(Signal::INT);
    assert_eq!(ping.wait().0, Some(0));
}

#[test]
fn the_socket_file_goes_at_each_signal_that_ends_a_server() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let directory = directory();
        let address = socket_in(directory.path()).to_string();
        // The tests themselves may run under nohup(1), and what is ignored would be inherited.
        let mut command = std::process::Command::new("env");
        command.arg("--default-signal").arg(crate::support::binary()).args(["serve", &address]);
        let mut serving = Serving::spawn(&mut command);
        assert_eq!(serving.line(), format!("listening on {address}"));
        serving.signal(signal);
        assert_eq!(serving.wait(), (Some(0), String::new()));
        assert!(names_in(directory.path()).is_empty());
    }
}

#[test]
fn a_hang_up_that_is_ignored_ends_nothing() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    // This is like nohup(1), without its output file.
    let script = "trap '' HUP; exec \"$0\" serve \"$1\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).arg(crate::support::binary()).arg(&address);
    let mut serving = Serving::spawn(&mut command);
    assert_eq!(serving.line(), format!("listening on {address}"));
    serving.signal(Signal::HUP);
    assert!(run(&["ping", "-c", "1", &address]).status.success());
    serving.signal(Signal::TERM);
    assert_eq!(serving.wait().0, Some(0));
}

#[tokio::test]
async fn at_sigterm_watchers_are_told_and_hold_up_no_drain() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    for service in ["", "ping.v1.PingService"] {
        let directory = directory();
        let address = socket_in(directory.path());
        let mut serving = Serving::start(&[&address.to_string()], &["--drain", "1h"]);
        let channel = samehost::Channel::connect(&address).await.unwrap();
        let mut client = HealthClient::new(channel);
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut watch = client.watch(request).await.unwrap().into_inner();
        let status = watch.message().await.unwrap().unwrap().status();
        assert_eq!(status, ServingStatus::Serving);
        serving.signal(Signal::TERM);
        let status = watch.message().await.unwrap().unwrap().status();
        assert_eq!(status, ServingStatus::NotServing);
        assert!(watch.message().await.unwrap().is_none(), "the watch ends by itself");
        assert_eq!(serving.wait(), (Some(0), String::new()));
    }
}

/// The text of a hostile server's status, and its escaped form.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\r\u{1b}[2Jok\u{202e}";
const SHOWN: &str = "\\u{1b}]0;owned\\u{7}\\r\\u{1b}[2Jok\\u{202e}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_reaches_the_terminal_escaped() {
    use crate::support::{Running, Scripted, Transport};
    let hostile =
        Scripted::default().on_ping(|_| async { Err(tonic::Status::failed_precondition(HOSTILE)) });
    let server = Running::start(Transport::Unix, hostile.server()).await;
    let address = server.address.to_string();
    for arguments in [
        &["ping", "-c", "1", &address][..],
        &["ping", "-c", "1", "--json", &address],
        &["bench", "--address", &address, "--kind", "unary", "--concurrency", "1"],
    ] {
        let mut command = tokio::process::Command::from(samehost());
        let output = command.args(arguments).output().await.unwrap();
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(errors.contains(SHOWN), "{arguments:?}: {errors}");
        assert!(errors.contains(&format!("samehost: {address}: ")), "{arguments:?}: {errors}");
        let unfit = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!out.contains(unfit) && !errors.contains(unfit), "{arguments:?}: {out}{errors}");
    }
    server.stop().await;
}

#[test]
fn a_second_signal_stops_a_drain() {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut serving = Serving::start(&[&address.to_string()], &["--drain", "1h"]);
    // The connection of this client does not end by itself.
    let mut ping = Serving::spawn(samehost().args(["ping", "-i", "1h", &address.to_string()]));
    ping.line();
    ping.line();
    let mut stuck = std::os::unix::net::UnixStream::connect(address.as_path().unwrap()).unwrap();
    std::io::Write::write_all(&mut stuck, b"PRI * HTTP/2.0\r\n").unwrap();
    serving.signal(Signal::TERM);
    let path = address.as_path().unwrap();
    crate::support::eventually("the socket file is gone", || !path.exists());
    serving.signal(Signal::TERM);
    assert_eq!(serving.wait().0, Some(0));
    drop(stuck);
}

#[test]
fn a_socket_left_by_sigkill_is_replaced() {
    let directory = directory();
    let address = socket_in(directory.path());
    for _ in 0..3 {
        let mut serving = Serving::start(&[&address.to_string()], &[]);
        serving.signal(Signal::KILL);
        serving.wait();
        assert_eq!(names_in(directory.path()), [LOCK, "ping.sock"]);
    }
    let _serving = Serving::start(&[&address.to_string()], &[]);
    assert!(run(&["ping", "-c", "1", &address.to_string()]).status.success());
}

#[test]
fn of_twenty_servers_at_once_exactly_one_serves() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    let mut all: Vec<_> =
        (0..20).map(|_| Serving::spawn(samehost().args(["serve", &address]))).collect();
    let (serving, refused): (Vec<_>, Vec<_>) = all
        .iter_mut()
        .map(|server| (server.line(), server))
        .partition(|(line, _)| !line.is_empty());
    assert_eq!(serving.len(), 1);
    for (_, server) in refused {
        let (code, errors) = server.wait();
        assert_eq!(code, Some(1));
        assert!(errors.contains("already being served"), "{errors}");
    }
    assert!(run(&["ping", "-c", "1", &address]).status.success());
    assert_eq!(names_in(directory.path()), [LOCK, "ping.sock"]);
}

#[test]
fn mode_is_taken_from_the_option() {
    let directory = directory();
    let address = socket_in(directory.path());
    let _serving = Serving::start(&[&address.to_string()], &["--mode", "0660"]);
    assert_eq!(std::fs::metadata(address.as_path().unwrap()).unwrap().mode() & 0o7777, 0o660);
}

#[test]
fn the_default_address_is_private() {
    let runtime_dir = directory();
    let mut serving =
        Serving::spawn(samehost().arg("serve").env("XDG_RUNTIME_DIR", runtime_dir.path()));
    let expected = Address::unix(runtime_dir.path().join("samehost.sock")).unwrap();
    assert_eq!(serving.line(), format!("listening on {expected}"));
}

#[test]
fn wrong_usage_exits_with_2() {
    for (arguments, message) in [
        (&["serve", "/tmp/x.sock"][..], "write unix:/tmp/x.sock"),
        (&["serve", "localhost"], "write localhost:50051"),
        (&["serve", "https://localhost:1"], "no TLS"),
        (&["serve", "--mode", "999"], "no mode"),
        (&["serve", "--threads", "0"], "\"0\" is no number of threads: write 1 to 1024"),
        (&["serve", "--timeout", "0"], "is zero"),
        (&["serve", "--max-connection-age", "0s"], "is zero"),
        (&["serve", "--idle-exit", "0"], "is zero"),
        (&["serve", "--max-buffered-bytes", "0"], "no number from 1 on"),
        (&["serve", "--descriptors", "0"], "write 1 to 253"),
        (&["serve", "--threads", "-1"], "write 1 to 1024"),
        (&["serve", "--drain", "-1"], "negative"),
        (&["serve", "--max-connections", "-1"], "no number from 1 on"),
        (&["serve", "--log", "samehost=loud"], "write error, warn, info, debug, trace"),
        (&["serve", "--log", "warning"], "did you mean warn?"),
        (&["serve", "--log", ""], "write error, warn, info, debug, trace, off"),
        (&["serve", "--drain", "soon"], "no duration"),
        (&["serve", "--drain=-1s"], "negative"),
        (&["serve", "--allow-uid", "no such user"], "there is no user \"no such user\""),
        (&["serve", "--allow-gid", "no such group"], "there is no group \"no such group\""),
        (&["serve", "--group", "no such group"], "there is no group \"no such group\""),
        (&["serve", "--group="], "there is no group \"\""),
        (&["serve", "--allow-uid", "-1"], "there is no user \"-1\""),
        (&["serve", "--max-connections", "0"], "no number from 1 on"),
        (&["serve", "--max-streams", "0"], "write 1 or more"),
        (&["serve", "--descriptors", "254"], "write 1 to 253"),
        (&["serve", "--busy-poll", "1y"], "no duration"),
        (&["ping"], "<ADDRESS>"),
        (&["ping", "-c", "0", "unix:/x"], "write 1 or more"),
        (&["ping", "-c", "-5", "unix:/x"], "write 1 or more"),
        (&["ping", "-i", "-1", "unix:/x"], "negative"),
        (&["ping", "-W", "-1", "unix:/x"], "negative"),
        (&["ping", "-i", "1y", "unix:/x"], "no duration"),
        (&["ping", "-W", "0", "unix:/x"], "is zero"),
        (&["ping", "-s", "4194304", "unix:/x"], "over the message limit"),
        (&["ping", "-s", "-1", "unix:/x"], "is no size in bytes"),
        (&["bench", "--rounds", "0"], "\"0\" is no number of rounds: write 1 to 1000"),
        (&["bench", "--concurrency", "0"], "is no number of calls in flight: write 1 to 4096"),
        (&["bench", "--calls", "0"], "write 1 or more"),
        (&["ping", "unix:/a,unix:/b"], "give each alone; in a path"),
        (&["ping", " unix:/a"], "leave it out (in a path"),
        (&["serve", "--max-streams", "4294967296"], "is too large"),
        (&["serve", "--max-buffered-bytes", "256M"], "has a unit: write the number of bytes"),
        (&["nonsense"], "unrecognized subcommand"),
    ] {
        refused(arguments, 2, message);
    }
    one_line(&["serve", "unix-abstract:x"], 2, "--allow-same-user");
    one_line(&["serve", "127.0.0.1:0", "--allow-uid", "0"], 2, "TCP does not tell who connects");
    one_line(&["serve", "0.0.0.0:0"], 2, "or give --allow-remote");
    one_line(&["serve", "unix:/tmp/a", "unix:/tmp/b", "unix:///tmp/a"], 2, "/tmp/a: given twice");
    let one_for_both = ["serve", "127.0.0.1:9", "--metrics", "127.0.0.1:9"];
    one_line(&one_for_both, 2, "given twice: give --metrics an address of its own");
    one_line(&["serve", "127.0.0.1:9", "ipv4:127.0.0.1:9"], 2, "127.0.0.1:9: given twice");
}

/// They stay allowed, because scripts give the same options for all addresses.
#[test]
fn options_of_serve_without_effect_are_logged() {
    const ABSTRACT: [&str; 2] = ["unix-abstract:options-without-effect", "--allow-same-user"];
    let directory = directory();
    let path = socket_in(directory.path()).to_string();
    let logged = |address: &str, options: &[&str]| {
        let mut serving = Serving::start(&[address], options);
        serving.signal(nix_signal::Signal::TERM);
        serving.wait().1
    };
    let of_files = ["--mode", "0660", "--allow-shared-directory", "--republish"];
    let of_unix = ["--descriptors", "1", "--max-connections-per-uid", "9"];
    let all = [&of_files[..], &of_unix].concat();
    assert_eq!(logged(&path, &all), "");
    for (address, options, unused) in [
        ("127.0.0.1:0", &all[..], &["--mode", "--republish", "--descriptors"][..]),
        (ABSTRACT[0], &[&all[..], &ABSTRACT[1..]].concat(), &["--mode", "--republish"]),
        (&path, &["--allow-remote"], &["--allow-remote"]),
    ] {
        let log = logged(address, options);
        for option in unused {
            assert!(log.contains(&format!("{option} has no effect")), "{option}: {log}");
        }
        let used_by_unix_sockets = address != "127.0.0.1:0" && log.contains("--descriptors");
        assert!(!used_by_unix_sockets, "{log}");
    }
}

/// An operator has options where a programmer has functions.
#[test]
fn errors_name_no_functions_of_the_library() {
    let directory = directory();
    let silent = socket_in(directory.path());
    let _silent = std::os::unix::net::UnixListener::bind(silent.as_path().unwrap()).unwrap();
    let closed = directory.path().join("closed");
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let closed = Address::unix(closed).unwrap().to_string();
    let _closed = Serving::start(&[&closed], &[]);
    let silent = silent.to_string();
    let bench = ["bench", "--address", &silent, "--kind", "unary", "--concurrency", "1"];
    let mut outputs = vec![run(&bench), run(&["ping", "-c", "1", "-W", "0.2", &silent])];
    if rustix::process::geteuid().is_root() {
        let mut command = std::process::Command::new(copied_binary(directory.path()));
        std::os::unix::process::CommandExt::uid(&mut command, 12_345);
        let output = command.args(["ping", &closed]).stdin(Stdio::null()).output().unwrap();
        assert!(text(&output.stderr).contains("serve --mode"), "{}", text(&output.stderr));
        outputs.push(output);
    }
    for output in outputs {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains("::") && !said.contains("_timeout"), "{said}");
    }
}

#[test]
fn what_cannot_be_bound_exits_with_1_and_one_line() {
    let directory = directory();
    let missing = directory.path().join("missing/x.sock");
    one_line(&["serve", &format!("unix:{}", missing.display())], 1, "create it first");

    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    one_line(&["serve", &format!("unix:{}", file.display())], 1, "a regular file");
    one_line(&["serve", &format!("unix:{}/x", file.display())], 1, "part of the path is a file");

    let shared = directory.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, Permissions::from_mode(0o777)).unwrap();
    let address = socket_in(&shared).to_string();
    one_line(&["serve", &address], 1, "chmod o-w");
    one_line(&["serve", &address], 1, "or give --allow-shared-directory");
    let _serving = Serving::start(&[&address], &["--allow-shared-directory"]);

    let taken = Serving::start(&["127.0.0.1:0"], &[]);
    let port = taken.addresses[0].to_string();
    one_line(&["serve", &port], 1, "the port is in use");
    // The first address is released when the second cannot be bound.
    let other = socket_in(directory.path()).to_string();
    one_line(&["serve", &other, &port], 1, "the port is in use");
    assert!(!directory.path().join("ping.sock").exists());
}

#[test]
fn a_directory_without_write_permission_is_named() {
    if rustix::process::geteuid().is_root() {
        // Root may write everywhere, so the command runs as another user.
        let directory = directory();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let address = socket_in(directory.path()).to_string();
        let mut command = std::process::Command::new(copied_binary(directory.path()));
        std::os::unix::process::CommandExt::uid(&mut command, 12_345);
        let output = command.args(["serve", &address]).stdin(Stdio::null()).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("Permission denied"), "{errors}");
        assert!(errors.contains("directory that this process may write to"), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    } else {
        let directory = directory();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o555)).unwrap();
        one_line(&["serve", &socket_in(directory.path()).to_string()], 1, "Permission denied");
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn help_has_examples_and_version_prints() {
    let help = run(&["serve", "--help"]);
    assert!(text(&help.stdout).contains("samehost serve unix:"), "{}", text(&help.stdout));
    let help = run(&["ping", "--help"]);
    assert!(text(&help.stdout).contains("samehost ping unix:"));
    let version = run(&["--version"]);
    assert_eq!(text(&version.stdout), concat!("samehost ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    for arguments in [&["--help"][..], &["--version"], &["ping", "--help"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = samehost().args(arguments).stdout(full).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.starts_with("samehost: cannot write to standard output: "), "{errors}");
    }
}

#[test]
fn help_fits_the_terminal() {
    for subcommand in ["serve", "ping", "check", "bench"] {
        let output = samehost().env("COLUMNS", "80").args([subcommand, "--help"]).output().unwrap();
        for line in text(&output.stdout).lines() {
            assert!(line.chars().count() <= 80, "{subcommand}: {line}");
        }
    }
}

#[test]
fn completions_and_manual_pages_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        let script = text(&output.stdout);
        assert!(script.contains("samehost") && script.contains("busy-poll"), "{script}");
        assert!(script.contains("check"), "{script}");
        assert!(!script.contains("bench-server"), "it is hidden: {script}");
    }
    let page = run(&["man"]);
    let page = text(&page.stdout);
    assert!(page.contains(".TH samehost 1"), "{page}");
    // The pages that this one refers to are those that there are, and that the package has.
    let package = include_str!("../../debian/build");
    let named =
        page.lines().filter_map(|line| line.strip_prefix("samehost\\-")?.strip_suffix("(1)"));
    let named: Vec<_> = named.collect();
    assert_eq!(named, ["serve", "ping", "check", "bench", "completions", "man"], "{page}");
    assert!(package.contains(&format!("for subcommand in {}; do", named.join(" "))));
    for subcommand in named {
        let page = run(&["man", subcommand]);
        let page = text(&page.stdout);
        let source = concat!("samehost ", env!("CARGO_PKG_VERSION"));
        let title = format!(".TH samehost-{subcommand} 1  \"{source}\"");
        assert!(page.contains(&title), "{page}");
        assert!(page.contains("Examples:"), "{page}");
    }
    refused(&["man", "nonsense"], 2, "there is no subcommand");
}
