//! File systems that cannot hold a new file. Each is a tmpfs in a mount namespace of its own, which
//! only root may create; where that is not permitted, the tests print so and do nothing.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::{directory, names_in, text};

/// Mounts a tmpfs with `options` at `directory` while `script` runs, a shell script in which `$0`
/// is the command and `$1` the directory. Returns `None` where that is not permitted.
fn in_tmpfs(options: &str, directory: &Path, script: &str) -> Option<Output> {
    const NOT_PERMITTED: i32 = 99;
    let mount =
        format!("mount -t tmpfs -o {options} tmpfs \"$1\" || exit {NOT_PERMITTED}; {script}");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &mount, env!("CARGO_BIN_EXE_samehost")])
        .arg(directory)
        .output();
    let permitted = |output: &Output| {
        let unshare_failed = output.stderr.starts_with(b"unshare:");
        output.status.code() != Some(NOT_PERMITTED) && !unshare_failed
    };
    let output = output.ok().filter(permitted);
    if output.is_none() {
        eprintln!("left out: mounting a file system is not permitted here");
    }
    output
}

/// Asserts that standard error is one line with all `parts`, the exit code is 1, and these names
/// are left in the directory.
fn refused(output: &Output, parts: &[&str], left: &[&str]) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    for part in parts {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert_eq!(text(&output.stdout).lines().collect::<Vec<_>>(), left);
}

#[test]
fn a_full_disk_is_named_and_nothing_stays() {
    let directory = directory();
    let path = directory.path().join("ping.sock");
    let path = path.to_str().unwrap();
    // There are inodes for the root directory and for no file, or for the lock file but not for the
    // socket.
    for (inodes, step) in [(1, "could not create the lock file"), (2, "could not bind a socket at")]
    {
        let script = "$0 serve unix:$1/ping.sock; code=$?; ls -A \"$1\"; exit $code";
        let options = format!("nr_inodes={inodes}");
        let Some(output) = in_tmpfs(&options, directory.path(), script) else { return };
        refused(&output, &[path, step, "No space left on device", "free some space"], &[]);
    }
    assert!(names_in(directory.path()).is_empty(), "the mount was not in its own namespace");
}

#[test]
fn a_full_disk_keeps_a_stale_socket_as_it_is() {
    let directory = directory();
    // The lock file and the socket of a killed server take all inodes, so that a second socket
    // cannot be bound.
    let script = "$0 serve unix:$1/ping.sock >/dev/null & server=$!
        until [ -S $1/ping.sock ]; do kill -0 $server || exit; done
        { kill -KILL $server; wait $server; } 2>/dev/null
        before=$(stat -c %i \"$1/ping.sock\")
        $0 serve unix:$1/ping.sock 2>$1/../errors; code=$?
        [ $before = $(stat -c %i \"$1/ping.sock\") ] || code=98
        cat $1/../errors >&2; ls -A \"$1\"; exit $code";
    let mounted = directory.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    let Some(output) = in_tmpfs("nr_inodes=3", &mounted, script) else { return };
    refused(&output, &["could not bind a socket at", "free some space"], &["ping.sock"]);
}

#[test]
fn a_read_only_file_system_is_named() {
    let directory = directory();
    let script = "mount -o remount,ro \"$1\"
        $0 serve unix:$1/ping.sock; code=$?; ls -A \"$1\"; exit $code";
    let Some(output) = in_tmpfs("nr_inodes=9", directory.path(), script) else { return };
    refused(
        &output,
        &["could not create the lock file", "Read-only file system", "can be written to"],
        &[],
    );

    // The lock file exists already.
    let script = format!("touch \"$1/.ping.sock.lock\"; {script}");
    let Some(output) = in_tmpfs("nr_inodes=9", directory.path(), &script) else { return };
    refused(
        &output,
        &["could not create the lock file", "Read-only file system", "can be written to"],
        &[".ping.sock.lock"],
    );
}
