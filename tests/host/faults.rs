//! Every system call of a bind fails in turn, in every way that a file system knows.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, ExitCode};

use samehost::{Address, Listener};

use crate::support::{block_on, directory, names_in, socket_in, text};
use crate::{Scale, has_strace};

/// Name and number of each error (errno(3)).
const ERRORS: [(&str, i32); 9] = [
    ("ENOSPC", 28),
    ("EROFS", 30),
    ("EACCES", 13),
    ("ENOTDIR", 20),
    ("ELOOP", 40),
    ("ENAMETOOLONG", 36),
    ("EMFILE", 24),
    ("ENOMEM", 12),
    ("EIO", 5),
];

/// They have no error that a caller could hear of; setsockopt(2) is what an older kernel may refuse.
const LEFT_OUT: [&str; 7] =
    ["close", "epoll_wait", "fcntl", "getegid", "geteuid", "setsockopt", "write"];

/// What stood at the name before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Nothing,
    Stale,
}

/// A typed error with path and cause, and nothing left behind.
pub(crate) fn of_each_step(scale: Scale) -> String {
    if !has_strace() {
        return "left out: there is no strace".to_owned();
    }
    let errors = &ERRORS[..scale.pick(3, ERRORS.len())];
    let (mut steps, mut faults) = (0, 0);
    for before in [Before::Nothing, Before::Stale] {
        for (call, nth) in calls_of_a_bind(before) {
            steps += 1;
            for error in errors {
                faults += 1;
                fault(before, &call, nth, *error);
            }
        }
    }
    format!("{steps} system calls of a bind, {faults} faults: each named, nothing left behind")
}

fn prepare(path: &Path, before: Before) -> Option<u64> {
    if before == Before::Nothing {
        return None;
    }
    drop(UnixListener::bind(path).unwrap());
    Some(path.symlink_metadata().unwrap().ino())
}

fn strace(options: &[&str], address: &Address) -> Command {
    let mut command = Command::new("strace");
    command.args(options).arg(std::env::current_exe().unwrap()).args(["as", "bind"]);
    command.arg(address.to_string());
    command
}

/// The system calls between the opening of the directory and the end of the bind, each with its
/// number among the process's calls of that name.
fn calls_of_a_bind(before: Before) -> Vec<(String, usize)> {
    let directory = directory();
    let address = socket_in(directory.path());
    prepare(address.as_path().unwrap(), before);
    let output = strace(&[], &address).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let opens = format!("openat(AT_FDCWD, {:?}", directory.path());
    let mut seen = Vec::new();
    let mut calls = Vec::new();
    let mut begun = false;
    for line in text(&output.stderr).lines() {
        let Some((name, _)) = line.split_once('(') else { continue };
        seen.push(name);
        begun |= line.starts_with(&opens);
        if begun && !LEFT_OUT.contains(&name) {
            calls.push((name.to_owned(), seen.iter().filter(|other| **other == name).count()));
        }
        // The last step: the runtime is told of the socket.
        if begun && name == "epoll_ctl" {
            // What is made of a stale socket that was replaced is not the bind's outcome.
            let published = calls.iter().position(|(name, _)| name == "renameat2").unwrap();
            calls.drain(published + 1..calls.len() - 1);
            return calls;
        }
    }
    panic!("no bind in {}", text(&output.stderr));
}

fn fault(before: Before, call: &str, nth: usize, (error, code): (&str, i32)) {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let stale = prepare(path, before);
    let inject = format!("inject={call}:error={error}:when={nth}");
    let output = strace(&["--output=/dev/null", "-e", &inject], &address).output().unwrap();
    let says = text(&output.stdout);
    let what = format!("{before:?}, {call} {nth} fails with {error}: {says}");
    let left = names_in(directory.path());

    // A directory that cannot be listed is one whose left-overs cannot be seen.
    if output.status.success() {
        assert!(call == "openat" && error == "EACCES", "{what}");
        assert!(left.is_empty(), "{left:?} left behind: {what}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{what}{}", text(&output.stderr));
    assert!(says.contains(&address.to_string()), "{what}");
    assert!(says.contains(directory.path().to_str().unwrap()), "{what}");
    assert!(says.contains(&format!("(os error {code})")), "{what}");
    // Published already, it has taken the stale one's place.
    if before == Before::Nothing || call == "epoll_ctl" {
        assert!(left.is_empty(), "{left:?} left behind: {what}");
    } else {
        assert_eq!(left, ["ping.sock"], "{what}");
        assert_eq!(path.symlink_metadata().ok().map(|file| file.ino()), stale, "{what}");
    }
}

/// The process to which it happens.
pub(crate) fn bind(address: &str) -> ExitCode {
    match block_on(Listener::bind(address)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
