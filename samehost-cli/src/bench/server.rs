//! The server half, which is a process of its own. Here is what it does ([`run`]), and the client
//! half's handle on it ([`ServerProcess`]).
//!
//! The two exchange lines of JSON. The server sends where it listens ([`Ready`]), and answers every
//! line on its standard input with its [`Usage`]. It ends when its standard input ends: the kernel
//! closes that pipe in whatever way the client half ends. Then the server removes what it made.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags};
use samehost::ping::{Ping, PingService, PingServiceServer};
use samehost::{Address, BusyPoll, Listener, Server};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::cell::{Stack, Stubs, Transport};
use super::memory::Taker;
use super::pin::pin_to;
use super::raw::RawListener;
use super::rpc::{FIELDS_MAX, MESSAGE_MAX};
use super::stubs;
use super::usage::Usage;
use crate::args::{self, MEMORY_MAX};
use crate::failure::{Failure, Outcome};

/// Concurrent calls or streams on a connection, whatever `--concurrency` says.
const MAX_STREAMS: u32 = 1 << 20;

/// How long a server may take to end before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, clap::Args)]
pub(crate) struct Args {
    #[arg(long, value_enum)]
    pub(super) stack: Stack,
    #[arg(long, value_enum)]
    pub(super) stubs: Option<Stubs>,
    /// Whether it takes payloads instead of serving Ping.
    #[arg(long)]
    pub(super) memory: bool,
    #[arg(long, value_enum)]
    pub(super) transport: Transport,
    #[arg(long)]
    pub(super) threads: u16,
    #[arg(long)]
    pub(super) cpu: Option<usize>,
    #[arg(long, value_parser = args::positive_duration)]
    pub(super) busy_poll: Option<Duration>,
}

impl Args {
    /// Returns these as arguments of the command.
    fn to_arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--stack={}", self.stack).to_lowercase(),
            format!("--transport={}", self.transport).to_lowercase(),
            format!("--threads={}", self.threads),
        ];
        arguments.extend(self.stubs.map(|stubs| format!("--stubs={stubs:?}").to_lowercase()));
        arguments.extend(self.memory.then(|| "--memory".to_owned()));
        arguments.extend(self.cpu.map(|cpu| format!("--cpu={cpu}")));
        arguments.extend(self.busy_poll.map(|time| format!("--busy-poll={}ns", time.as_nanos())));
        arguments
    }
}

/// The server's first line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ready {
    Address(String),
    Error(String),
}

/// Runs the server process.
pub(crate) fn run(args: Args) -> Outcome {
    match serve(&args) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Failure::Failed(error) | Failure::Usage(error)) => {
            say(&Ready::Error(error))?;
            Ok(ExitCode::FAILURE)
        }
        Err(unread) => Err(unread),
    }
}

fn serve(args: &Args) -> Result<(), Failure> {
    // It is made before the runtime, so that it is removed after the runtime and all sockets.
    let directory = match args.transport {
        Transport::Uds => Some(private_directory()?),
        Transport::Tcp => None,
    };
    let address = match &directory {
        Some(directory) => Address::unix(directory.path().join("bench.sock"))?,
        None => "127.0.0.1:0".parse()?,
    };
    if let Some(cpu) = args.cpu {
        pin_to(cpu)?;
    }
    crate::runtime::new(args.threads)?.block_on(async {
        // The client half handles Ctrl-C. It ends this process when it no longer needs it.
        let _interrupts_ignored = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            served = serve_stack(args, &address) => served,
            _ = input_ended() => Ok(()),
            _ = terminated.recv() => Ok(()),
        }
    })
}

/// Prints where it listens, and serves without end.
async fn serve_stack(args: &Args, address: &Address) -> Result<(), Failure> {
    match (args.stack, args.memory) {
        (Stack::Raw, _) => serve_raw(address).await,
        (_, false) => serve_service(args, address, Ping::default(), MESSAGE_MAX).await,
        (_, true) => serve_service(args, address, Taker, MEMORY_MAX + FIELDS_MAX).await,
    }
}

/// Serves `service`, which takes messages up to `limit` bytes, with the given stack and stubs.
async fn serve_service(
    args: &Args,
    address: &Address,
    service: impl PingService,
    limit: usize,
) -> Result<(), Failure> {
    let listener = Listener::bind(address).await?;
    say(&Ready::Address(listener.local_addr().to_string()))?;
    if args.stack == Stack::Tonic {
        let server = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(stubs::tonic_server(service, limit));
        return Ok(server.serve_with_incoming(listener).await?);
    }
    let server = Server::new()
        .max_concurrent_streams(MAX_STREAMS)
        .descriptors(u8::from(args.memory))
        .busy_poll(BusyPoll::new(args.busy_poll.unwrap_or_default()));
    let server = match args.stubs {
        Some(Stubs::Tonic) => server.add_service(stubs::tonic_server(service, limit)),
        _ => server.add_service(PingServiceServer::new(service).max_decoding_message_size(limit)),
    };
    Ok(server.serve(listener).await?)
}

async fn serve_raw(address: &Address) -> Result<(), Failure> {
    let (listener, address) = RawListener::bind(address)?;
    say(&Ready::Address(address.to_string()))?;
    let (ended, wait) = oneshot::channel();
    std::thread::spawn(move || ended.send(listener.serve()));
    Ok(wait.await??)
}

/// Makes a directory that only this user can enter. It is removed when it is dropped.
fn private_directory() -> Result<tempfile::TempDir, Failure> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().prefix("samehost-bench-").permissions(mode).tempdir().map_err(
        |error| {
            Failure::Failed(format!(
                "cannot make a directory for the socket in {}: {error}: set TMPDIR to another place",
                std::env::temp_dir().display()
            ))
        },
    )
}

/// Answers the lines of standard input until it ends. A thread of its own does that. It sleeps
/// while calls are measured, and answers even if the runtime is busy.
fn input_ended() -> oneshot::Receiver<()> {
    let (ended, wait) = oneshot::channel();
    std::thread::spawn(move || {
        let answer = |_| Usage::of_this_process().and_then(|usage| say(&usage)).ok();
        let _unanswered = io::stdin().lines().map_while(Result::ok).map_while(answer).last();
        let _ = ended.send(());
    });
    wait
}

fn say(message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// A server process that is ready. Dropping it ends the process and waits for its end.
pub(super) struct ServerProcess {
    process: Process,
    address: Address,
}

impl ServerProcess {
    /// Starts a server process. If this is cancelled, the process ends.
    pub(super) async fn start(args: &Args) -> Result<Self, Failure> {
        let failed = |why: &str| Failure::Failed(format!("cannot start a server process: {why}"));
        let mut process = Process::spawn(args).map_err(|error| failed(&error.to_string()))?;
        match process.line().await? {
            Some(Ready::Address(address)) => {
                let address: Address = address.parse()?;
                process.directory = address.as_path().and_then(Path::parent).map(Path::to_owned);
                Ok(Self { process, address })
            }
            Some(Ready::Error(why)) => Err(failed(&why)),
            None => Err(failed("it ended before it was ready")),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) async fn usage(&mut self) -> Result<Usage, Failure> {
        let asked = match &mut self.process.input {
            Some(input) => input.write_all(b"usage\n").await.is_ok(),
            None => false,
        };
        match asked {
            true => self.process.line().await?,
            false => None,
        }
        .ok_or_else(|| Failure::Failed(format!("the server process at {} has ended", self.address)))
    }
}

/// The child process and the pipes to it.
struct Process {
    child: Child,
    /// Dropping it tells the child to end.
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    /// The directory that the child made.
    directory: Option<PathBuf>,
}

impl Process {
    fn spawn(args: &Args) -> io::Result<Self> {
        // This is the running file, even if a new build has replaced it by now.
        let mut child = Command::new("/proc/self/exe")
            .arg0("samehost")
            .arg("bench-server")
            .args(args.to_arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A terminal or a supervisor may send SIGKILL to the whole group. The child must still
            // have time to remove its files.
            .process_group(0)
            .spawn()?;
        let piped = || io::Error::other("it has no pipes");
        let input = child.stdin.take().ok_or_else(piped)?;
        let output = child.stdout.take().ok_or_else(piped)?;
        let output = BufReader::new(output).lines();
        Ok(Self { child, input: Some(input), output, directory: None })
    }

    /// Returns the child's next line, or `None` when the child has ended.
    async fn line<T: for<'a> Deserialize<'a>>(&mut self) -> Result<Option<T>, Failure> {
        let line = self.output.next_line().await?;
        Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
    }

    fn end(&mut self) -> io::Result<()> {
        self.input = None;
        let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) else {
            return Ok(());
        };
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let mut exit = [PollFd::new(&pidfd, PollFlags::IN)];
        let timeout = END_TIMEOUT.try_into().ok();
        if rustix::event::poll(&mut exit, timeout.as_ref())? == 0 {
            self.child.start_kill()?;
            rustix::event::poll(&mut exit, None)?;
        }
        self.child.try_wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("samehost: cannot end a server process: {error}");
        }
        if let Some(directory) = &self.directory {
            // It is still there only if the child was killed.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
