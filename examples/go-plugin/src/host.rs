//! A host's side: start a plugin, connect to where it says it is, end it.

use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use samehost::{Address, Channel, PeerPolicy};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::control::Empty;
use crate::control::grpc_controller_client::GrpcControllerClient;
use crate::{COOKIE, VERSION};

/// How long a plugin may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running plugin. Dropped, it is killed.
pub struct Plugin {
    pub channel: Channel,
    child: Child,
}

impl Plugin {
    /// Starts `command`, waits for its handshake, connects, and asks for its health.
    pub async fn start(mut command: Command) -> Result<Self, Box<dyn Error>> {
        command.env(COOKIE.0, COOKIE.1).env("PLUGIN_PROTOCOL_VERSIONS", VERSION.to_string());
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut line = String::new();
        timeout(PATIENCE, output.read_line(&mut line)).await??;
        // What else it prints is passed on, so that it never waits for a reader.
        tokio::spawn(async move { tokio::io::copy(&mut output, &mut tokio::io::sink()).await });

        let address = address(line.trim())?;
        // Whoever started to listen there has to be this user: nobody else's server is trusted.
        let channel =
            Channel::builder(&address).require_server(PeerPolicy::same_user()).connect().await?;
        let request = HealthCheckRequest { service: "plugin".into() };
        HealthClient::new(channel.clone()).check(request).await?;
        Ok(Self { channel, child })
    }

    /// Tells the plugin to end and waits until it has.
    pub async fn stop(mut self) -> Result<(), Box<dyn Error>> {
        // A plugin may end before it answers, as those in Go do.
        let _ = GrpcControllerClient::new(self.channel.clone()).shutdown(Empty {}).await;
        let status = timeout(PATIENCE, self.child.wait()).await??;
        if !status.success() {
            return Err(format!("the plugin ended with {status}").into());
        }
        Ok(())
    }
}

/// Returns where a plugin is that printed `handshake`.
fn address(handshake: &str) -> Result<Address, Box<dyn Error>> {
    match handshake.split('|').collect::<Vec<_>>()[..] {
        ["1", version, "unix", path, "grpc", ..] if version == VERSION.to_string() => {
            Ok(Address::unix(path)?)
        }
        _ => Err(format!("this is no handshake that this host understands: {handshake:?}").into()),
    }
}
