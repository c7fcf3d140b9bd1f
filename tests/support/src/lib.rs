//! Code that the tests share: a server on either transport, the command as a child process, and a
//! peer that writes frames by hand.

pub mod spans;
pub mod wire;

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use samehost::ping::{
    CollectRequest, CollectResponse, ConverseRequest, ConverseResponse, Ping, PingRequest,
    PingResponse, PingService, PingServiceServer, WatchRequest, WatchResponse,
};
use samehost::{Address, Channel, Listener, Server};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};

/// Makes one test of each function for each transport and runtime flavour.
#[macro_export]
macro_rules! on_both_transports {
    ($($name:ident),+ $(,)?) => {
        mod unix {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name($crate::Transport::Unix).await;
                }
            )+
        }
        mod tcp {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name($crate::Transport::Tcp).await;
                }
            )+
        }
        mod unix_multi_thread {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::Transport::Unix).await;
                }
            )+
        }
    };
}

#[derive(Clone, Copy, Debug)]
pub enum Transport {
    Unix,
    Tcp,
}

/// Returns a directory for sockets that belongs to the test, with mode 0700.
pub fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Returns the address of a socket in a directory.
pub fn socket_in(directory: &Path) -> Address {
    Address::unix(directory.join("ping.sock")).unwrap()
}

/// Returns the names in a directory, sorted.
pub fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A server in this process.
pub struct Running {
    pub address: Address,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    directory: TempDir,
}

impl Running {
    pub async fn ping(transport: Transport) -> Self {
        Self::start(transport, ping_server()).await
    }

    pub async fn start(transport: Transport, server: Server) -> Self {
        let directory = directory();
        let address = match transport {
            Transport::Unix => socket_in(directory.path()),
            Transport::Tcp => "127.0.0.1:0".parse().unwrap(),
        };
        Self::start_in(directory, &address, server).await
    }

    /// Starts a server at the address of an earlier one, whose directory must still exist.
    pub async fn start_at(address: &Address, server: Server) -> Self {
        Self::start_in(directory(), address, server).await
    }

    async fn start_in(directory: TempDir, address: &Address, server: Server) -> Self {
        let listener = Listener::bind(address).await.unwrap();
        let address = listener.local_addr().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            server.serve_with_shutdown(listener, stopped).await.unwrap();
        });
        Self { address, stop, task, directory }
    }

    pub async fn channel(&self) -> Channel {
        Channel::connect(&self.address).await.unwrap()
    }

    /// Gives the shutdown signal and does not wait for the drain.
    pub fn signal(self) -> (JoinHandle<()>, TempDir) {
        let _ = self.stop.send(());
        (self.task, self.directory)
    }

    /// Shuts the server down and waits for its end.
    pub async fn stop(self) -> TempDir {
        let (task, directory) = self.signal();
        task.await.unwrap();
        directory
    }
}

/// Returns the command without arguments.
pub fn samehost() -> Command {
    Command::new(binary())
}

/// Returns the path of the command's program. Only the tests of its package may use it: for them
/// Cargo builds it beside the tests, but for others it could be an old one.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    profile.join("samehost")
}

/// Copies the command's program into a directory, for users who may not enter that of the build.
/// Another process does it: what a test of this one starts at that moment could not be kept from
/// inheriting the open copy for an instant, and an open file cannot be executed (execve(2), ETXTBSY).
pub fn copied_binary(directory: &Path) -> PathBuf {
    let copy = directory.join("samehost");
    assert!(Command::new("cp").arg(binary()).arg(&copy).status().unwrap().success());
    copy
}

/// Runs the command and waits for its end.
pub fn run(arguments: &[&str]) -> Output {
    samehost().args(arguments).output().unwrap()
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Returns how many descriptors a process has open. Its id may be "self", for the own one.
pub fn open_descriptors(process: impl std::fmt::Display) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// `samehost serve` as a child process, which is killed when this is dropped.
pub struct Serving {
    child: Child,
    output: BufReader<ChildStdout>,
    pub addresses: Vec<Address>,
}

impl Serving {
    /// Starts the server and waits until it listens on all `addresses`.
    pub fn start(addresses: &[&str], options: &[&str]) -> Self {
        let mut command = samehost();
        command.arg("serve").args(addresses).args(options);
        let mut serving = Self::spawn(&mut command);
        for _ in addresses {
            let line = serving.line();
            let address = line.strip_prefix("listening on ").expect(&line);
            serving.addresses.push(address.parse().unwrap());
        }
        serving
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, addresses: Vec::new() }
    }

    /// Returns the server's next line on standard output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns a field of the server's proc_pid_status(5), in bytes: "VmRSS" is the memory that it
    /// has, "VmHWM" the largest that it ever had.
    pub fn memory(&self, field: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let field = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let kib = field.trim_start_matches(':').trim().strip_suffix(" kB").unwrap();
        kib.parse::<usize>().unwrap() * 1024
    }

    pub fn signal(&self, signal: nix_signal::Signal) {
        nix_signal::kill(self.id(), signal);
    }

    /// Waits for the end. Returns the exit code (`None` if it was killed by a signal) and standard
    /// error.
    pub fn wait(&mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (status.code(), errors)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// kill(2) through rustix.
pub mod nix_signal {
    pub use rustix::process::Signal;

    pub fn kill(pid: u32, signal: Signal) {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

/// Waits until `holds` returns true, which is called repeatedly; fails the test after 60 s.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "not within 60 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Does the same as [`eventually`] in an async test.
pub async fn eventually_async(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "not within 60 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Runs `act` in a thread with this user and these groups, which the other end of a socket sees.
/// Only root may do that; for others it prints so and returns `None`.
pub fn as_user<T: Send>(
    uid: u32,
    gid: u32,
    groups: &[u32],
    act: impl FnOnce() -> T + Send,
) -> Option<T> {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let groups: Vec<_> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let thread = || {
        let became = set_thread_groups(&groups)
            .and_then(|()| set_thread_res_gid(gid, gid, gid))
            .and_then(|()| set_thread_res_uid(uid, uid, uid));
        became.map(|()| act())
    };
    match std::thread::scope(|scope| scope.spawn(thread).join().unwrap()) {
        Ok(result) => Some(result),
        Err(error) => {
            eprintln!("left out: becoming another user is not permitted here: {error}");
            None
        }
    }
}

/// Acts in a thread that may give files only to groups of its own, even if it is root's.
pub fn without_chown<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let thread = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::CHOWN);
        set_capabilities(None, sets).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(thread).join().unwrap())
}

/// Returns a server with the Ping service.
pub fn ping_server() -> Server {
    Server::new().add_service(PingServiceServer::new(Ping::default()))
}

/// Runs a future on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Counts how often its waker is woken.
#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Returns a directory that every user may enter.
pub fn open_directory() -> TempDir {
    let directory = directory();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
    directory
}

/// Raises the limit of open file descriptors for this process and the servers that it starts from
/// now on. If the hard limit is lower, it prints so and returns false.
pub fn need_descriptors(needed: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if maximum.is_some_and(|maximum| maximum < needed) {
        eprintln!("left out: {needed} file descriptors are needed, and the hard limit is lower");
        return false;
    }
    let current = current.map(|current| current.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    true
}

/// With only one subscriber, tracing caches that an event or a span interests nobody if another thread
/// meets it first. So there are always two.
fn two_subscribers() {
    static OTHER: LazyLock<tracing::Dispatch> =
        LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));
    LazyLock::force(&OTHER);
}

/// Collects what the code of this thread logs while the guard exists.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        two_subscribers();
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::WARN)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// Returns the lines that contain `part`.
    pub fn lines(&self, part: &str) -> Vec<String> {
        let log = self.0.lock().unwrap();
        text(&log).lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

type Boxed<T> = std::pin::Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Stream<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;
type Script<Q, R> = Option<Arc<dyn Fn(Request<Q>) -> R + Send + Sync>>;

/// The Ping service, with methods that a test can replace.
#[derive(Clone, Default)]
pub struct Scripted {
    ping: Script<PingRequest, Boxed<PingResponse>>,
    watch: Script<WatchRequest, Stream<WatchResponse>>,
    collect: Script<Streaming<CollectRequest>, Boxed<CollectResponse>>,
}

impl Scripted {
    pub fn on_ping<F>(
        mut self,
        script: impl Fn(Request<PingRequest>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Response<PingResponse>, Status>> + Send + 'static,
    {
        self.ping = Some(Arc::new(move |request| Box::pin(script(request))));
        self
    }

    pub fn on_watch<S>(
        mut self,
        script: impl Fn(Request<WatchRequest>) -> S + Send + Sync + 'static,
    ) -> Self
    where
        S: tokio_stream::Stream<Item = Result<WatchResponse, Status>> + Send + 'static,
    {
        self.watch = Some(Arc::new(move |request| Box::pin(script(request))));
        self
    }

    pub fn on_collect<F>(
        mut self,
        script: impl Fn(Request<Streaming<CollectRequest>>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Response<CollectResponse>, Status>> + Send + 'static,
    {
        self.collect = Some(Arc::new(move |request| Box::pin(script(request))));
        self
    }

    pub fn server(self) -> Server {
        Server::new().add_service(PingServiceServer::new(self))
    }
}

#[tonic::async_trait]
impl PingService for Scripted {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        match &self.ping {
            Some(script) => script(request).await,
            None => Ping::default().ping(request).await,
        }
    }

    type ConverseStream = Stream<ConverseResponse>;

    async fn converse(
        &self,
        request: Request<Streaming<ConverseRequest>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        Ping::default().converse(request).await
    }

    type WatchStream = Stream<WatchResponse>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        match &self.watch {
            Some(script) => Ok(Response::new(script(request))),
            None => Ping::default().watch(request).await,
        }
    }

    async fn collect(
        &self,
        request: Request<Streaming<CollectRequest>>,
    ) -> Result<Response<CollectResponse>, Status> {
        match &self.collect {
            Some(script) => script(request).await,
            None => Ping::default().collect(request).await,
        }
    }
}

/// Counts the values that contain it and are alive.
pub struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
