//! File descriptors that nobody asked for: none is kept, and nobody stalls.

use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Address, Channel};
use tokio::net::UnixStream;

use crate::descriptor_attacks::{AT_A_TIME, send_by};
use crate::support::{
    Serving, block_on, directory, eventually_async, nix_signal, open_descriptors, samehost,
    socket_in,
};
use crate::wire::{Peer, data, headers, message, request, window_update};
use crate::{Scale, has_strace};

/// To a server that refuses them, and to one whose kernel knows no way to refuse them: an error for
/// each setsockopt(2) makes it one.
pub(crate) fn sent_unasked(scale: Scale) -> String {
    let times = scale.pick(1_000, 10_000);
    let directory = directory();
    let address = socket_in(directory.path());
    let mut figures = Vec::new();
    let mut serve = |mut command: Command| {
        command.args(["serve", &address.to_string()]);
        let mut serving = Serving::spawn(&mut command);
        assert!(serving.line().starts_with("listening on "));
        // Its only child, if it is strace.
        let child = format!("/proc/{0}/task/{0}/children", serving.id());
        let child = std::fs::read_to_string(child).unwrap().trim().parse().ok();
        let server = KilledOnDrop(child.unwrap_or(serving.id()));
        let refused = block_on(attack(&address, server.0, times));
        figures.push(format!("{refused} refused"));
    };
    serve(samehost());
    if has_strace() {
        let mut older = Command::new("strace");
        older.args(["-f", "--seccomp-bpf", "--output=/dev/null", "-e", "trace=setsockopt", "-e"]);
        older.args(["inject=setsockopt:error=ENOPROTOOPT", env!("CARGO_BIN_EXE_samehost")]);
        serve(older);
    } else {
        figures.push("left out, there is no strace".to_owned());
    }
    format!(
        "{AT_A_TIME} descriptors with each of {times} calls: {}; as by an older kernel: {}",
        figures[0], figures[1]
    )
}

/// What strace runs outlives it.
struct KilledOnDrop(u32);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        nix_signal::kill(self.0, nix_signal::Signal::KILL);
    }
}

/// How often they were refused. All calls are answered, theirs and a bystander's.
async fn attack(address: &Address, server: u32, times: u32) -> u32 {
    let open = || open_descriptors(server);
    let mut bystander = PingServiceClient::new(Channel::connect(address).await.unwrap());
    bystander.ping(PingRequest::ping()).await.unwrap();
    let stream = UnixStream::connect(address.as_path().unwrap()).await.unwrap();
    let mut attacker = Peer::client(stream, &[]).await;
    attacker.send(&window_update(0, 1 << 30)).await;
    let before = open();
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut refused = 0;
    for time in 0..times {
        let stream = 2 * time + 1;
        let head = headers(stream, &request("/ping.v1.PingService/Ping"), false);
        let body = data(stream, &message(b""), true);
        // Each read stops at a message that has some.
        for part in [&head, &body] {
            refused += u32::from(!send_by(&attacker.io, part, &[null.as_fd(); AT_A_TIME]).await);
        }
        let answered = attacker.until(|frame| frame.stream == stream && frame.ends_stream());
        tokio::time::timeout(Duration::from_secs(30), answered).await.expect("it stalls");
        if time % 100 == 0 {
            let call = bystander.ping(PingRequest::ping());
            tokio::time::timeout(Duration::from_secs(30), call).await.expect("it stalls").unwrap();
            // Other threads may still close some.
            let more = open().saturating_sub(before);
            assert!(more <= 2 * 253, "{more} descriptors more");
        }
    }
    eventually_async("all are closed", || open() <= before).await;
    refused
}
