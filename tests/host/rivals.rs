//! What one user does to another one by a server that serves both: it fills the server's memory and fills
//! it again, sends heads of many fields, or messages that are a thousand times as large as they look.
//! The other one's calls, small and large, and its new connections are all answered, as fast as they were.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use samehost::ping::{Ping, PingRequest, PingServiceClient, PingServiceServer};
use samehost::{Address, BindOptions, Channel, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{interval, sleep, timeout};
use tonic::codec::CompressionEncoding;

use crate::Scale;
use crate::support::{Serving, block_on, eventually, need_descriptors, open_directory, socket_in};
use crate::wire::{PREFACE, data, frame, headers, kind, literal, message, request, settings};

const VICTIM: u32 = 54_320;
/// The first of those that attack.
const ATTACKER: u32 = 54_321;

/// What is done to a server, and by how many users at once.
const ATTACKS: &[(&str, u32)] = &[("memory", 1), ("memory", 4), ("gzip", 1), ("fields", 1)];

/// As many connections as a user may have.
const CONNECTIONS: usize = 256;

/// Fewer connections of an attacker, so that the same user can open more for its calls.
const SOME: usize = 64;

/// An attacker's connection is replaced after this time.
const LIFE: Duration = Duration::from_millis(500);

/// Bytes in the victim's large calls.
const LARGE: usize = 1_000_000;

/// An attack needs so long to be at its height.
const SETTLE: Duration = Duration::from_millis(1_500);

/// What calls may take while memory is attacked, by what they take otherwise.
const MOST: u32 = 3;

/// What a call may take while other users' turns are long.
const LONGEST: Duration = Duration::from_millis(100);

/// What a call of the attacker's own user may take: less than before turns were bounded.
const LONGEST_OF_THE_SAME_USER: Duration = Duration::from_millis(979);

/// The default limit of `max_buffered_bytes` and a quarter, 100 MiB for the rest, and 32 MiB more, since a slow
/// build frees what it closes late.
const MEMORY: usize = (256 + 64 + 100 + 32) << 20;

/// What is left of an attack when it is over.
const LEFT: usize = 16 << 20;

pub(crate) fn share_a_server(scale: Scale) -> String {
    if !rustix::process::geteuid().is_root() {
        return "left out: it takes root to have several users".to_owned();
    }
    if !need_descriptors(2_048) {
        return "left out: too few file descriptors are allowed".to_owned();
    }
    let time = scale.time.unwrap_or(scale.pick(Duration::from_secs(2), Duration::from_secs(10)));
    let directory = open_directory();
    let address = socket_in(directory.path());
    let mut server =
        Serving::spawn(itself(&["served", &address.to_string()], 0).stdin(Stdio::null()));
    assert_eq!(server.line(), "ready");
    let calm = victim(&address, VICTIM, time);
    let mut figures = format!("undisturbed {calm}");
    for &(attack, users) in ATTACKS {
        let before = server.memory("VmRSS");
        let attackers: Vec<_> = (ATTACKER..ATTACKER + users)
            .map(|user| Attacker::start(attack, user, &address, CONNECTIONS))
            .collect();
        std::thread::sleep(SETTLE);
        let disturbed = victim(&address, VICTIM, time);
        drop(attackers);
        let most = server.memory("VmHWM");
        assert!(most <= MEMORY, "{} MiB are resident: {attack}", most >> 20);
        assert_eq!(disturbed.lost(), 0, "lost calls of another user: {attack}: {disturbed}");
        // A timing is no test on a machine that has other things to do.
        if scale.full && users == 1 {
            disturbed.is_as_it_should_be(attack, &calm);
        }
        // A slow build has many heads left to decode.
        if scale.full || attack != "fields" {
            eventually("what an attack made the server hold is given back", || {
                server.memory("VmRSS") <= before + LEFT
            });
        }
        let by = if users == 1 { String::new() } else { format!(" by {users} users") };
        figures += &format!("; {attack}{by} {disturbed}, {} MiB", most >> 20);
    }
    // A slow build is late to see that the attacker's connections are closed, and refuses new ones of that user.
    let of_the_same_user: &[&str] = if scale.full { &["fields", "gzip"] } else { &[] };
    for attack in of_the_same_user {
        let _attacker = Attacker::start(attack, ATTACKER, &address, SOME);
        std::thread::sleep(SETTLE);
        let same = victim(&address, ATTACKER, time);
        assert_eq!(same.lost(), 0, "lost calls of the same user: {attack}: {same}");
        assert!(same.small.p999 <= LONGEST_OF_THE_SAME_USER, "same user: {attack}: {same}");
        figures += &format!("; {attack}, of the same user {}", same.small);
    }
    figures
}

/// This program as another process, of a user.
fn itself(arguments: &[&str], user: u32) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("as").args(arguments).uid(user).gid(user);
    command
}

// ---- The server ------------------------------------------------------------------------------

/// The server: as it is by default, and it takes compressed messages.
pub(crate) fn served(address: &str) -> ExitCode {
    let address: Address = address.parse().unwrap();
    let service = PingServiceServer::new(Ping::default());
    let service = service.accept_compressed(CompressionEncoding::Gzip);
    block_on(async {
        let listener = BindOptions::new().mode(0o666).bind(&address).await.unwrap();
        println!("ready");
        Server::new().add_service(service).serve(listener).await.unwrap();
    });
    ExitCode::SUCCESS
}

// ---- The one user ----------------------------------------------------------------------------

/// A process of the attacker's, until this is dropped.
struct Attacker(Child);

impl Attacker {
    fn start(attack: &str, user: u32, address: &Address, connections: usize) -> Self {
        let path = address.as_path().unwrap().to_str().unwrap().to_owned();
        let arguments = ["attacker", attack, &path, &connections.to_string()];
        Self(itself(&arguments, user).spawn().unwrap())
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// That process: all its connections do the same.
pub(crate) fn attacker(attack: &str, path: &str, connections: &str) -> ExitCode {
    assert!(need_descriptors(2_048));
    let once = match attack {
        "memory" => messages_without_end(),
        "fields" => heads_of_many_fields(),
        "gzip" => messages_that_grow(),
        _ => return ExitCode::FAILURE,
    };
    let once: &[u8] = once.leak();
    block_on(async {
        for _ in 0..connections.parse().unwrap() {
            let path = path.to_owned();
            tokio::spawn(async move {
                loop {
                    let mut socket = match UnixStream::connect(&path).await {
                        Ok(socket) => socket,
                        Err(_) => {
                            sleep(LIFE).await;
                            continue;
                        }
                    };
                    let _ = timeout(LIFE, exchange(&mut socket, once)).await;
                }
            });
        }
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

/// Sends what an attack sends on a connection, and drops what comes back.
async fn exchange(socket: &mut UnixStream, bytes: &[u8]) {
    let (mut read, mut write) = socket.split();
    let mut dropped = vec![0; 64 * 1024];
    let reading = async { while let Ok(1..) = read.read(&mut dropped).await {} };
    let writing = async {
        let _ = write.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

/// As much as a connection may send of messages of 4 MB that never end.
fn messages_without_end() -> Vec<u8> {
    let mut bytes = [PREFACE, &settings(&[]), &ack()].concat();
    let mut beginning = vec![0];
    beginning.extend(4_000_000_u32.to_be_bytes());
    beginning.resize(32_000, 7);
    for call in 0..256 {
        let stream = 2 * call + 1;
        bytes.extend(headers(stream, &request("/ping.v1.PingService/Ping"), false));
        bytes.extend(data(stream, &beginning, false));
        bytes.extend(data(stream, &[7; 32_000], false));
    }
    bytes
}

/// Calls with 440 fields each, which take two bytes each but for the first ones.
fn heads_of_many_fields() -> Vec<u8> {
    let mut bytes = [PREFACE, &settings(&[]), &ack()].concat();
    let mut first = request("/ping.v1.PingService/Ping");
    // With incremental indexing: then one byte stands for it (RFC 7541 §6.1, §6.2.1).
    literal(0x40, "a", &"", &mut first);
    let mut block = request("/ping.v1.PingService/Ping");
    block.extend([0xbe; 440]);
    for call in 0..4_000 {
        let stream = 2 * call + 1;
        bytes.extend(headers(stream, if call == 0 { &first } else { &block }, false));
        bytes.extend(data(stream, &message(b""), true));
    }
    bytes
}

/// Calls with a message of 4 kB that is one of 4 MB.
fn messages_that_grow() -> Vec<u8> {
    // A field that PingRequest does not have: 4 MB of zeros.
    let mut plain = vec![15 << 3 | 2, 0x80, 0x92, 0xf4, 0x01];
    plain.resize(plain.len() + 4_000_000, 0);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&plain).unwrap();
    let compressed = encoder.finish().unwrap();
    let mut whole = vec![1];
    whole.extend((compressed.len() as u32).to_be_bytes());
    whole.extend(compressed);
    let block =
        crate::wire::request_with("/ping.v1.PingService/Ping", &[("grpc-encoding", "gzip")]);
    let mut bytes = [PREFACE, &settings(&[]), &ack()].concat();
    for call in 0..200 {
        let stream = 2 * call + 1;
        bytes.extend(headers(stream, &block, false));
        bytes.extend(data(stream, &whole, true));
    }
    bytes
}

fn ack() -> Vec<u8> {
    frame(kind::SETTINGS, 1, 0, &[])
}

// ---- The other one ---------------------------------------------------------------------------

/// How long calls took.
struct Series {
    median: Duration,
    /// The 99.9th percentile.
    p999: Duration,
    calls: usize,
    lost: usize,
}

/// What a user's calls took.
struct Calls {
    small: Series,
    large: Series,
    /// From connecting to the reply.
    new: Series,
}

impl Calls {
    fn lost(&self) -> usize {
        self.small.lost + self.large.lost + self.new.lost
    }

    fn is_as_it_should_be(&self, attack: &str, calm: &Self) {
        let Self { small, large, new } = self;
        if attack == "memory" {
            for (now, then) in [(large, &calm.large), (new, &calm.new)] {
                assert!(now.median <= MOST * then.median, "{attack}: {now} after {then}");
            }
        } else {
            assert!(small.p999 <= LONGEST, "{attack}: {small}");
        }
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, p999, calls, lost } = self;
        write!(f, "{median:.1?} (p99.9 {p999:.1?}, {lost} of {calls} lost)")
    }
}

impl std::fmt::Display for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "small calls {}, large {}, new connections {}", self.small, self.large, self.new)
    }
}

/// Runs a process of a user that makes calls for a time, each kind by itself.
fn victim(address: &Address, user: u32, time: Duration) -> Calls {
    let arguments = ["victim", &address.to_string(), &time.as_millis().to_string()];
    let ran = itself(&arguments, user).stderr(Stdio::inherit()).output().unwrap();
    assert!(ran.status.success());
    let text = String::from_utf8(ran.stdout).unwrap();
    let mut series = text.lines().map(|line| {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        Series {
            median: Duration::from_micros(numbers[0]),
            p999: Duration::from_micros(numbers[1]),
            calls: numbers[2] as usize,
            lost: numbers[3] as usize,
        }
    });
    let mut next = || series.next().unwrap();
    Calls { small: next(), large: next(), new: next() }
}

/// That process.
pub(crate) fn calls(address: &str, millis: &str) -> ExitCode {
    let address: Address = address.parse().unwrap();
    let time = Duration::from_millis(millis.parse().unwrap());
    block_on(async {
        let channel = Channel::connect(&address).await.unwrap();
        for (bytes, every) in [(56, 5), (LARGE, 100)] {
            repeat(time, every, async || call(channel.clone(), bytes).await).await;
        }
        let connected = async || match Channel::connect(&address).await {
            Ok(channel) => call(channel, LARGE).await,
            Err(error) => {
                eprintln!("{error}");
                false
            }
        };
        repeat(time, 100, connected).await;
    });
    ExitCode::SUCCESS
}

async fn call(channel: Channel, bytes: usize) -> bool {
    let request = PingRequest { payload: vec![7; bytes].into(), ..PingRequest::ping() };
    let mut client = PingServiceClient::new(channel);
    let called = timeout(Duration::from_secs(30), client.ping(request)).await;
    let failure = match called {
        Ok(Ok(response)) if response.get_ref().payload.len() == bytes => return true,
        Ok(Ok(_)) => "not all came back".to_owned(),
        Ok(Err(status)) => status.to_string(),
        Err(_) => "no reply".to_owned(),
    };
    eprintln!("{bytes} bytes: {failure}");
    false
}

/// Makes a call every so many milliseconds for a time, and prints what they took: the median and the
/// 99.9th percentile in microseconds, how many there were, and how many were lost.
async fn repeat(time: Duration, every: u64, mut call: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + time;
    let mut ticks = interval(Duration::from_millis(every));
    let (mut took, mut lost) = (Vec::new(), 0);
    while Instant::now() < end {
        ticks.tick().await;
        let began = Instant::now();
        if !call().await {
            lost += 1;
        }
        took.push(began.elapsed().as_micros());
    }
    took.sort_unstable();
    let at = |part: f64| took[((took.len() as f64 * part) as usize).min(took.len() - 1)];
    println!("{} {} {} {lost}", at(0.5), at(0.999), took.len());
}
