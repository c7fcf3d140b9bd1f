//! `samehost serve`: serves Ping, health and reflection on any number of addresses.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
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
// A value such as -1 is refused as a value, and not taken for an option.
#[command(
    allow_negative_numbers = true,
    after_help = "\
Examples:
  samehost serve
  samehost serve unix:/tmp/ping.sock 127.0.0.1:50051
  samehost serve --mode 0660 --group app unix:/run/app/ping.sock
  samehost serve --mode 0666 --allow-uid root --allow-gid 1200 unix:/run/app/ping.sock
  samehost serve --systemd
  samehost serve --take-over unix:/run/app/ping.sock

Once all addresses are bound, prints `listening on ADDRESS` for each. SIGTERM or Ctrl-C lets the
calls in flight finish, a second one stops at once; the socket files go first either way. So does
SIGHUP, unless it is ignored as under nohup(1)."
)]
pub(crate) struct Args {
    /// Where to listen: unix:/path, 127.0.0.1:50051 [default:
    /// unix:$XDG_RUNTIME_DIR/samehost.sock, or unix:/tmp/samehost-$UID/samehost.sock]
    #[arg(value_name = "ADDRESS", value_parser = args::address)]
    addresses: Vec<Address>,
    /// Permission bits of the socket files, in octal [default: 0600]
    #[arg(long, value_name = "MODE", value_parser = args::mode)]
    mode: Option<u32>,
    /// Group of the socket files, by name or number
    #[arg(long, value_name = "NAME|GID", value_parser = args::group)]
    group: Option<u32>,
    /// Allow a socket in a directory that other users can write to, such as a Kubernetes emptyDir
    #[arg(long)]
    allow_shared_directory: bool,
    /// Take over the socket of a server that was started with this option and serves an ADDRESS: no
    /// call and no connection fails, and that server drains and exits. It stays for addresses that
    /// were not taken. A successor of the same user may later do the same to this server. An ADDRESS
    /// that no server has is bound as usual
    #[arg(long)]
    take_over: bool,
    /// Publish a socket again when its file was deleted, or its directory was moved
    #[arg(long)]
    republish: bool,
    /// Allow TCP addresses beyond loopback: everyone who can reach them can connect, in plain text
    #[arg(long)]
    allow_remote: bool,
    /// Let processes of this user connect, by name or number; like --allow-gid it may be given
    /// several times. With an --allow option, other users cannot connect. The mode of the socket
    /// file must let them connect, too: see --mode
    #[arg(long, value_name = "NAME|UID", value_parser = args::user)]
    allow_uid: Vec<u32>,
    /// Let processes in this group connect, by name or number; supplementary groups count
    #[arg(long, value_name = "NAME|GID", value_parser = args::group)]
    allow_gid: Vec<u32>,
    /// Let processes of the server's own user connect
    #[arg(long)]
    allow_same_user: bool,
    /// Limit of open connections on all addresses together
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = args::count::<usize>)]
    max_connections: usize,
    /// Limit of open connections of one user other than the server's own; not over TCP [default: 256]
    #[arg(long, value_name = "N", value_parser = args::count::<usize>)]
    max_connections_per_uid: Option<usize>,
    /// Limit of running calls on one connection
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = args::count::<u32>)]
    max_streams: u32,
    /// Take file descriptors with calls over Unix sockets, at most N with one call. No method here uses
    /// them: they are closed when the call ends
    #[arg(long, value_name = "N",
          value_parser = |text: &str| args::number::<u8>(text, "descriptors", 1..=253))]
    descriptors: Option<u8>,
    /// Limit of the memory that all connections make the server hold
    #[arg(long, value_name = "BYTES", default_value_t = 268_435_456,
          value_parser = args::bytes)]
    max_buffered_bytes: usize,
    /// Serve the sockets that systemd passed (LISTEN_FDS); no other ADDRESS unless given
    #[arg(long)]
    systemd: bool,
    /// How long a connection polls for the next message before it sleeps: this answers faster and
    /// takes CPU time; 50us suits calls that follow each other, 0 does not poll
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = args::duration)]
    busy_poll: Duration,
    /// Number of threads that serve
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = args::threads)]
    threads: u16,
    /// How long calls in flight may take to finish after SIGTERM or Ctrl-C; 0 cuts them off at once
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = args::duration)]
    drain: Duration,
    /// How long a call may take: the deadline of calls that bring none or a later one
    #[arg(long, value_name = "DURATION", value_parser = args::positive_duration)]
    timeout: Option<Duration>,
    /// Age of a connection, ±10 %, at which its client is told to make a new one
    #[arg(long, value_name = "DURATION", value_parser = args::positive_duration)]
    max_connection_age: Option<Duration>,
    /// Exit after this time without a connection; a connection without a call for this time is
    /// closed
    #[arg(long, value_name = "DURATION", value_parser = args::positive_duration)]
    idle_exit: Option<Duration>,
    /// Serve metrics for Prometheus over HTTP/1.1 at this TCP address, such as 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS", value_parser = args::address)]
    metrics: Option<Address>,
    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as
    /// samehost=debug
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = args::log_filter)]
    log: tracing_subscriber::EnvFilter,
    /// Format of the log: lines of text, or one JSON object in each line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: crate::log::Format,
}

impl Args {
    /// Returns the policy of the `--allow` options, or `None` without any.
    fn policy(&self) -> Option<PeerPolicy> {
        let uids = (!self.allow_uid.is_empty()).then(|| PeerPolicy::uids(self.allow_uid.clone()));
        let gids = (!self.allow_gid.is_empty()).then(|| PeerPolicy::gids(self.allow_gid.clone()));
        let same_user = self.allow_same_user.then(PeerPolicy::same_user);
        [uids, gids, same_user].into_iter().flatten().reduce(PeerPolicy::or)
    }

    /// Returns the options that name the overflow id, which no rule matches.
    fn of_unknown_users(&self) -> impl Iterator<Item = &'static str> {
        let names = |ids: &[u32], setting| !ids.is_empty() && ids.contains(&overflow_id(setting));
        let own = [rustix::process::geteuid().as_raw()];
        let options = [
            ("--allow-uid", names(&self.allow_uid, "overflowuid")),
            ("--allow-gid", names(&self.allow_gid, "overflowgid")),
            ("--allow-same-user", self.allow_same_user && names(&own, "overflowuid")),
        ];
        options.into_iter().filter(|(_, names_it)| *names_it).map(|(option, _)| option)
    }

    /// Returns the options that were given and have no effect at the addresses, and what they are for.
    /// Which sockets systemd passes is not known yet, but their files are its own.
    fn without_effect(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        const FILE: &str = "socket files that the server makes";
        let is_default = self.addresses.is_empty() && !self.systemd;
        let has_file = is_default || self.addresses.iter().any(|at| at.as_path().is_some());
        let has_unix = is_default || self.systemd || self.addresses.iter().any(Address::is_unix);
        let given = self.addresses.iter().chain(&self.metrics);
        let has_tcp = self.systemd || given.into_iter().any(|at| !at.is_unix());
        let options = [
            ("--mode", self.mode.is_some(), has_file, FILE),
            ("--group", self.group.is_some(), has_file, FILE),
            ("--allow-shared-directory", self.allow_shared_directory, has_file, FILE),
            ("--take-over", self.take_over, has_file, FILE),
            ("--republish", self.republish, has_file, FILE),
            ("--descriptors", self.descriptors.is_some(), has_unix, "Unix sockets"),
            (
                "--max-connections-per-uid",
                self.max_connections_per_uid.is_some(),
                has_unix,
                "Unix sockets",
            ),
            ("--allow-remote", self.allow_remote, has_tcp, "TCP addresses"),
        ];
        let vain = options.into_iter().filter(|(_, is_given, applies, _)| *is_given && !applies);
        vain.map(|(option, _, _, subject)| (option, subject))
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    for (at, address) in args.addresses.iter().enumerate() {
        check(address, &args)?;
        if args.addresses[..at].contains(address) && !has_any_port(address) {
            return Err(Failure::Usage(format!("{address}: given twice: give each address once")));
        }
    }
    if let Some(metrics) = args.metrics.as_ref().filter(|at| args.addresses.contains(at))
        && !has_any_port(metrics)
    {
        return Err(Failure::Usage(format!(
            "{metrics}: given twice: give --metrics an address of its own"
        )));
    }
    crate::log::start(args.log.clone(), args.log_format);
    for (option, subject) in args.without_effect() {
        tracing::warn!("{option} has no effect: it is for {subject}, and none is served");
    }
    for option in args.of_unknown_users() {
        tracing::warn!(
            "{option} lets nobody in: users that this namespace does not know show as that id: name \
             another one"
        );
    }
    if !args.systemd && has_passed_sockets() {
        tracing::warn!("systemd passed sockets (LISTEN_FDS), which are not served: give --systemd");
    }
    allow_descriptors(args.max_connections);
    let runtime = crate::runtime::new(args.threads)?;
    let code = runtime.block_on(serve(args))?;
    // A connection that is still open after the drain must not delay the exit.
    runtime.shutdown_background();
    Ok(code)
}

/// Returns the id of users or groups that are not known here (user_namespaces(7)).
fn overflow_id(setting: &str) -> u32 {
    let value = std::fs::read_to_string(format!("/proc/sys/kernel/{setting}"));
    value.ok().and_then(|value| value.trim().parse().ok()).unwrap_or(65_534)
}

/// Returns whether the kernel chooses the port, which is another one each time.
fn has_any_port(address: &Address) -> bool {
    !address.is_unix() && address.to_string().ends_with(":0")
}

/// Fails if the policy of the options does not fit an address.
fn check(address: &Address, args: &Args) -> Result<(), Failure> {
    let problem = match args.policy() {
        Some(_) if !address.is_unix() => {
            "TCP does not tell who connects: leave out the --allow options or this address"
        }
        None if address.is_unix_abstract() => {
            "every process of this network namespace could connect to an abstract socket: say who \
             may, by --allow-same-user, --allow-uid or --allow-gid"
        }
        _ => return Ok(()),
    };
    Err(Failure::Usage(format!("{address}: {problem}")))
}

async fn serve(args: Args) -> Outcome {
    let mut signals = Signals::new()?;
    let mut listeners = if args.systemd { inherited(&args)? } else { Vec::new() };
    let default = match args.addresses.is_empty() && !args.systemd {
        true => Some(default_address()?),
        false => None,
    };
    let metrics = match &args.metrics {
        Some(address) => Some(crate::metrics::serve(address, args.allow_remote).await?),
        None => None,
    };
    let (mut health, health_service) = Health::serving().await;
    let server = server(&args)?.add_service(health_service);
    // From here on nothing may fail: a server that was taken over serves no more. Until then, one that is
    // to be taken over may let this one wait.
    listeners.extend(tokio::select! {
        bound = bind(&args, args.addresses.iter().chain(&default)) => bound?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    });
    announce(&listeners, metrics.as_ref());
    let manager = notify::ready(args.take_over).await;

    let (stop, stopped) = oneshot::channel();
    let second_signal = async {
        signals.next().await;
        manager.stopping();
        // This comes before any connection is told to go, so that clients that watch connect
        // elsewhere in time.
        health.not_serving().await;
        let _ = stop.send(());
        health.end_watches().await;
        signals.next().await;
    };
    let stopped = async {
        let _ = stopped.await;
    };
    tokio::select! {
        served = serve_on(server, listeners, args.idle_exit, stopped) => {
            served?;
            if !is_taken_over(&args, default.as_ref()) {
                manager.stopping();
            }
            manager.end().await;
        }
        () = second_signal => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns whether a server that has ended was taken over: then its socket file is there, and is its
/// successor's.
fn is_taken_over(args: &Args, default: Option<&Address>) -> bool {
    let mut paths = args.addresses.iter().chain(default).filter_map(Address::as_path);
    args.take_over && paths.any(Path::exists)
}

async fn bind(
    args: &Args,
    addresses: impl Iterator<Item = &Address>,
) -> Result<Vec<Listener>, Failure> {
    let mut options = BindOptions::new()
        .allow_shared_directory(args.allow_shared_directory)
        .allow_remote(args.allow_remote)
        .republish(args.republish)
        .take_over(args.take_over)
        .allow_take_over(args.take_over);
    if let Some(mode) = args.mode {
        options = options.mode(mode);
    }
    if let Some(group) = args.group {
        options = options.group(Group::Id(group));
    }
    options.bind_all(addresses).await.map_err(|error| Failure::bind(&error))
}

fn server(args: &Args) -> Result<Server, Failure> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut server = Server::new()
        .add_service(PingServiceServer::new(Ping::default()))
        .add_service(reflection().build_v1()?)
        // This is the older name, and the only one that ghz and grpcio's own client use.
        .add_service(reflection().build_v1alpha()?)
        .max_connections(args.max_connections)
        .max_concurrent_streams(args.max_streams)
        .max_buffered_bytes(args.max_buffered_bytes)
        .busy_poll(BusyPoll::new(args.busy_poll))
        .drain_timeout(args.drain);
    if let Some(policy) = args.policy() {
        server = server.peer_policy(policy);
    }
    if let Some(connections) = args.max_connections_per_uid {
        server = server.max_connections_per_uid(connections);
    }
    if let Some(max_per_call) = args.descriptors {
        server = server.descriptors(max_per_call);
    }
    if let Some(timeout) = args.timeout {
        server = server.timeout(timeout);
    }
    if let Some(age) = args.max_connection_age {
        server = server.max_connection_age(age);
    }
    if args.metrics.is_some() {
        server = server.observer(Metrics::new());
    }
    Ok(server)
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

/// Raises this process's own limit on file descriptors if it is too low for so many connections
/// (getrlimit(2)). The usual limit, 1024, exists for programs that use select(2).
fn allow_descriptors(connections: usize) {
    /// An upper bound of the descriptors that a server opens for other purposes than connections.
    const OTHERS: u64 = 128;
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    if current.is_some_and(|current| current < raised) {
        // On failure the server serves as many connections as it can: accept(2) fails and is tried
        // again.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
    }
}

/// Returns whether systemd passed sockets to this process (sd_listen_fds(3)).
fn has_passed_sockets() -> bool {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    number("LISTEN_PID") == Some(std::process::id()) && number("LISTEN_FDS") > Some(0)
}

/// Returns the listeners that systemd passed, if they may be served as addresses may.
fn inherited(args: &Args) -> Result<Vec<Listener>, Failure> {
    let passed = Listener::from_systemd()?;
    if passed.is_empty() {
        return Err(Failure::Failed(
            "--systemd: no sockets were passed to this process: start it by its systemd socket \
             unit, or leave the option out"
                .to_owned(),
        ));
    }
    let listeners: Vec<_> = passed.into_iter().map(|(_, listener)| listener).collect();
    for address in listeners.iter().map(Listener::local_addr) {
        check(address, args)?;
        if !args.allow_remote && is_remote(address) {
            return Err(Failure::Usage(format!(
                "{address}: other hosts may reach this socket that systemd passed, and it is in \
                 plain text: write ListenStream=127.0.0.1:PORT in its unit, or give --allow-remote"
            )));
        }
    }
    Ok(listeners)
}

/// Returns whether a bound address is one of TCP beyond loopback.
fn is_remote(address: &Address) -> bool {
    address.to_string().parse::<SocketAddr>().is_ok_and(|address| !address.ip().is_loopback())
}

/// Prints where the server listens. If nobody can read that, the server serves nevertheless: it may
/// have taken over already, and then no other server has the socket.
fn announce(listeners: &[Listener], metrics: Option<&Address>) {
    let listening =
        listeners.iter().map(|listener| format!("listening on {}\n", listener.local_addr()));
    let metrics = metrics.map(|address| format!("metrics at http://{address}/metrics\n"));
    let notice: String = listening.chain(metrics).collect();
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(notice.as_bytes()).and_then(|()| out.flush()) {
        let notice = notice.trim_end().replace('\n', ", ");
        tracing::warn!(%error, "cannot write to standard output: {notice}");
    }
}

/// Returns a socket in `$XDG_RUNTIME_DIR`, or in a directory in `/tmp` that only this user can
/// enter.
fn default_address() -> Result<Address, Failure> {
    let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
        // The XDG Base Directory Specification: a relative path is invalid and is to be ignored.
        Some(directory) if Path::new(&directory).is_absolute() => PathBuf::from(directory),
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
    // Every user can create a name in /tmp, so the directory is checked.
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
