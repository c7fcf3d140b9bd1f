//! `samehost serve`: Ping, health and reflection on any number of addresses.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use samehost::ping::{FILE_DESCRIPTOR_SET, Ping, PingServiceServer};
use samehost::{Address, BindOptions, Group, Listener, Server};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::args;
use crate::later;
use crate::shutdown::Signals;
use crate::{Failure, Outcome};

/// The file name of the default address.
const DEFAULT_NAME: &str = "samehost.sock";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  samehost serve
  samehost serve unix:/tmp/ping.sock 127.0.0.1:50051
  samehost serve --mode 0660 --group app unix:/run/app/ping.sock

Once all addresses are bound, prints `listening on ADDRESS` for each. SIGTERM or Ctrl-C lets the
calls in flight finish, a second one stops at once; the socket files go first either way.")]
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
    /// Allow TCP addresses beyond loopback: plain text, open to whoever can reach them
    #[arg(long)]
    allow_remote: bool,
    /// Threads; 1 is a single-threaded runtime
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// How long calls in flight may take to finish after SIGTERM or Ctrl-C
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = args::duration)]
    drain: Duration,
    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as
    /// samehost=debug
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: tracing_subscriber::EnvFilter,
    #[command(flatten)]
    later: Later,
}

/// Options of a later version: known, so that they are refused by name.
#[derive(clap::Args)]
struct Later {
    #[arg(long, hide = true)]
    busy_poll: Option<String>,
    #[arg(long, hide = true)]
    allow_uid: Option<String>,
    #[arg(long, hide = true)]
    allow_gid: Option<String>,
    #[arg(long, hide = true)]
    allow_same_user: bool,
    #[arg(long, hide = true)]
    max_connections: Option<String>,
    #[arg(long, hide = true)]
    max_connections_per_uid: Option<String>,
    #[arg(long, hide = true)]
    max_streams: Option<String>,
}

impl Later {
    fn refuse(&self) -> Result<(), Failure> {
        let given = [
            ("--busy-poll", self.busy_poll.is_some()),
            ("--allow-uid", self.allow_uid.is_some()),
            ("--allow-gid", self.allow_gid.is_some()),
            ("--allow-same-user", self.allow_same_user),
            ("--max-connections", self.max_connections.is_some()),
            ("--max-connections-per-uid", self.max_connections_per_uid.is_some()),
            ("--max-streams", self.max_streams.is_some()),
        ];
        later::refuse(&given)
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    args.later.refuse()?;
    if let Some(address) = args.addresses.iter().find(|address| address.is_unix_abstract()) {
        return Err(Failure::Usage(format!(
            "{address}: every process on this host could connect to an abstract socket, and this \
             version has no policy to guard one: use a path, such as unix:/tmp/ping.sock"
        )));
    }
    tracing_subscriber::fmt().with_env_filter(args.log.clone()).with_writer(std::io::stderr).init();
    let runtime = runtime(args.threads)?;
    let code = runtime.block_on(serve(args))?;
    // Nothing of a connection that outlived its drain may hold up the exit.
    runtime.shutdown_background();
    Ok(code)
}

pub(crate) fn runtime(threads: u16) -> std::io::Result<Runtime> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(usize::from(threads)).enable_all().build()
}

async fn serve(args: Args) -> Outcome {
    let mut signals = Signals::new()?;
    let addresses = match args.addresses {
        none if none.is_empty() => vec![default_address()?],
        given => given,
    };
    let mut options = BindOptions::new()
        .mode(args.mode)
        .allow_shared_directory(args.allow_shared_directory)
        .allow_remote(args.allow_remote);
    if let Some(group) = args.group {
        options = options.group(group);
    }
    let mut listeners = Vec::new();
    for address in &addresses {
        listeners.push(options.bind(address).await?);
    }
    announce(&listeners)?;

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PingServiceServer<Ping>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let server = Server::new()
        .add_service(PingServiceServer::new(Ping::default()))
        .add_service(health_service)
        .add_service(reflection)
        .drain_timeout(args.drain);

    let (stop, stopped) = oneshot::channel();
    let second_signal = async {
        signals.next().await;
        let _ = stop.send(());
        signals.next().await;
    };
    let stopped = async {
        let _ = stopped.await;
    };
    tokio::select! {
        served = server.serve_with_shutdown(listeners, stopped) => served?,
        () = second_signal => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn announce(listeners: &[Listener]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for listener in listeners {
        writeln!(out, "listening on {}", listener.local_addr())
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
