//! The metrics and the log of `serve`, and its end when it is idle.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use samehost::Channel;
use samehost::ping::{PingRequest, PingServiceClient, WatchRequest};
use tonic::Code;

use crate::support::{
    Serving, block_on, directory, eventually, nix_signal, open_descriptors, run, socket_in, text,
};

/// Returns what an HTTP/1.1 client gets.
fn get(authority: &str) -> String {
    let response = ask(authority, &request(authority, "GET", "/metrics"));
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    response
}

fn request(authority: &str, method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: {authority}\r\n\r\n")
}

/// Sends bytes, and returns what comes until the server closes the connection.
fn ask(authority: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    until_closed(&mut stream)
}

fn until_closed(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// Returns where a server says that its metrics are.
fn metrics_of(serving: &mut Serving) -> String {
    let line = serving.line();
    let place = line.strip_prefix("metrics at http://").and_then(|at| at.strip_suffix("/metrics"));
    place.expect(&line).to_owned()
}

#[test]
fn metrics_are_served_for_prometheus() {
    let directory = directory();
    let address = socket_in(directory.path());
    let options = ["--metrics", "127.0.0.1:0"];
    let mut serving = Serving::start(&[&address.to_string()], &options);
    let place = metrics_of(&mut serving);
    block_on(async {
        let mut client = PingServiceClient::new(Channel::connect(&address).await.unwrap());
        for _ in 0..3 {
            client.ping(PingRequest::ping()).await.unwrap();
        }
        let bad = PingRequest { message: "?".into(), ..PingRequest::default() };
        client.ping(bad).await.unwrap_err();
        // All unknown methods count as one method.
        let mut other = tonic::client::Grpc::new(Channel::connect(&address).await.unwrap());
        for number in 0..5 {
            other.ready().await.unwrap();
            let path = format!("/ping.v1.PingService/Made-up-{number}").parse().unwrap();
            let codec = tonic_prost::ProstCodec::<PingRequest, PingRequest>::default();
            let call = other.unary(tonic::Request::new(PingRequest::ping()), path, codec).await;
            assert_eq!(call.unwrap_err().code(), Code::Unimplemented);
        }
    });
    let ping = "rpc_system_name=\"grpc\",rpc_method=\"ping.v1.PingService/Ping\"";
    for line in [
        format!(
            "rpc_server_call_duration_seconds_count{{{ping},rpc_response_status_code=\"OK\"}} 3"
        ),
        format!(
            "rpc_server_call_duration_seconds_count{{{ping},rpc_response_status_code=\"INVALID_ARGUMENT\",\
             error_type=\"INVALID_ARGUMENT\"}} 1"
        ),
        "rpc_server_call_duration_seconds_count{rpc_system_name=\"grpc\",rpc_method=\"_OTHER\",\
         rpc_response_status_code=\"UNIMPLEMENTED\",error_type=\"UNIMPLEMENTED\"} 5"
            .to_owned(),
        "grpc_server_call_started_total 9".to_owned(),
        "samehost_server_connections_opened_total{network_transport=\"unix\"} 2".to_owned(),
        "samehost_server_connections{network_transport=\"unix\"} 0".to_owned(),
    ] {
        // The end of a connection is counted a moment later.
        eventually(&line, || get(&place).contains(&line));
    }
    let all = get(&place);
    let counters: Vec<_> = all.lines().filter(|line| line.ends_with(" counter")).collect();
    assert!(counters.len() >= 3, "{all}");
    assert!(counters.iter().all(|line| line.ends_with("_total counter")), "{counters:?}");
    assert!(
        all.contains("\ngrpc_server_call_rcvd_total_compressed_message_size_bytes_sum{"),
        "{all}"
    );
    assert!(all.contains("le=\"0.00001\"") || all.contains("le=\"1e-5\""), "{all}");
    assert!(!all.contains("Made-up"), "{all}");
}

#[test]
fn only_get_and_head_are_answered_with_metrics() {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut serving = Serving::start(&[&address.to_string()], &["--metrics", "127.0.0.1:0"]);
    let place = metrics_of(&mut serving);
    let text_format = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";
    for (method, path, code, part) in [
        ("GET", "/metrics", 200, text_format),
        ("GET", "/", 200, text_format),
        ("HEAD", "/metrics", 200, text_format),
        ("POST", "/metrics", 405, "allow: GET, HEAD\r\n"),
        ("DELETE", "/", 405, "allow: GET, HEAD\r\n"),
    ] {
        let response = ask(&place, &request(&place, method, path));
        assert!(response.starts_with(&format!("HTTP/1.1 {code} ")), "{method} {path}: {response}");
        assert!(response.contains(part), "{method} {path}: {response}");
        let has_body = !response.ends_with("\r\n\r\n");
        assert!(!has_body || method == "GET", "{method} {path}: {response}");
    }
}

/// The peers neither use up descriptors nor fill the log.
#[test]
fn peers_that_waste_the_metrics_port_hold_up_no_scrape_and_no_call() {
    const SERVED_AT_A_TIME: usize = 16;
    let directory = directory();
    let address = socket_in(directory.path());
    let mut serving = Serving::start(&[&address.to_string()], &["--metrics", "127.0.0.1:0"]);
    let place = metrics_of(&mut serving);
    let before = open_descriptors(serving.id());
    for garbage in ["\0\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", &"x".repeat(100_000)] {
        // The server may close the connection before it has read all.
        let mut stream = TcpStream::connect(&place).unwrap();
        let _ = stream.write_all(garbage.as_bytes());
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut response = Vec::new();
        if let Err(error) = stream.read_to_end(&mut response) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{garbage:.9}: {error}");
        }
        assert!(!String::from_utf8(response).unwrap().starts_with("HTTP/1.1 200"), "{garbage:.9}");
    }
    let mut idle: Vec<_> = (0..100).map(|_| TcpStream::connect(&place).unwrap()).collect();
    assert!(run(&["ping", "-c", "3", "-i", "0", &address.to_string()]).status.success());
    eventually("some are served", || open_descriptors(serving.id()) > before);
    // The rest are `ping`'s connection and what the runtime opens.
    assert!(open_descriptors(serving.id()) < before + 2 * SERVED_AT_A_TIME);
    idle.truncate(SERVED_AT_A_TIME + 4);
    // Idle ones give way long before the 5 s that a head may take.
    let started = Instant::now();
    get(&place);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    for stream in &mut idle {
        assert_eq!(until_closed(stream), "");
    }
    serving.signal(nix_signal::Signal::TERM);
    assert_eq!(serving.wait(), (Some(0), String::new()));
}

#[test]
fn metrics_keep_to_loopback_and_to_tcp() {
    let directory = directory();
    let address = socket_in(directory.path()).to_string();
    for (metrics, code, part) in
        [("0.0.0.0:0", 2, "--allow-remote"), ("unix:/tmp/m.sock", 2, "127.0.0.1:9464")]
    {
        let output = run(&["serve", &address, "--metrics", metrics]);
        assert_eq!(output.status.code(), Some(code));
        let errors = text(&output.stderr);
        assert!(errors.contains(metrics.trim_end_matches(":0")), "{errors}");
        assert!(errors.contains(part), "{errors}");
    }
}

#[test]
fn the_log_names_who_connects() {
    let directory = directory();
    let address = socket_in(directory.path());
    for json in [false, true] {
        let format = if json { "json" } else { "text" };
        let options = ["--log", "info", "--log-format", format];
        let mut serving = Serving::start(&[&address.to_string()], &options);
        let ping = run(&["ping", "-c", "1", &address.to_string()]);
        assert!(ping.status.success());
        serving.signal(nix_signal::Signal::TERM);
        let (_, log) = serving.wait();
        let opened = log.lines().find(|line| line.contains("a connection was opened")).expect(&log);
        let closed = log.lines().find(|line| line.contains("a connection was closed")).expect(&log);
        for line in [opened, closed] {
            let uid = rustix::process::geteuid().as_raw();
            let (uid, command) = match json {
                true => (format!("\"uid\":{uid}"), "\"command\":\"samehost\""),
                false => (format!("uid={uid}"), "command=\"samehost\""),
            };
            for part in [&*uid, command, "gid", "pid"] {
                assert!(line.contains(part), "{part}: {line}");
            }
            if json {
                serde_json::from_str::<serde_json::Value>(line).unwrap();
            }
        }
    }
}

#[test]
fn the_log_names_who_is_refused() {
    let directory = directory();
    let address = socket_in(directory.path());
    let options = ["--allow-uid", "4000000", "--log", "info"];
    let mut serving = Serving::start(&[&address.to_string()], &options);
    let ping = run(&["ping", "-c", "1", &address.to_string()]);
    assert_eq!(ping.status.code(), Some(1));
    let said = format!("{}{}", text(&ping.stdout), text(&ping.stderr));
    assert!(said.contains("refused by the server's policy"), "{said}");
    serving.signal(nix_signal::Signal::TERM);
    let (_, log) = serving.wait();
    let refused = log.lines().find(|line| line.contains("refused by policy")).expect(&log);
    assert!(refused.contains("command=\"samehost\""), "{refused}");
}

#[test]
fn it_ends_when_it_is_idle() {
    let directory = directory();
    let address = socket_in(directory.path());
    let mut serving = Serving::start(&[&address.to_string()], &["--idle-exit", "1s"]);
    // The command may take longer to start. Meanwhile the server is not idle.
    let held = std::os::unix::net::UnixStream::connect(address.as_path().unwrap()).unwrap();
    assert!(run(&["ping", "-c", "1", &address.to_string()]).status.success());
    drop(held);
    let (code, errors) = serving.wait();
    assert_eq!((code, &*errors), (Some(0), ""));
    assert!(!address.as_path().unwrap().exists());
}

#[test]
fn a_call_and_a_connection_last_no_longer_than_they_may() {
    let directory = directory();
    let address = socket_in(directory.path());
    let options = ["--timeout", "100ms", "--max-connection-age", "300ms", "--log", "info"];
    let mut serving = Serving::start(&[&address.to_string()], &options);
    block_on(async {
        let mut client = PingServiceClient::new(Channel::connect(&address).await.unwrap());
        let interval = Some(prost_types::Duration { seconds: 10, nanos: 0 });
        let watch = WatchRequest { interval, ..WatchRequest::default() };
        let mut pongs = client.watch(watch).await.unwrap().into_inner();
        pongs.message().await.unwrap();
        let status = pongs.message().await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        client.ping(PingRequest::ping()).await.unwrap();
    });
    serving.signal(nix_signal::Signal::TERM);
    let (_, log) = serving.wait();
    let opened = log.lines().filter(|line| line.contains("a connection was opened")).count();
    // There are more if the first one was too old before its call began.
    assert!(opened >= 2, "{log}");
}
