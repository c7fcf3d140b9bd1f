//! `samehost check`: finds out why a server cannot be reached, step by step from the path to a
//! round trip. The first step that fails ends the check and prints the remedy.

mod file;
mod http2;
mod lock;
mod path;
mod service;
mod socket;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use samehost::Address;
use serde::Serialize;

use crate::args;
use crate::escaped::escaped;
use crate::failure::{Failure, Outcome};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  samehost check unix:/run/app/app.sock
  samehost check --json 127.0.0.1:50051

Prints a line for each step: ✓ it is as it has to be, – it is not known or does not apply, ✗ it is
why calls fail, with what to do. Exits with 1 at the first ✗.")]
pub(crate) struct Args {
    /// The server: unix:/path, unix-abstract:name, 127.0.0.1:50051
    #[arg(value_parser = args::address)]
    address: Address,
    /// How long to wait for the server in each step
    #[arg(short = 'W', long, value_name = "DURATION", default_value = "5s",
          allow_negative_numbers = true, value_parser = args::positive_duration)]
    timeout: Duration,
    /// Print the steps as one JSON object, and nothing else
    #[arg(long)]
    json: bool,
}

/// The result of one step.
#[derive(Clone, Debug, Serialize)]
struct Step {
    step: &'static str,
    /// `None` if the step has no result or does not apply.
    ok: Option<bool>,
    found: String,
    /// What to do if the step failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// A step that failed, which ends the check.
struct Broken(Step);

/// The steps so far. Each is printed when it is taken.
struct Steps {
    taken: Vec<Step>,
    json: bool,
}

impl Steps {
    /// Records that a step passed.
    fn good(&mut self, step: &'static str, found: impl Into<String>) -> Result<(), Failure> {
        self.take(Step { step, ok: Some(true), found: found.into(), remedy: None })
    }

    /// Records that a step has no result or does not apply.
    fn unknown(&mut self, step: &'static str, found: impl Into<String>) -> Result<(), Failure> {
        self.take(Step { step, ok: None, found: found.into(), remedy: None })
    }

    fn take(&mut self, step: Step) -> Result<(), Failure> {
        if !self.json {
            let mark = match step.ok {
                Some(true) => '✓',
                Some(false) => '✗',
                None => '–',
            };
            // The text may contain file names and text from a server.
            let found = escaped(&step.found);
            let remedy = step.remedy.as_deref().map(escaped);
            let remedy = remedy.map_or(String::new(), |remedy| format!(": {remedy}"));
            let mut out = io::stdout().lock();
            writeln!(out, "{mark} {}: {found}{remedy}", step.step)
                .and_then(|()| out.flush())
                .map_err(|error| Failure::output(&error))?;
        }
        self.taken.push(step);
        Ok(())
    }
}

/// Why the check ends early.
enum End {
    Broken(Step),
    Failure(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Broken> for End {
    fn from(Broken(step): Broken) -> Self {
        Self::Broken(step)
    }
}

/// Returns a step that failed, which is the reason why calls fail.
fn broken(step: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Broken {
    let (found, remedy) = (found.into(), Some(remedy.into()));
    Broken(Step { step, ok: Some(false), found, remedy })
}

#[derive(Serialize)]
struct CheckReport<'a> {
    address: String,
    ok: bool,
    steps: &'a [Step],
}

pub(crate) fn run(args: Args) -> Outcome {
    let runtime = crate::runtime::new(1)?;
    let outcome = runtime.block_on(async {
        let mut steps = Steps { taken: Vec::new(), json: args.json };
        let ok = match walk(&args, &mut steps).await {
            Ok(()) => true,
            Err(End::Broken(step)) => {
                steps.take(step)?;
                false
            }
            Err(End::Failure(failure)) => return Err(failure),
        };
        if args.json {
            let address = args.address.to_string();
            let report = CheckReport { address, ok, steps: &steps.taken };
            let mut out = io::stdout().lock();
            writeln!(out, "{}", serde_json::to_string(&report)?)
                .and_then(|()| out.flush())
                .map_err(|error| Failure::output(&error))?;
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    });
    // A name server that does not answer must not delay the exit.
    runtime.shutdown_background();
    outcome
}

async fn walk(args: &Args, steps: &mut Steps) -> Result<(), End> {
    let Args { address, timeout, .. } = args;
    let stream = if address.is_unix() {
        if let Some(path) = address.as_path() {
            path::walk(path, steps)?;
            file::look(path, steps)?;
        }
        socket::connect_unix(address, *timeout, steps).await?
    } else {
        socket::connect_tcp(address, *timeout, steps).await?
    };
    http2::speak(stream, *timeout, steps).await?;
    service::ask(address, *timeout, steps).await
}
