//! The `samehost` command: serves, pings, checks and measures the Ping service. It is a crate of
//! its own that uses only the library's public API.

mod args;
mod bench;
mod check;
mod documents;
mod escaped;
mod failure;
mod health;
mod log;
mod metrics;
mod notify;
mod ping;
mod process;
mod runtime;
mod serve;
mod shutdown;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::failure::{Failure, Outcome};

/// gRPC between processes on the same host, over Unix domain sockets.
#[derive(Parser)]
#[command(name = "samehost", version, about, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed (server unreachable, call failed), 2 wrong usage.
Durations: 50us, 1.5ms, 2s, or a bare number of seconds.";

#[derive(Subcommand)]
enum Command {
    /// Serve Ping, health and reflection
    Serve(Box<serve::Args>),
    /// Send pings to a server, like ping(8)
    Ping(ping::Args),
    /// Find out step by step why a server cannot be reached
    Check(check::Args),
    /// Compare what a call costs over a Unix socket and over TCP loopback
    Bench(Box<bench::Args>),
    /// Print a shell's completions for this command
    Completions(documents::CompletionsArgs),
    /// Print the manual page, for man(1)
    Man(documents::ManArgs),
    /// The server half of `bench`
    #[command(hide = true)]
    BenchServer(bench::ServerArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => run(cli.command),
        Err(text) => print(&text),
    };
    let (code, message) = match outcome {
        Ok(code) => return code,
        Err(Failure::Failed(message)) => (1, message),
        Err(Failure::Usage(message)) => (2, message),
        Err(Failure::Unread) => return ExitCode::FAILURE,
    };
    // The message may contain text from a server. If it cannot be written, the exit code tells.
    let _ = writeln!(io::stderr(), "samehost: {}", escaped::escaped(&message));
    ExitCode::from(code)
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Serve(args) => serve::run(*args),
        Command::Ping(args) => ping::run(args),
        Command::Check(args) => check::run(args),
        Command::Bench(args) => bench::run(*args),
        Command::Completions(args) => documents::completions::<Cli>(&args),
        Command::Man(args) => documents::man::<Cli>(&args),
        Command::BenchServer(args) => bench::run_server(args),
    }
}

/// Prints what clap has instead of a command: help, the version, or an error about the arguments.
fn print(text: &clap::Error) -> Outcome {
    let printed = text.print().and_then(|()| io::stdout().flush());
    if text.use_stderr() {
        return Ok(ExitCode::from(2));
    }
    printed.map_err(|error| Failure::output(&error))?;
    Ok(ExitCode::SUCCESS)
}
