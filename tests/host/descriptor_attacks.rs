//! Peers that send descriptors with bad intent, to a server that takes them: none is left, another
//! client of the server goes on passing and receiving its own, and what is refused says why.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as Pair;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit};
use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Address, Channel, Descriptors};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};

use crate::Scale;
use crate::support::{
    Serving, as_user, block_on, directory, eventually_async, need_descriptors, open_descriptors,
    open_directory, socket_in,
};
use crate::wire::{Frame, Peer, code, data, frame, headers, kind, message, request, window_update};

/// As many as a message can have: SCM_MAX_FD (unix(7)).
pub(crate) const AT_A_TIME: usize = 253;

/// What docs/descriptors.md says: the frame, and the SETTINGS parameter.
const DESCRIPTORS: u8 = 0xfd;
const SETTING: (u16, u32) = (0xfd00, 253);

/// What a healthy client's call may take in the midst of it all.
const BOUND: Duration = Duration::from_millis(100);

/// A user that is neither root nor the one of the server.
const STRANGER: u32 = 54_321;

/// The user of a server without capabilities: the kernel's limit is none for root.
const NOBODY: u32 = 65_534;

pub(crate) fn are_fended_off(scale: Scale) -> String {
    if !need_descriptors(16_384) {
        return "left out: too few file descriptors are allowed".to_owned();
    }
    let directory = directory();
    let address = socket_in(directory.path());
    let server = start(&address, None);
    let mut figures = block_on(async {
        let attacked = Attacked::new(&address, &server).await;
        // They go on closing while the other attacks are made.
        let lingering = attacked.sockets_that_close_slowly().await;
        let times = scale.pick(1_000, 10_000);
        attacked.many(times).await;
        attacked.what_does_not_match().await;
        attacked.in_pieces_and_at_once().await;
        attacked.of_every_type().await;
        attacked.its_own_listener().await;
        attacked.beyond_the_servers_limit().await;
        attacked.beyond_the_clients_limit().await;
        drop(lingering);
        attacked.its_own_connection().await;
        attacked.nothing_is_left("in the end").await;
        let longest = attacked.bystander.stop().await;
        // A timing is no test on a machine that has other things to do.
        assert!(!scale.full || longest <= BOUND, "a call of another client took {longest:?}");
        format!(
            "{times} calls with {AT_A_TIME} and every kind of attack, nothing is left; another \
             client's calls take {longest:?} at most"
        )
    });
    figures += &unread(scale);
    figures
}

fn start(address: &Address, user: Option<u32>) -> Serving {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["as", "attacked", &address.to_string()]).stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut server = Serving::spawn(&mut command);
    assert_eq!(server.line(), "ready");
    server
}

/// A server under attack.
struct Attacked<'a> {
    address: &'a Address,
    server: Pid,
    /// Descriptors that it has at rest, with the connection of the bystander.
    at_rest: usize,
    bystander: Bystander,
}

impl<'a> Attacked<'a> {
    async fn new(address: &'a Address, server: &Serving) -> Self {
        let bystander = Bystander::start(address).await;
        let server = Pid::from_raw(server.id().cast_signed()).unwrap();
        // A call of the bystander has some.
        let at_rest = open_descriptors(server) + 4;
        Self { address, server, at_rest, bystander }
    }

    /// The sockets that close slowly leave one thread to close all others of their user. A peer that gets
    /// too far ahead of it is cut off.
    async fn has_closed(&self) {
        let closed = || open_descriptors(self.server) <= self.at_rest + 2 * AT_A_TIME;
        eventually_async("what was not taken is closed", closed).await;
    }

    async fn peer(&self) -> Peer<UnixStream> {
        self.has_closed().await;
        let stream = UnixStream::connect(self.address.as_path().unwrap()).await.unwrap();
        let mut peer = Peer::client(stream, &[SETTING]).await;
        peer.send(&window_update(0, 1 << 30)).await;
        peer
    }

    async fn nothing_is_left(&self, after: &str) {
        let what = format!("the server has no descriptor more than before: {after}");
        eventually_async(&what, || open_descriptors(self.server) <= self.at_rest).await;
        assert!(!self.bystander.calls.is_finished(), "another client's call failed: {after}");
    }

    async fn many(&self, times: u32) {
        let mut peer = self.peer().await;
        let null = std::fs::File::open("/dev/null").unwrap();
        for time in 0..times {
            let stream = 2 * time + 1;
            send(&peer, &announced(stream, 253), &[null.as_fd(); AT_A_TIME]).await;
            peer.send(&call(stream, "untaken")).await;
            ended(&mut peer, stream).await;
            if time % 4 == 3 {
                self.has_closed().await;
            }
        }
        drop(peer);
        self.nothing_is_left("many calls with the most descriptors").await;
    }

    /// What does not match is a connection error, however often it is tried.
    async fn what_does_not_match(&self) {
        let file = std::fs::File::open("/dev/null").unwrap();
        let all = [file.as_fd(); AT_A_TIME];
        let open = headers(1, &request("/ping.v1.PingService/Ping"), false);
        let ping = frame(kind::PING, 0, 0, b"12345678");
        let half = data(1, &message(b"\x0a\x02hi"), true);
        let cases: [(&str, &[(&[u8], usize)]); 8] = [
            ("not announced", &[(&ping, 1)]),
            ("not announced, and the most", &[(&ping, 253)]),
            ("announced and not sent", &[(&announced(1, 2), 0), (&open, 0)]),
            ("another number", &[(&announced(1, 2), 3), (&open, 0)]),
            ("more than may be announced", &[(&announced(1, 254), 1), (&open, 0)]),
            ("two sets for one frame", &[(&announced(1, 1)[..4], 1), (&announced(1, 1)[4..], 1)]),
            ("within DATA", &[(&open, 0), (&half[..7], 0), (&half[7..], 1)]),
            ("without HEADERS", &[(&announced(1, 1), 1), (&ping, 0)]),
        ];
        for (case, parts) in cases {
            for _ in 0..20 {
                let mut peer = self.peer().await;
                for (bytes, count) in parts {
                    send(&peer, bytes, &all[..*count]).await;
                }
                let said = within(peer.until_go_away()).await;
                assert_eq!(said, code::PROTOCOL_ERROR, "{case}");
            }
            self.nothing_is_left(case).await;
        }
    }

    /// A frame byte by byte, and all of a call by one sendmsg(2).
    async fn in_pieces_and_at_once(&self) {
        let mut peer = self.peer().await;
        let (ours, theirs) = Pair::pair().unwrap();
        let bytes = [announced(1, 2), call(1, "untaken")].concat();
        send(&peer, &bytes[..1], &[ours.as_fd(), theirs.as_fd()]).await;
        for byte in &bytes[1..] {
            peer.send(&[*byte]).await;
        }
        ended(&mut peer, 1).await;
        let bytes = [announced(3, 2), call(3, "untaken")].concat();
        send(&peer, &bytes, &[ours.as_fd(), theirs.as_fd()]).await;
        ended(&mut peer, 3).await;
        drop(peer);
        self.nothing_is_left("calls in pieces and at once").await;
    }

    async fn of_every_type(&self) {
        use rustix::event::{EventfdFlags, epoll, eventfd};
        use rustix::fs::{MemfdFlags, OFlags, memfd_create, open};
        let (socket, _) = Pair::pair().unwrap();
        let opened = |path, flags| open(path, flags, rustix::fs::Mode::empty()).unwrap();
        let (pipe, _end) = std::io::pipe().unwrap();
        let files: [OwnedFd; 9] = [
            opened("/", OFlags::PATH),
            opened("/tmp", OFlags::DIRECTORY),
            opened("/proc/self/mem", OFlags::RDWR),
            opened("/dev/zero", OFlags::RDONLY),
            epoll::create(epoll::CreateFlags::empty()).unwrap(),
            eventfd(0, EventfdFlags::empty()).unwrap(),
            memfd_create("unsealed", MemfdFlags::empty()).unwrap(),
            pidfd(rustix::process::getpid()),
            socket.into(),
        ];
        let mut list: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        list.push(pipe.as_fd());
        let mut peer = self.peer().await;
        for (nth, method) in ["untaken", "returned", "refused"].into_iter().enumerate() {
            let stream = 2 * nth as u32 + 1;
            send(&peer, &announced(stream, list.len() as u8), &list).await;
            peer.send(&call(stream, method)).await;
            ended(&mut peer, stream).await;
        }
        drop(peer);
        self.nothing_is_left("descriptors of every type").await;
    }

    /// The server's own listening socket is a socket like any other.
    async fn its_own_listener(&self) {
        let server = pidfd(self.server);
        let listening = (0..200).find_map(|number| {
            let flags = PidfdGetfdFlags::empty();
            let socket = rustix::process::pidfd_getfd(&server, number, flags).ok()?;
            rustix::net::sockopt::socket_acceptconn(&socket).is_ok_and(|is| is).then_some(socket)
        });
        let listening = listening.expect("a listening socket");
        for method in ["untaken", "returned", "refused"] {
            let mut peer = self.peer().await;
            send(&peer, &announced(1, 1), &[listening.as_fd()]).await;
            peer.send(&call(1, method)).await;
            ended(&mut peer, 1).await;
        }
        drop(listening);
        self.nothing_is_left("the server's own listening socket").await;
        PingServiceClient::new(Channel::connect(self.address).await.unwrap())
            .ping(PingRequest::ping())
            .await
            .unwrap();
    }

    /// The other end of the server's own connections, which is then closed everywhere else: nothing
    /// tells the server of an end. Keep-alive does.
    async fn its_own_connection(&self) {
        for nth in 0..20 {
            let mut peer = self.peer().await;
            if nth % 2 == 0 {
                send(&peer, &announced(1, 1), &[peer.io.as_fd()]).await;
            } else {
                // Within the queue of another socket, where nobody sees it.
                let (ours, theirs) = Pair::pair().unwrap();
                let ours = UnixStream::from_std(nonblocking(ours)).unwrap();
                send_by(&ours, b"x", &[peer.io.as_fd()]).await;
                send(&peer, &announced(1, 1), &[theirs.as_fd()]).await;
            }
            peer.send(&call(1, "held")).await;
            peer.sync().await;
        }
        assert!(open_descriptors(self.server) >= self.at_rest + 20, "they are not held");
    }

    /// TCP sockets with unsent data: close(2) of the last descriptor takes as long as SO_LINGER says,
    /// or until the other end is gone. Some are closed with their call, others with a connection that
    /// has not read them. They are more than the server has threads.
    async fn sockets_that_close_slowly(&self) -> Vec<TcpStream> {
        let mut kept = Vec::new();
        let before = self.bystander.made.load(Ordering::Relaxed);
        for nth in 0..16 {
            let mut peer = self.peer().await;
            let (socket, other) = lingering();
            kept.push(other);
            if nth % 2 == 0 {
                send(&peer, &announced(1, 1), &[socket.as_fd()]).await;
                drop(socket);
                peer.send(&call(1, "untaken")).await;
                ended(&mut peer, 1).await;
            } else {
                peer.send(&frame(kind::PING, 0, 1, b"12345678")).await;
                send(&peer, &announced(1, 1), &[socket.as_fd()]).await;
                drop(socket);
                assert_eq!(within(peer.until_go_away()).await, code::PROTOCOL_ERROR);
            }
        }
        let more = || self.bystander.made.load(Ordering::Relaxed) > before + 100;
        eventually_async("another client's calls go on", more).await;
        kept
    }

    async fn beyond_the_servers_limit(&self) {
        let channel = Channel::builder(self.address).descriptors(16).connect().await.unwrap();
        let before = rustix::process::getrlimit(Resource::Nofile);
        let paused = self.bystander.pause.lock().await;
        let few = Rlimit { current: Some(open_descriptors(self.server) as u64), ..before };
        rustix::process::prlimit(Some(self.server), Resource::Nofile, few).unwrap();
        let refused = returned(&channel, 16).await.unwrap_err();
        rustix::process::prlimit(Some(self.server), Resource::Nofile, before).unwrap();
        drop(paused);
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(refused.message().contains("cannot open so many"), "{refused}");
        returned(&channel, 16).await.unwrap();
        drop(channel);
        self.nothing_is_left("more than the server may open").await;
    }

    async fn beyond_the_clients_limit(&self) {
        let paused = self.bystander.pause.lock().await;
        let own = rustix::process::getpid();
        let channel = Channel::builder(self.address).descriptors(16).connect().await.unwrap();
        let at_rest = open_descriptors(own);
        returned(&channel, 16).await.unwrap();
        // Another thread closes what the call has sent.
        eventually_async("the client has closed its own", || open_descriptors(own) <= at_rest)
            .await;
        let request = carrying("returned", 16);
        let before = rustix::process::getrlimit(Resource::Nofile);
        let few = Rlimit { current: Some(open_descriptors(own) as u64), ..before };
        rustix::process::setrlimit(Resource::Nofile, few).unwrap();
        let refused = PingServiceClient::new(channel.clone()).ping(request).await;
        rustix::process::setrlimit(Resource::Nofile, before).unwrap();
        drop(paused);
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(refused.message().contains("cannot open so many"), "{refused}");
        returned(&channel, 16).await.unwrap();
        drop(channel);
        self.nothing_is_left("more than the client may open").await;
    }
}

/// Peers that have descriptors sent to them and do not read. The kernel counts what is underway for the
/// sender, here the server, and lets it have no more than it may have open.
fn unread(scale: Scale) -> String {
    let directory = open_directory();
    if std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).is_err() {
        return "; unread ones are left out: that takes root".to_owned();
    }
    let address = Address::unix(directory.path().join("nobody.sock")).unwrap();
    let before = rustix::process::getrlimit(Resource::Nofile);
    // The server inherits it.
    let usual = Rlimit { current: Some(1_024), ..before };
    rustix::process::setrlimit(Resource::Nofile, usual).unwrap();
    let server = start(&address, Some(NOBODY));
    rustix::process::setrlimit(Resource::Nofile, before).unwrap();
    block_on(async {
        let attacked = Attacked::new(&address, &server).await;
        // One of the bystander's own user, and many of a stranger.
        let mut silent = vec![silent(attacked.peer().await).await];
        let path = address.as_path().unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .unwrap();
        for _ in 0..scale.pick(20, 60) {
            let connect = || nonblocking(Pair::connect(path).unwrap());
            let Some(stream) = as_user(STRANGER, STRANGER, &[], connect) else { break };
            let peer = Peer::client(UnixStream::from_std(stream).unwrap(), &[SETTING]).await;
            silent.push(self::silent(peer).await);
        }
        // The bystander's calls go on, with descriptors in both directions.
        let before = attacked.bystander.made.load(Ordering::Relaxed);
        let more = || attacked.bystander.made.load(Ordering::Relaxed) > before + 50;
        eventually_async("another client still passes and receives descriptors", more).await;
        assert!(!attacked.bystander.calls.is_finished(), "another client's call failed");
        let connections = silent.len();
        // Of each direction a quarter may be held.
        let held = open_descriptors(attacked.server).saturating_sub(attacked.at_rest + connections);
        assert!(held <= 512, "the server holds {held} descriptors for those that do not read");
        let paused = attacked.bystander.pause.lock().await;
        drop(silent);
        eventually_async("their descriptors are closed", || {
            open_descriptors(attacked.server) <= attacked.at_rest
        })
        .await;
        drop(paused);
        attacked.nothing_is_left("descriptors that nobody reads").await;
        let longest = attacked.bystander.stop().await;
        assert!(!scale.full || longest <= BOUND, "a call of another client took {longest:?}");
        format!("; beside {connections} connections that do not read, {longest:?}")
    })
}

/// A peer that asks for four times as many descriptors as may be underway on one connection, and reads
/// nothing. All these peers together ask for more than the kernel lets the server's user have underway,
/// and for more than the server may have open.
async fn silent(peer: Peer<UnixStream>) -> Peer<UnixStream> {
    let null = std::fs::File::open("/dev/null").unwrap();
    for nth in 0..16 {
        let stream = 2 * nth + 1;
        send(&peer, &announced(stream, 16), &[null.as_fd(); 16]).await;
        let call = call(stream, "returned");
        assert_eq!(rustix::io::write(&peer.io, &call), Ok(call.len()));
    }
    peer
}

/// A client that calls all the while, with a descriptor in both directions.
struct Bystander {
    calls: JoinHandle<Duration>,
    made: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    /// Held while its calls cannot succeed.
    pause: Arc<Mutex<()>>,
}

impl Bystander {
    async fn start(address: &Address) -> Self {
        let channel = Channel::builder(address).descriptors(1).connect().await.unwrap();
        let (stop, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let pause = Arc::<Mutex<()>>::default();
        returned(&channel, 1).await.unwrap();
        let calls = tokio::spawn({
            let (stop, made, pause) = (Arc::clone(&stop), Arc::clone(&made), Arc::clone(&pause));
            async move {
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let _paused = pause.lock().await;
                    let began = Instant::now();
                    within(returned(&channel, 1)).await.expect("another client's call");
                    longest = longest.max(began.elapsed());
                    made.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                longest
            }
        });
        Self { calls, made, stop, pause }
    }

    /// How long its longest call took.
    async fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.calls.await.unwrap()
    }
}

fn carrying(method: &str, count: usize) -> Request<PingRequest> {
    let mut request =
        Request::new(PingRequest { message: method.to_owned(), ..PingRequest::default() });
    let files = (0..count).map(|_| std::fs::File::open("/dev/null").unwrap());
    request.extensions_mut().insert(files.collect::<Descriptors>());
    request
}

/// A call that sends `count` descriptors and must get as many.
async fn returned(channel: &Channel, count: usize) -> Result<(), Status> {
    let response = PingServiceClient::new(channel.clone()).ping(carrying("returned", count)).await;
    let list = Response::extensions(&response?).get::<Descriptors>().cloned();
    assert_eq!(list.unwrap_or_default().take().len(), count);
    Ok(())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it stalls")
}

async fn ended(peer: &mut Peer<UnixStream>, stream: u32) -> Frame {
    within(peer.until(|frame| frame.stream == stream && frame.ends_stream())).await
}

fn announced(stream: u32, count: u8) -> Vec<u8> {
    frame(DESCRIPTORS, 0, stream, &[count])
}

/// A whole request, whose message says what the handler is to do.
fn call(stream: u32, method: &str) -> Vec<u8> {
    let content = [&[0x0a, method.len() as u8], method.as_bytes()].concat();
    let head = headers(stream, &request("/ping.v1.PingService/Ping"), false);
    [head, data(stream, &message(&content), true)].concat()
}

async fn send(peer: &Peer<UnixStream>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    assert!(send_by(&peer.io, bytes, descriptors).await, "descriptors are refused");
}

/// Sends all bytes with the descriptors. False: without, for they are refused.
pub(crate) async fn send_by(
    socket: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_A_TIME))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(with.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    loop {
        let flags = SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut with, flags) {
            Ok(sent) => {
                assert_eq!(sent, bytes.len());
                return true;
            }
            Err(Errno::PERM) => {
                assert_eq!(rustix::io::write(socket, bytes), Ok(bytes.len()));
                return false;
            }
            // Too many are on their way (unix(7)): those that were sent have to arrive first.
            Err(Errno::AGAIN | Errno::TOOMANYREFS) => tokio::task::yield_now().await,
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// A TCP socket whose unsent data close(2) waits for, and its other end.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::from_secs(600))).unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.write(&[0; 64 << 10]).is_ok() {}
    (socket, other)
}

fn nonblocking(stream: Pair) -> Pair {
    stream.set_nonblocking(true).unwrap();
    stream
}

fn pidfd(process: Pid) -> OwnedFd {
    rustix::process::pidfd_open(process, PidfdFlags::empty()).unwrap()
}
