//! `samehost serve`: Ping, health and reflection on any number of addresses.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use samehost::ping::{FILE_DESCRIPTOR_SET, Ping, PingServiceServer};
use samehost::{
    Address, BindOptions, BusyPoll, Group, Listener, Metrics, PeerPolicy, ServeError, Server,
};
use tokio::sync::oneshot;

use crate::args;
use crate::failure::{Failure, Outcome};
use crate::health::Health;
use crate::notify;
use crate::shutdown::Signals;

/// The file name of the default address.
const DEFAULT_NAME: &str = "samehost.sock";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  samehost serve
  samehost serve unix:/tmp/ping.sock 127.0.0.1:50051
  samehost serve --mode 0660 --group app unix:/run/app/ping.sock
  samehost serve --mode 0666 --allow-uid root --allow-gid 1200 unix:/run/app/ping.sock
  samehost serve --systemd
  samehost serve --take-over unix:/run/app/ping.sock

Once all addresses are bound, prints `listening on ADDRESS` for each. SIGTERM or Ctrl-C lets the
calls in flight finish, a second one stops at once; the socket files go first either way. So does
SIGHUP, unless it is ignored as under nohup(1).")]
pub(crate) struct Args {
    /// Where to listen: unix:/path, 127.0.0.1:50051 [default:
    /// unix:$XDG_RUNTIME_DIR/samehost.sock, or unix:/tmp/samehost-$UID/samehost.sock]
    #[arg(value_name = "ADDRESS")]
    addresses: Vec<Address>,
    /// Permission bits of the socket files, in octal
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = args::mode)]
    mode: u32,
    /// Group of the socket files, by name or number
    #[arg(long, value_name = "NAME|GID", value_parser = args::group)]
    group: Option<Group>,
    /// Allow a socket in a directory that others can write to, as Kubernetes' emptyDir is
    #[arg(long)]
    allow_shared_directory: bool,
    /// Where a server that was started with this option serves an ADDRESS, take its socket over: no
    /// call and no connection fails; that server drains and exits. Permits the same to a successor of
    /// this server's user. Where nobody serves, bind as usual
    #[arg(long)]
    take_over: bool,
    /// Publish a socket again when its file was deleted
    #[arg(long)]
    republish: bool,
    /// Allow TCP addresses beyond loopback: plain text, open to whoever can reach them
    #[arg(long)]
    allow_remote: bool,
    /// Let processes of this user connect, by name or number; may be given several times, as may
    /// --allow-gid. With any --allow option nobody else may. What the socket file's mode keeps out,
    /// stays out: see --mode
    #[arg(long, value_name = "NAME|UID", allow_negative_numbers = true, value_parser = args::user)]
    allow_uid: Vec<u32>,
    /// Let processes in this group connect, by name or number, supplementary groups included
    #[arg(long, value_name = "NAME|GID", allow_negative_numbers = true,
          value_parser = args::group_number)]
    allow_gid: Vec<u32>,
    /// Let processes of the server's own user connect
    #[arg(long)]
    allow_same_user: bool,
    /// Connections at a time, on all addresses
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = args::count)]
    max_connections: usize,
    /// Connections at a time of one user other than the server's own
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = args::count)]
    max_connections_per_uid: usize,
    /// Calls at a time on one connection
    #[arg(long, value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_streams: u32,
    /// Serve the sockets that systemd passed (LISTEN_FDS), and ADDRESS only where given
    #[arg(long)]
    systemd: bool,
    /// How long a connection looks for the next message before it sleeps: faster answers for CPU
    /// time; 50us for calls that follow each other
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = args::duration)]
    busy_poll: Duration,
    /// Threads; 1 is a single-threaded runtime
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// How long calls in flight may take to finish after SIGTERM or Ctrl-C
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = args::duration)]
    drain: Duration,
    /// The longest that a call may take: the deadline of calls that bring none or a later one
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    timeout: Option<Duration>,
    /// How old a connection may become, give or take a tenth, before its client is told to make a new
    /// one
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    max_connection_age: Option<Duration>,
    /// End after no connection for so long; connections without a call for so long are closed
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    idle_exit: Option<Duration>,
    /// Serve metrics for Prometheus over HTTP/1.1 at this TCP address, such as 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<Address>,
    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as
    /// samehost=debug
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: tracing_subscriber::EnvFilter,
    /// How to log: lines of text, or a JSON object a line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: crate::log::Format,
}

impl Args {
    /// Whom the `--allow` options let in; `None` without any.
    fn policy(&self) -> Option<PeerPolicy> {
        let uids = (!self.allow_uid.is_empty()).then(|| PeerPolicy::uids(self.allow_uid.clone()));
        let gids = (!self.allow_gid.is_empty()).then(|| PeerPolicy::gids(self.allow_gid.clone()));
        let same_user = self.allow_same_user.then(PeerPolicy::same_user);
        [uids, gids, same_user].into_iter().flatten().reduce(PeerPolicy::or)
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    for address in &args.addresses {
        let problem = match args.policy() {
            Some(_) if !address.is_unix() => {
                "TCP does not tell who connects: leave out the --allow options or this address"
            }
            None if address.is_unix_abstract() => {
                "every process of this network namespace could connect to an abstract socket: say \
                 who may, by --allow-same-user, --allow-uid or --allow-gid"
            }
            _ => continue,
        };
        return Err(Failure::Usage(format!("{address}: {problem}")));
    }
    crate::log::start(args.log.clone(), args.log_format);
    allow_descriptors(args.max_connections);
    let runtime = crate::runtime::new(args.threads)?;
    let code = runtime.block_on(serve(args))?;
    // Nothing of a connection that outlived its drain may hold up the exit.
    runtime.shutdown_background();
    Ok(code)
}

async fn serve(args: Args) -> Outcome {
    let mut signals = Signals::new()?;
    let policy = args.policy();
    let mut listeners = if args.systemd { inherited()? } else { Vec::new() };
    let addresses = match args.addresses {
        none if none.is_empty() && !args.systemd => vec![default_address()?],
        given => given,
    };
    let mut options = BindOptions::new()
        .mode(args.mode)
        .allow_shared_directory(args.allow_shared_directory)
        .allow_remote(args.allow_remote)
        .republish(args.republish)
        .take_over(args.take_over)
        .allow_take_over(args.take_over);
    if let Some(group) = args.group {
        options = options.group(group);
    }
    let metrics = match &args.metrics {
        Some(address) => Some(crate::metrics::serve(address, args.allow_remote).await?),
        None => None,
    };
    // What can be taken over last: once that has happened, nothing may fail any more.
    let mut order: Vec<_> = addresses.iter().collect();
    if args.take_over {
        order.sort_by_key(|address| address.as_path().is_some());
    }
    for address in order {
        let bound = options.bind(address).await;
        listeners.push(bound.map_err(|error| Failure::Failed(with_options(&error.to_string())))?);
    }
    announce(&listeners, metrics)?;
    notify::ready(args.take_over);

    let (mut health, health_service) = Health::serving().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut server = Server::new()
        .add_service(PingServiceServer::new(Ping::default()))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        // The older name, which is the only one that ghz and grpcio's own client ask for.
        .add_service(reflection().build_v1alpha()?)
        .max_connections(args.max_connections)
        .max_connections_per_uid(args.max_connections_per_uid)
        .max_concurrent_streams(args.max_streams)
        .busy_poll(BusyPoll::new(args.busy_poll))
        .drain_timeout(args.drain);
    if let Some(policy) = policy {
        server = server.peer_policy(policy);
    }
    if let Some(timeout) = args.timeout {
        server = server.timeout(timeout);
    }
    if let Some(age) = args.max_connection_age {
        server = server.max_connection_age(age);
    }
    if metrics.is_some() {
        server = server.observer(Metrics::new());
    }

    let (stop, stopped) = oneshot::channel();
    let second_signal = async {
        signals.next().await;
        notify::stopping();
        // Before any connection is told to go: who watches connects elsewhere in good time.
        health.not_serving().await;
        let _ = stop.send(());
        health.end_watches().await;
        signals.next().await;
    };
    let stopped = async {
        let _ = stopped.await;
    };
    tokio::select! {
        served = serve_on(server, listeners, args.idle_exit, stopped) => served?,
        () = second_signal => {}
        () = notify::watchdog() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The library's advice, with the options of this command for what is asked of it.
fn with_options(text: &str) -> String {
    text.replace("allow a shared directory", "give --allow-shared-directory")
        .replace("allow remote addresses by name", "give --allow-remote")
        .replace("the option republish", "--republish")
        .replace("allow_take_over", "--take-over")
}

async fn serve_on(
    server: Server,
    listeners: Vec<Listener>,
    idle_exit: Option<Duration>,
    stopped: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    match idle_exit {
        Some(idle) => server.serve_until_idle(listeners, idle, stopped).await,
        None => server.serve_with_shutdown(listeners, stopped).await,
    }
}

/// Raises this process's own limit on file descriptors as far as it may, if that is too low for so
/// many connections (getrlimit(2)). The usual one, 1024, is there for programs that use select(2).
fn allow_descriptors(connections: usize) {
    /// What a server opens beside its connections, and some.
    const OTHERS: u64 = 128;
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    if current.is_some_and(|current| current < raised) {
        // It serves as many as it can: accept(2) fails and is tried again.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
    }
}

/// What systemd passed.
fn inherited() -> Result<Vec<Listener>, Failure> {
    let passed = Listener::from_systemd()?;
    if passed.is_empty() {
        return Err(Failure::Failed(
            "--systemd: no sockets were passed to this process: start it by its systemd socket \
             unit, or leave the option out"
                .to_owned(),
        ));
    }
    Ok(passed.into_iter().map(|(_, listener)| listener).collect())
}

fn announce(listeners: &[Listener], metrics: Option<SocketAddr>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for listener in listeners {
        writeln!(out, "listening on {}", listener.local_addr())
            .map_err(|error| Failure::output(&error))?;
    }
    if let Some(metrics) = metrics {
        writeln!(out, "metrics at http://{metrics}/metrics")
            .map_err(|error| Failure::output(&error))?;
    }
    out.flush().map_err(|error| Failure::output(&error))
}

/// `$XDG_RUNTIME_DIR`, or a directory in `/tmp` that only this user can enter.
fn default_address() -> Result<Address, Failure> {
    let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => private_directory()?,
    };
    Ok(Address::unix(directory.join(DEFAULT_NAME))?)
}

fn private_directory() -> Result<PathBuf, Failure> {
    let uid = rustix::process::geteuid().as_raw();
    let directory = PathBuf::from(format!("/tmp/samehost-{uid}"));
    let failed = |problem: String| {
        Failure::Failed(format!("{}: {problem}: give an address", directory.display()))
    };
    match std::fs::DirBuilder::new().mode(0o700).create(&directory) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    // Anybody can create a name in /tmp: what stands there is ours only if it looks like ours.
    let found = directory.symlink_metadata().map_err(|error| failed(error.to_string()))?;
    if !found.is_dir() {
        return Err(failed("is not a directory".to_owned()));
    }
    if found.uid() != uid {
        return Err(failed(format!("is owned by uid {}", found.uid())));
    }
    if found.mode() & 0o7777 != 0o700 {
        return Err(failed(format!("has mode {:04o}, not 0700", found.mode() & 0o7777)));
    }
    Ok(directory)
}
