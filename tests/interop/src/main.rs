//! The Rust side of the interoperability tests: a server and a client on this library, to be met by
//! those of other languages. `../README.md` tells what each subcommand has to do.

mod cases;
mod server;
mod test_cases;
mod test_service;

use anyhow::{Context, bail};
use samehost::{Address, Channel};

/// Generated.
mod pb {
    pub mod interop {
        samehost::include_proto!("interop.v1");
    }
    pub mod testing {
        samehost::include_proto!("grpc.testing");
    }
    pub mod health {
        samehost::include_proto!("grpc.health.v1");
    }
    pub mod reflection {
        samehost::include_proto!("grpc.reflection.v1");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let address: Address = args.next().context("an address is missing")?.parse()?;
    match &*command {
        "serve" => server::serve(&address).await,
        "client" | "testing" => {
            let mut failed = false;
            for case in args {
                let channel = Channel::builder(&address).connect_lazy();
                let outcome = match &*command {
                    "client" => cases::run(&case, channel).await,
                    _ => test_cases::run(&case, channel).await,
                };
                failed |= outcome.is_err();
                match outcome {
                    Ok(()) => println!("{case}\tok"),
                    Err(error) => println!("{case}\t{}", format!("{error:#}").replace('\n', " ")),
                }
            }
            std::process::exit(failed.into());
        }
        other => bail!("{other:?}: serve, client or testing, then an address and cases"),
    }
}
