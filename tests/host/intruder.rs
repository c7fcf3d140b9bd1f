//! A process of another user that tries to get in while a socket is bound with mode 0600.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use samehost::Listener;

use crate::Scale;
use crate::support::{block_on, directory, names_in, socket_in};

/// No user of this host, and not the 65534 that unmapped ones are shown as.
const UID: u32 = 65_533;

/// Binds again and again; the intruder sees the directory, and so temporary names, too.
pub(crate) fn is_kept_out(_: Scale) -> String {
    if !rustix::process::geteuid().is_root() {
        return "left out: it takes root to run as another user".to_owned();
    }
    let times = 1_000;
    let directory = directory();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let address = socket_in(directory.path());
    let mut intruder = Command::new("/proc/self/exe")
        .args(["as".as_ref(), "intruder".as_ref(), directory.path().as_os_str()])
        .uid(UID)
        .gid(UID)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut says = BufReader::new(intruder.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(says.next().as_deref(), Some("ready"));
    for _ in 0..times {
        let listener = block_on(Listener::bind(&address)).unwrap();
        assert_eq!(names_in(directory.path()), [".ping.sock.lock", "ping.sock"]);
        drop(listener);
    }
    // The end of its input ends it.
    drop(intruder.stdin.take());
    let summary = says.next().expect("its summary");
    assert!(intruder.wait().unwrap().success(), "{summary}");
    format!("bound {times} times with mode 0600; uid {UID} {summary}")
}

/// The other process: connects to every socket that it sees.
pub(crate) fn run(directory: &Path) -> ExitCode {
    println!("ready");
    let ended = std::thread::spawn(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let (mut tried, mut denied, mut entered) = (0, 0, 0);
    while !ended.is_finished() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_socket()) {
                continue;
            }
            tried += 1;
            match UnixStream::connect(entry.path()) {
                Ok(_) => entered += 1,
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => denied += 1,
                // It has been published, or removed, since.
                Err(_) => {}
            }
        }
    }
    println!("tried {tried} times, was denied {denied} times and got in {entered} times");
    std::io::stdout().flush().unwrap();
    if entered == 0 && denied > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
