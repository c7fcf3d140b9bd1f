//! The server and the client as processes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

struct Server(Child);

impl Server {
    fn start(address: &str, logs: &Path, uid: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_log-server"));
        command.arg(address).arg(logs).arg(uid).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("listening on {address}\n"));
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn client(address: &str, name: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_log-client"));
    command.args([address, name, "a line from the sandbox"]).output().unwrap()
}

#[test]
fn a_client_in_a_sandbox_writes_to_the_file_that_the_server_opened_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let address = format!("unix:{}", directory.path().join("logs.sock").display());
    let uid = rustix::process::geteuid().as_raw();

    let server = Server::start(&address, &logs, &uid.to_string());
    for _ in 0..2 {
        let output = client(&address, "app.log");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        // Where the kernel has no Landlock, the client says so.
        assert!(said.contains("sandbox") && said.ends_with("logged\n"), "{said}");
    }
    let log = std::fs::read_to_string(logs.join("app.log")).unwrap();
    assert_eq!(log, "a line from the sandbox\n".repeat(2));

    // No name leads out of the directory.
    for name in ["../out.log", "/tmp/out.log", ""] {
        let output = client(&address, name);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot open"), "{output:?}");
    }
    assert!(!directory.path().join("out.log").exists());
    drop(server);

    // The policy on the method.
    let _server = Server::start(&address, &logs, &(uid + 1).to_string());
    let output = client(&address, "app.log");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("PermissionDenied") || said.contains("permission"), "{said}");
    assert_eq!(std::fs::read_to_string(logs.join("app.log")).unwrap(), log);
}
