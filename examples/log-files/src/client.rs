//! A program in a sandbox that writes to a log file: `log-client ADDRESS NAME LINE`.
//!
//! It connects, gives up every access to files (landlock(7)), and asks the server for its log file.

use std::fs::File;
use std::io::Write;

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetStatus};
use log_files::OpenRequest;
use log_files::log_files_client::LogFilesClient;
use samehost::{Channel, Descriptors};

mod log_files {
    samehost::include_proto!("log_files.v1");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, line] = &arguments[..] else {
        return Err("usage: log-client ADDRESS NAME LINE".into());
    };
    let channel = Channel::builder(address.as_str()).descriptors(1).connect().await?;
    let all = AccessFs::from_all(ABI::V1);
    let sandbox = Ruleset::default().handle_access(all)?.create()?.restrict_self()?;
    if sandbox.ruleset == RulesetStatus::NotEnforced {
        println!("this kernel has no Landlock: not in a sandbox");
    } else if let Err(error) = File::open("/etc/passwd") {
        println!("in a sandbox: /etc/passwd: {error}");
    }
    let mut client = LogFilesClient::new(channel);
    let response = client.open(OpenRequest { name: name.clone() }).await?;
    let descriptors = response.extensions().get::<Descriptors>().cloned().unwrap_or_default();
    let log = descriptors.take().into_iter().next().ok_or("the server sent no file")?;
    writeln!(File::from(log), "{line}")?;
    println!("logged");
    Ok(())
}
