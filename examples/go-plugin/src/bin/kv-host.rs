//! A host in Rust: starts the plugin that its first argument names, in whatever language that is,
//! puts a value, gets it back, and ends the plugin.

use std::error::Error;

use example_go_plugin::host::Plugin;
use example_go_plugin::kv::kv_client::KvClient;
use example_go_plugin::kv::{GetRequest, PutRequest};
use tokio::process::Command;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let command = std::env::args_os().nth(1).ok_or("usage: kv-host PLUGIN")?;
    let plugin = Plugin::start(Command::new(command)).await?;

    let mut kv = KvClient::new(plugin.channel.clone());
    kv.put(PutRequest { key: "hello".into(), value: b"world".into() }).await?;
    let value = kv.get(GetRequest { key: "hello".into() }).await?.into_inner().value;
    println!("{}", String::from_utf8_lossy(&value));

    plugin.stop().await
}
